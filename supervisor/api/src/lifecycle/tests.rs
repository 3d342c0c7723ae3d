//! The state machine: single steps, then properties over random histories.

use std::collections::BTreeMap;

use aion_store::RestartRule;
use aion_types::{AgentId, AgentName, TenantId};
use proptest::prelude::*;

use super::*;

fn record() -> AgentRecord {
    AgentRecord {
        restart: RestartRule {
            mode: RestartMode::Never,
            max_restarts: 3,
            backoff_ms: 100,
            max_backoff_ms: 300,
        },
        created_ns: 1,
        ..AgentRecord::new(
            AgentId::from_parts(1, 1),
            TenantId::parse("default").unwrap(),
            AgentName::parse("x").unwrap(),
        )
    }
}

fn seen(incarnation: u32, phase: Phase) -> Sighting {
    Sighting {
        incarnation,
        phase,
        pid: 42,
        cgroup: "aion/x".into(),
        layers: Vec::new(),
        started_ns: 1000,
        dropped_events: 0,
        launch_ns: 5,
        restraints: Vec::new(),
    }
}

fn end(code: u8, time_ns: u64) -> Phase {
    Phase::Ended { exit: Exit { code, signal: 0, reason: ExitReason::Exited }, time_ns }
}

#[test]
fn a_plain_life() {
    let mut agent = record();
    check(&agent, Command::Start).unwrap();
    begin_start(&mut agent);
    assert_eq!((agent.state, agent.incarnation), (AgentState::Starting, 0));
    assert!(sighted(&mut agent, &seen(0, Phase::Running)));
    assert!(!sighted(&mut agent, &seen(0, Phase::Running)), "news twice change nothing");
    assert_eq!((agent.state, agent.pid), (AgentState::Running, 42));
    assert_eq!(check(&agent, Command::Start).unwrap_err().code(), ErrorCode::AgentRunning);
    sighted(&mut agent, &seen(0, Phase::Frozen));
    assert_eq!(agent.state, AgentState::Paused);
    assert_eq!(check(&agent, Command::Exec).unwrap_err().code(), ErrorCode::AgentPaused);
    sighted(&mut agent, &seen(0, Phase::Running));
    sighted(&mut agent, &seen(0, end(3, 2000)));
    assert_eq!((agent.state, agent.pid, agent.finished_ns), (AgentState::Exited, 0, 2000));
    assert_eq!(agent.exit.unwrap().exit.code, 3);
    assert!(!sighted(&mut agent, &seen(0, Phase::Running)), "it does not rise from an old notice");
    assert_eq!(check(&agent, Command::Stop).unwrap_err().code(), ErrorCode::AgentNotRunning);
    begin_start(&mut agent);
    assert_eq!((agent.incarnation, agent.exit), (1, None));
    assert!(!sighted(&mut agent, &seen(0, end(3, 2000))), "the end of an earlier incarnation");
}

#[test]
fn a_refused_launch_can_be_tried_again() {
    let mut agent = record();
    begin_start(&mut agent);
    launch_refused(&mut agent, &Problem::new(ErrorCode::SecretNotFound, "no"), false, 9);
    begin_start(&mut agent);
    assert_eq!(agent.incarnation, 0, "the launcher never had it");
    launch_refused(&mut agent, &Problem::new(ErrorCode::LayerFailed, "no"), true, 9);
    assert_eq!((agent.state, agent.failure_code.as_str()), (AgentState::Failed, "LAYER_FAILED"));
    check(&agent, Command::Start).unwrap();
    begin_start(&mut agent);
    assert!(agent.message.is_empty());
    assert_eq!(agent.incarnation, 1);
}

#[test]
fn restarts_back_off_and_end() {
    let mut agent = record();
    agent.restart.mode = RestartMode::OnFailure;
    begin_start(&mut agent);
    let mut delays = Vec::new();
    for incarnation in 0..4 {
        sighted(&mut agent, &seen(incarnation, Phase::Running));
        sighted(&mut agent, &seen(incarnation, end(1, 2000)));
        if agent.state == AgentState::Starting {
            delays.push((agent.restart_at_ns - 2000) / 1_000_000);
            assert_eq!(check(&agent, Command::Signal).unwrap_err().code(), ErrorCode::AgentNotRunning);
            begin_restart(&mut agent);
        }
    }
    assert_eq!(delays, [100, 200, 300]);
    assert_eq!((agent.state, agent.restarts), (AgentState::Exited, 3));
    begin_start(&mut agent);
    assert_eq!(agent.restarts, 0);
}

