//! Whether the agent serves tasks, how many at once, and how they make room.
//!
//! The rule: a job can be given tasks unless `tasks: false`; a service only with `tasks: true`, because it must speak the runtime
//! protocol for it. What is said about tasks of an agent that serves none is an error and not ignored.

use aion_types::ByteSize;

use super::Checker;
use crate::raw::{self, Mode};
use crate::spec::{Checkpoint, Tasks};

const KI: u64 = 1 << 10;
const MI: u64 = 1 << 20;
const GI: u64 = 1 << 30;

impl Checker<'_> {
    pub(super) fn tasks(
        &mut self,
        mode: Mode,
        serves: Option<bool>,
        concurrency: Option<u64>,
        checkpoint: Option<raw::Checkpoint>,
    ) -> Option<Tasks> {
        if !serves.unwrap_or(mode == Mode::Job) {
            let given = [("concurrency", concurrency.is_some()), ("checkpoint", checkpoint.is_some())];
            for (name, _) in given.into_iter().filter(|(_, given)| *given) {
                let text = match serves {
                    None => "a service is given no tasks unless it says so; add tasks: true to spec",
                    Some(_) => "the agent is given no tasks; remove it, or tasks: false",
                };
                self.problem(&format!("spec.{name}"), text);
            }
            return None;
        }
        let concurrency = self.number32("spec.concurrency", concurrency, 1, 1, 1024);
        let checkpoint = checkpoint.unwrap_or_default();
        // A process with several tasks would stop all of them.
        let can_freeze = mode == Mode::Job || concurrency == 1;
        if checkpoint.freeze == Some(true) && !can_freeze {
            let text = "freezing would stop all tasks of the service; set concurrency: 1, or freeze: false";
            self.problem("spec.checkpoint.freeze", text);
        }
        let interval_ms = checkpoint
            .interval_ms
            .map(|ms| self.number("spec.checkpoint.interval_ms", Some(ms), 1000, 100, 86_400_000));
        let grace_ms = self.number("spec.checkpoint.grace_ms", checkpoint.grace_ms, 5000, 0, 600_000);
        let max_bytes = checkpoint.max_bytes.unwrap_or(ByteSize(64 * MI));
        if !(64 * KI..=GI).contains(&max_bytes.0) {
            self.problem(
                "spec.checkpoint.max_bytes",
                &format!("{max_bytes} is out of range; use 64Ki to 1Gi"),
            );
        }
        let freeze = checkpoint.freeze.unwrap_or(can_freeze);
        Some(Tasks { concurrency, checkpoint: Checkpoint { interval_ms, grace_ms, max_bytes, freeze } })
    }
}
