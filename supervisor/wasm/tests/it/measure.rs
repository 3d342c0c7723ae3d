//! Figures, and bounds that are far from them: cold start, memory, and the latency of a warm call through the pipe.

use std::time::{Duration, Instant};

use crate::guest::{TARGETS, guest};
use crate::serve::{Runner, status};

const CALLS: u64 = 1000;

#[test]
fn a_warm_call_is_fast() {
    for target in TARGETS {
        guest(target);
        let begun = Instant::now();
        let mut runner = Runner::start(target, &[]);
        let cold = begun.elapsed();
        let started = status(runner.child.id(), "VmHWM:");
        let mut times: Vec<Duration> = (1..=CALLS)
            .map(|id| {
                let begun = Instant::now();
                assert_eq!(runner.call(id, "echo")["isError"], false);
                begun.elapsed()
            })
            .collect();
        times.sort();
        let at = |share: usize| times[times.len() * share / 100];
        let rss = status(runner.child.id(), "VmRSS:");
        eprintln!(
            "{target}: cold start {cold:?}, peak then {started} kB; warm call p50 {:?} p95 {:?} p99 {:?}; RSS after {CALLS} calls {rss} kB",
            at(50),
            at(95),
            at(99)
        );
        // The goal is 2 ms; tests share the machine.
        assert!(at(50) < Duration::from_millis(10), "{:?}", at(50));
        assert!(rss < 150 << 10, "{rss} kB");
    }
}