#[test]
fn a_long_run_forgives_and_success_ends() {
    let mut agent = record();
    agent.restart =
        RestartRule { mode: RestartMode::OnFailure, max_restarts: 1, backoff_ms: 1, max_backoff_ms: 1 };
    begin_start(&mut agent);
    for incarnation in 0..5 {
        sighted(&mut agent, &seen(incarnation, end(1, 1000 + STABLE_RUN_NS)));
        assert_eq!(agent.state, AgentState::Starting, "{incarnation}");
        begin_restart(&mut agent);
    }
    assert_eq!(agent.restarts, 5);
    sighted(&mut agent, &seen(5, end(0, 2000)));
    assert_eq!(agent.state, AgentState::Exited);
}

#[test]
fn a_stopped_agent_stays_stopped() {
    let mut agent = record();
    agent.restart.mode = RestartMode::Always;
    begin_start(&mut agent);
    sighted(&mut agent, &seen(0, Phase::Running));
    begin_stop(&mut agent);
    assert_eq!(agent.state, AgentState::Stopping);
    sighted(&mut agent, &seen(0, Phase::Running));
    assert_eq!(agent.state, AgentState::Stopping);
    sighted(&mut agent, &seen(0, end(0, 9)));
    assert_eq!(agent.state, AgentState::Exited);

    // Also while it waits for its restart.
    begin_start(&mut agent);
    sighted(&mut agent, &seen(1, end(0, 2000)));
    assert_eq!((agent.state, agent.incarnation), (AgentState::Starting, 2));
    begin_stop(&mut agent);
    assert_eq!((agent.state, agent.incarnation), (AgentState::Exited, 1));
    assert!(!sighted(&mut agent, &seen(1, end(0, 2000))));
}

#[test]
fn lost_is_a_failure() {
    let mut agent = record();
    begin_start(&mut agent);
    sighted(&mut agent, &seen(0, Phase::Running));
    vanished(&mut agent, 77);
    assert_eq!(agent.state, AgentState::Exited);
    assert_eq!(agent.exit.unwrap().exit.reason, ExitReason::Lost);
    assert_eq!(agent.exit.unwrap().exit.shell_code(), 137);
}

#[derive(Debug, Clone)]
enum Step {
    Start,
    Stop,
    Restart,
    Refuse,
    See { back: u32, phase: u8 },
    Vanish,
}

fn steps() -> impl Strategy<Value = (u8, Vec<Step>)> {
    let step = prop_oneof![
        2 => Just(Step::Start),
        1 => Just(Step::Stop),
        2 => Just(Step::Restart),
        1 => Just(Step::Refuse),
        6 => (0..3u32, 0..3u8).prop_map(|(back, phase)| Step::See { back, phase }),
        1 => Just(Step::Vanish),
    ];
    (0..3u8, prop::collection::vec(step, 1..80))
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants((mode, steps) in steps()) {
        let mut agent = record();
        agent.restart.mode = [RestartMode::Never, RestartMode::OnFailure, RestartMode::Always][usize::from(mode)];
        let mut ends: BTreeMap<u32, Exit> = BTreeMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            let before = agent.clone();
            match step {
                Step::Start => if check(&agent, Command::Start).is_ok() { begin_start(&mut agent) },
                Step::Stop => if check(&agent, Command::Stop).is_ok() { begin_stop(&mut agent) },
                Step::Restart => if agent.state == AgentState::Starting { begin_restart(&mut agent) },
                Step::Refuse => launch_refused(&mut agent, &Problem::new(ErrorCode::LayerFailed, "no"), true, 1),
                Step::See { back, phase } => {
                    let phase = match phase {
                        0 => Phase::Running,
                        1 => Phase::Frozen,
                        _ => end(u8::try_from(at % 3).unwrap(), 1000 + at as u64),
                    };
                    // The launcher sees only what was launched.
                    if agent.launched || agent.state == AgentState::Starting {
                        let incarnation = agent.incarnation.saturating_sub(back);
                        sighted(&mut agent, &seen(incarnation, phase));
                    }
                }
                Step::Vanish => if matches!(agent.state, AgentState::Running | AgentState::Paused | AgentState::Stopping) {
                    vanished(&mut agent, 1000 + at as u64);
                },
            }
            prop_assert!(agent.incarnation >= before.incarnation || before.restart_at_ns != 0);
            if let Some(exit) = agent.exit {
                let first = *ends.entry(exit.incarnation).or_insert(exit.exit);
                prop_assert_eq!(first, exit.exit, "an incarnation ended twice");
            }
            prop_assert_eq!(agent.restart_at_ns != 0 && agent.state != AgentState::Starting, false);
            prop_assert!(agent.pid == 0 || agent.state.is_live());
            if agent.stop_requested {
                prop_assert!(agent.state != AgentState::Starting || agent.restart_at_ns == 0);
            }
            if agent.restart.mode == RestartMode::Never {
                prop_assert_eq!(agent.restarts, 0);
            }
            prop_assert!(agent.restarts_in_row <= agent.restart.max_restarts);
        }
    }
}
