//! What became of each webhook's alerts. The labels are names that the operator chose, and words of ours.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One webhook's.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: AtomicU64,
    /// The receiver did not take them.
    pub(crate) given_up: AtomicU64,
    /// There was no room.
    pub(crate) dropped: AtomicU64,
    /// The daemon ended before.
    pub(crate) lost: AtomicU64,
    /// Alerts that wait, with the one that is being sent.
    pub(crate) waiting: AtomicU64,
    /// Of the dropped ones, those that the receiver was not told of.
    pub(crate) untold: AtomicU64,
}

impl Counters {
    /// One that waited does so no more.
    pub(crate) fn settle(&self, result: &AtomicU64) {
        self.waiting.fetch_sub(1, Relaxed);
        result.fetch_add(1, Relaxed);
    }
}

/// For Prometheus: each webhook's name and counters.
pub(crate) fn text(all: &[(&str, &Counters)]) -> String {
    let mut out = String::new();
    let name = "aion_webhook_deliveries_total";
    let _ = writeln!(out, "# HELP {name} What became of alerts.\n# TYPE {name} counter");
    for (webhook, counters) in all {
        for (result, count) in [
            ("delivered", &counters.delivered),
            ("dropped", &counters.dropped),
            ("given_up", &counters.given_up),
            ("lost", &counters.lost),
        ] {
            let labels = format!("webhook=\"{webhook}\",result=\"{result}\"");
            let _ = writeln!(out, "{name}{{{labels}}} {}", count.load(Relaxed));
        }
    }
    let name = "aion_webhook_queue";
    let _ = writeln!(out, "# HELP {name} Alerts that wait to be taken.\n# TYPE {name} gauge");
    for (webhook, counters) in all {
        let _ = writeln!(out, "{name}{{webhook=\"{webhook}\"}} {}", counters.waiting.load(Relaxed));
    }
    out
}
