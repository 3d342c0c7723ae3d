//! The life of an agent as a pure state machine: what may be asked of it in which state, and what a sighting by the
//! launcher makes of its record. No I/O, no clock; the invariant is that an incarnation ends at most once.
//!
//! ```text
//! created ──start──▶ starting ──sighted──▶ running ◀─resume─ pause─▶ paused
//!    ▲ (rm, apply)      │ ▲ restart rule      │ stop              │ stop
//!                refused│ └──────────┐        ▼                   │
//!                       ▼            └──── stopping ◀─────────────┘
//!                    failed                   │ ended
//!                                             ▼
//!                                           exited
//! ```

use aion_store::{AgentRecord, AgentState, ExitRecord, LayerRow, RestartMode, RestraintRow};
use aion_types::{ErrorCode, Exit, ExitReason};

use crate::problem::Problem;

/// A run of this length makes the next restart the first in a row again.
const STABLE_RUN_NS: u64 = 60_000_000_000;

/// What a user may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Start,
    Stop,
    Signal,
    Pause,
    Resume,
    Remove { force: bool },
    Replace,
    Exec,
}

/// What the launcher saw of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) incarnation: u32,
    pub(crate) phase: Phase,
    pub(crate) pid: u32,
    pub(crate) cgroup: String,
    pub(crate) layers: Vec<LayerRow>,
    pub(crate) started_ns: u64,
    pub(crate) dropped_events: u64,
    pub(crate) launch_ns: u64,
    pub(crate) restraints: Vec<RestraintRow>,
}

/// Where the launcher saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Frozen,
    Ended { exit: Exit, time_ns: u64 },
}

/// Whether a command fits the state.
pub(crate) fn check(record: &AgentRecord, command: Command) -> Result<(), Problem> {
    use AgentState as S;
    let waits = record.state == S::Starting && record.restart_at_ns != 0;
    let name = record.name.as_str();
    let not_running = || {
        let why = match record.state {
            S::Created => "was never started",
            S::Failed => "could not be started",
            S::Exited => "has ended",
            S::Stopping => "is stopping",
            S::Starting if waits => "has ended and waits for its restart",
            _ => "does not run yet",
        };
        let problem = Problem::new(ErrorCode::AgentNotRunning, format!("{name} {why}"));
        if record.state.is_live() {
            problem
        } else {
            problem.hint(format!("`aionctl inspect {name}` says more"))
        }
    };
    let running = || {
        let why = if record.state == S::Paused { "is paused" } else { "runs" };
        Problem::new(ErrorCode::AgentRunning, format!("{name} {why}"))
    };
    let verdict = match (command, record.state) {
        (Command::Start, S::Created | S::Exited | S::Failed) => Ok(()),
        (Command::Start, S::Starting) if waits => Ok(()),
        (Command::Start, S::Stopping) => {
            Err(Problem::new(ErrorCode::AgentRunning, format!("{name} is still stopping")))
        }
        (Command::Start, _) => Err(running()),

        (Command::Stop, S::Running | S::Paused | S::Starting | S::Stopping) => Ok(()),
        (Command::Signal, S::Running | S::Paused | S::Stopping) => Ok(()),
        (Command::Signal, S::Starting) if waits => Err(not_running()),
        (Command::Signal, S::Starting) => Ok(()),
        (Command::Pause, S::Running | S::Paused) => Ok(()),
        (Command::Resume, S::Running | S::Paused) => Ok(()),
        (Command::Exec, S::Running) => Ok(()),
        (Command::Exec, S::Paused) => Err(Problem::new(
            ErrorCode::AgentPaused,
            format!("{name} is paused: nothing can be executed in it"),
        )
        .hint(format!("`aionctl resume {name}`"))),
        (Command::Stop | Command::Signal | Command::Pause | Command::Resume | Command::Exec, _) => {
            Err(not_running())
        }

        (Command::Remove { .. } | Command::Replace, S::Created | S::Exited | S::Failed) => Ok(()),
        (Command::Remove { force: true }, _) => Ok(()),
        (Command::Remove { force: false } | Command::Replace, _) => {
            Err(running().hint(format!("stop it first: `aionctl stop {name}`")))
        }
    };
    verdict.map_err(|problem| problem.with("agent", record.id.as_str()).with("state", record.state.as_str()))
}

/// A user's start: a fresh row of restarts, and a new incarnation unless none was launched yet.
pub(crate) fn begin_start(record: &mut AgentRecord) {
    if record.launched {
        record.incarnation = record.incarnation.saturating_add(1);
    }
    record.state = AgentState::Starting;
    record.restarts = 0;
    record.restarts_in_row = 0;
    record.restart_at_ns = 0;
    record.stop_requested = false;
    record.exit = None;
    record.pid = 0;
    record.layers.clear();
    record.message.clear();
    record.failure_code.clear();
}

/// The time of a restart has come.
pub(crate) const fn begin_restart(record: &mut AgentRecord) {
    record.restart_at_ns = 0;
}

