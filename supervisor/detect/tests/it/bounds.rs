//! What is remembered is bounded, and the same events give the same findings.

use aion_detect::{Beacon, When};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::stream::{S, Stream, T0, kinds, rule};

fn several() -> Stream {
    let beacon = Beacon {
        of: kinds(&["net.connect"]),
        by: vec!["addr".to_owned()],
        count: 4,
        jitter_percent: 20,
        min_ns: S,
    };
    Stream::new(vec![
        rule("few", 5, When::Count { of: kinds(&["proc.fork", "net.connect"]), at_least: 5 }),
        rule("many", 5, When::Count { of: kinds(&["proc.fork"]), at_least: 200 }),
        rule(
            "hosts",
            60,
            When::Distinct { of: kinds(&["net.connect"]), field: "addr".to_owned(), at_least: 9 },
        ),
        rule("beat", 300, When::Beacon(beacon)),
    ])
}

#[test]
fn agents_go_with_their_end_and_the_silent_ones_make_room() {
    let mut stream = several();
    for n in 0..5000u64 {
        stream.tell_of(&format!("agent-{n}"), T0 + n, "proc.fork", "allowed", Value::Null);
    }
    assert_eq!((stream.engine.agents(), stream.engine.evicted()), (4096, 904));
    stream.engine.forget("agent-4999");
    assert_eq!(stream.engine.agents(), 4095);
    stream.engine.tidy(T0 + 10_000 * S);
    assert_eq!(stream.engine.agents(), 0);
}

#[test]
fn an_agent_that_begins_anew_has_no_past() {
    let mut stream = several();
    for n in 0..4 {
        stream.tell(T0 + n, "proc.fork", Value::Null);
    }
    stream.engine.forget("a");
    assert_eq!(stream.tell(T0 + 5, "proc.fork", Value::Null), 0);
}

#[test]
fn a_clock_that_is_set_back_makes_no_window_stand_still() {
    let mut stream = several();
    stream.tell(T0 + 7200 * S, "proc.fork", Value::Null);
    // One a minute, an hour earlier: if the last time stood, all of them would be at once.
    for n in 0..50 {
        stream.tell(T0 + n * 60 * S, "proc.fork", Value::Null);
    }
    assert!(stream.findings.is_empty());
}

#[test]
fn what_was_looked_at_once_more_counts_for_windows_and_not_for_figures() {
    let mut stream = several();
    for n in 0..5 {
        stream.tell(T0 + n, "proc.fork", Value::Null);
    }
    stream.engine.count_anew();
    assert!(stream.engine.status().iter().all(|status| status.fired == 0));
    for n in 0..5 {
        stream.tell(T0 + 10 + n, "proc.fork", Value::Null);
    }
    assert_eq!(stream.findings.len(), 1, "it is still quiet");
}

proptest! {
    #[test]
    fn the_same_events_give_the_same_findings(
        events in prop::collection::vec((0u64..4, 0u64..3, 0u64..4 * S, 0u8..12), 1..400),
    ) {
        let run = || {
            let mut stream = several();
            let mut now = T0;
            for (agent, kind, gap, addr) in &events {
                now += gap;
                let kind = ["proc.fork", "net.connect", "proc.exit"][usize::try_from(*kind).unwrap()];
                let detail = json!({"addr": format!("192.0.2.{addr}")});
                stream.tell_of(&format!("agent-{agent}"), now, kind, "allowed", detail);
            }
            stream.findings
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn other_agents_change_nothing(gaps in prop::collection::vec(0u64..2 * S, 1..200)) {
        let run = |others: bool| {
            let mut stream = several();
            let mut now = T0;
            for gap in &gaps {
                now += gap;
                stream.tell(now, "proc.fork", Value::Null);
                if others {
                    stream.tell_of("b", now, "proc.fork", "allowed", Value::Null);
                }
            }
            stream.findings.iter().filter(|f| f.agent == "a").map(|f| (f.time_ns, f.value)).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(false), run(true));
    }
}