/// The launch was refused for a reason that will not pass by itself. `sent`: by the launcher, which answers a
/// repeated launch of one incarnation with the first result, so that the next try needs another.
pub(crate) fn launch_refused(record: &mut AgentRecord, problem: &Problem, sent: bool, now_ns: u64) {
    if record.state != AgentState::Starting {
        return;
    }
    record.launched |= sent;
    record.state = AgentState::Failed;
    record.pid = 0;
    record.restart_at_ns = 0;
    record.finished_ns = now_ns;
    record.message = problem.message().to_owned();
    record.failure_code = problem.code().as_str().to_owned();
}

/// A user asks it to end: whatever ends it now, it stays ended.
pub(crate) fn begin_stop(record: &mut AgentRecord) {
    record.stop_requested = true;
    if record.state == AgentState::Starting && record.restart_at_ns != 0 {
        record.restart_at_ns = 0;
        record.incarnation = record.incarnation.saturating_sub(1);
        record.state = AgentState::Exited;
        record.message.clear();
    } else if record.state.is_live() {
        record.state = AgentState::Stopping;
    }
}

/// Takes in what the launcher saw. Old news, and news twice, change nothing.
pub(crate) fn sighted(record: &mut AgentRecord, seen: &Sighting) -> bool {
    if seen.incarnation < record.incarnation {
        return false;
    }
    let before = record.clone();
    if seen.incarnation > record.incarnation {
        // The launcher knows of a later one, which can only be when our record is older than what we did.
        record.incarnation = seen.incarnation;
        record.exit = None;
        record.state = AgentState::Starting;
    }
    record.launched = true;
    record.dropped_events = record.dropped_events.max(seen.dropped_events);
    record.restraints.clone_from(&seen.restraints);
    if !seen.layers.is_empty() {
        record.layers.clone_from(&seen.layers);
    }
    if !seen.cgroup.is_empty() {
        record.cgroup.clone_from(&seen.cgroup);
    }
    if seen.started_ns != 0 {
        record.started_ns = seen.started_ns;
    }
    if seen.launch_ns != 0 {
        record.launch_ns = seen.launch_ns;
    }
    let over = record.exit.is_some_and(|exit| exit.incarnation == record.incarnation);
    match seen.phase {
        _ if over => {}
        Phase::Running | Phase::Frozen => {
            record.pid = seen.pid;
            record.restart_at_ns = 0;
            record.message.clear();
            record.failure_code.clear();
            record.state = match (record.stop_requested, seen.phase) {
                (true, _) => AgentState::Stopping,
                (false, Phase::Frozen) => AgentState::Paused,
                _ => AgentState::Running,
            };
        }
        Phase::Ended { exit, time_ns } => ended(record, exit, time_ns),
    }
    *record != before
}

/// The launcher does not know an agent that was with it: nobody saw it end.
pub(crate) fn vanished(record: &mut AgentRecord, now_ns: u64) {
    // This incarnation is used up, even when the launcher never had it.
    record.launched = true;
    ended(record, Exit { code: 0, signal: 9, reason: ExitReason::Lost }, now_ns);
}

fn ended(record: &mut AgentRecord, exit: Exit, time_ns: u64) {
    record.exit = Some(ExitRecord { exit, time_ns, incarnation: record.incarnation });
    record.pid = 0;
    record.finished_ns = time_ns;
    record.restart_at_ns = 0;
    record.message.clear();
    record.failure_code.clear();
    let ran = time_ns.saturating_sub(record.started_ns);
    if ran >= STABLE_RUN_NS {
        record.restarts_in_row = 0;
    }
    match restart_delay_ns(record, exit) {
        None => record.state = AgentState::Exited,
        Some(delay) => {
            record.state = AgentState::Starting;
            record.restart_at_ns = time_ns.saturating_add(delay).max(1);
            record.incarnation = record.incarnation.saturating_add(1);
            record.restarts = record.restarts.saturating_add(1);
            record.restarts_in_row = record.restarts_in_row.saturating_add(1);
            record.message = format!("ended with {} and is started again", describe(exit));
        }
    }
}

/// How long to wait before it is launched again; none when it is not.
fn restart_delay_ns(record: &AgentRecord, exit: Exit) -> Option<u64> {
    let rule = &record.restart;
    let failed = exit.shell_code() != 0 || exit.reason != ExitReason::Exited;
    let wanted = match rule.mode {
        RestartMode::Never => false,
        RestartMode::OnFailure => failed,
        RestartMode::Always => true,
    };
    let left = rule.max_restarts == 0 || record.restarts_in_row < rule.max_restarts;
    if record.stop_requested || !wanted || !left {
        return None;
    }
    let factor = 1u64.checked_shl(record.restarts_in_row.min(32)).unwrap_or(u64::MAX);
    let delay_ms = rule.backoff_ms.saturating_mul(factor).min(rule.max_backoff_ms);
    Some(delay_ms.saturating_mul(1_000_000))
}

fn describe(exit: Exit) -> String {
    match exit.reason {
        ExitReason::Exited => format!("code {}", exit.code),
        reason => format!("{} (code {})", reason.as_str(), exit.shell_code()),
    }
}

#[cfg(test)]
mod tests;
