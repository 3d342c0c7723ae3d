//! A task in memory. What a queued one does not need is in a box, so that a million of them fit.

use crate::{Attempt, Class, Name, RetryPolicy, State, TaskNumber};

/// Bits of [`Task::flags`].
pub(crate) mod flag {
    /// Effects may be repeated.
    pub(crate) const IDEMPOTENT: u8 = 1;
    /// An attempt was lost, and the task is not idempotent.
    pub(crate) const MAY_REPEAT: u8 = 2;
    /// In its lane's queue.
    pub(crate) const QUEUED: u8 = 4;
    /// Its row is to be written.
    pub(crate) const DIRTY: u8 = 8;
    /// A slot is kept for it.
    pub(crate) const CLAIMS: u8 = 16;
    /// Those that are part of the row.
    pub(crate) const STORED: u8 = IDEMPOTENT | MAY_REPEAT;
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) number: u64,
    pub(crate) id: Name,
    pub(crate) fingerprint: u64,
    pub(crate) submitted: u64,
    /// 0: none.
    pub(crate) deadline: u64,
    /// Of the backoff; 0: none.
    pub(crate) ready_at: u64,
    pub(crate) last_event: u64,
    /// Where its timer stands; 0: none.
    pub(crate) timer: u64,
    pub(crate) lane: u32,
    pub(crate) tenant: u32,
    /// 0: none.
    pub(crate) timeout_ms: u32,
    /// 0: unknown.
    pub(crate) estimate_ms: u32,
    pub(crate) backoff_ms: u32,
    pub(crate) max_backoff_ms: u32,
    pub(crate) factor_percent: u32,
    pub(crate) slots: u32,
    pub(crate) gpu: u16,
    pub(crate) max_attempts: u16,
    /// How many tasks it still waits for.
    pub(crate) blocked_by: u16,
    pub(crate) preemptions: u16,
    pub(crate) class: Class,
    pub(crate) priority: u8,
    pub(crate) state: State,
    pub(crate) flags: u8,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) run: Option<Box<Run>>,
}

/// What most queued tasks do not have.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Rare {
    pub(crate) tokens_max: u64,
    pub(crate) usd_max: u64,
    pub(crate) tokens: u64,
    pub(crate) usd: u64,
    /// Numbers of the tasks that wait for this one.
    pub(crate) dependants: Vec<u64>,
    /// Numbers of the tasks that it still waits for.
    pub(crate) after: Vec<u64>,
    pub(crate) attempts: u32,
    pub(crate) failures: u32,
    pub(crate) checkpoints: u32,
    /// How often in a row it gave up by itself or was let go by its agent, without progress or a checkpoint between.
    pub(crate) yields: u32,
    /// Those that are kept, oldest first: number and size.
    pub(crate) kept: Vec<(u32, u64)>,
    pub(crate) progress: u16,
    pub(crate) note: String,
    pub(crate) error: Option<Failure>,
    /// Its deadline was admitted, and it has not begun.
    pub(crate) promise: Option<Promise>,
    /// 0: not yet.
    pub(crate) started: u64,
    /// 0: not yet.
    pub(crate) finished: u64,
    pub(crate) agent: Option<Name>,
}

/// When a task begins at the latest, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) start: u64,
    pub(crate) agent: u32,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
}

/// An attempt that holds an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) attempt: Attempt,
    pub(crate) agent: u32,
    pub(crate) stage: Stage,
    /// When it took its slots: at dispatch or at the last thaw.
    pub(crate) since: u64,
    /// Slot-time of this stretch is charged up to here.
    pub(crate) charged_until: u64,
    /// What it ran before it was frozen.
    pub(crate) ran_ms: u64,
    /// What would be lost runs from here: the start of the stretch or its last checkpoint.
    pub(crate) base: u64,
    /// What an earlier stretch would lose, too.
    pub(crate) unsaved_ms: u64,
    /// When the stage ends by itself; 0: it does not.
    pub(crate) until: u64,
    /// When it is asked for a checkpoint; 0: never.
    pub(crate) checkpoint_at: u64,
    /// When its progress was last told.
    pub(crate) told_at: u64,
    /// Whom it makes room for; 0: nobody.
    pub(crate) room_for: u64,
    /// It holds its slots.
    pub(crate) holds: bool,
    /// Nothing was heard of it since the start of the daemon.
    pub(crate) unconfirmed: bool,
    /// It was told that its deadline passed.
    pub(crate) late: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Running,
    /// `Preempt` was sent.
    Asked,
    /// `Freeze` was sent.
    Freezing,
    Frozen,
    /// `Stop` was sent, to make room.
    Stopping,
    /// The task's fate is decided; `CancelAttempt` was sent, and its end is awaited.
    Over,
    /// As `Over`, and `Stop` was sent.
    OverStopping,
    /// Its agent did not come back; `Stop` was sent, and the task goes on after its end.
    LostStopping,
}

impl Stage {
    pub(crate) const ALL: [Stage; 8] = [
        Stage::Running,
        Stage::Asked,
        Stage::Freezing,
        Stage::Frozen,
        Stage::Stopping,
        Stage::Over,
        Stage::OverStopping,
        Stage::LostStopping,
    ];

    /// The attempt no longer counts; only its end is awaited.
    pub(crate) const fn fenced(self) -> bool {
        matches!(self, Self::Over | Self::OverStopping)
    }

    /// Its memory counts as that of a frozen one.
    pub(crate) const fn cold(self) -> bool {
        matches!(self, Self::Freezing | Self::Frozen)
    }

    /// `Stop` was sent and is repeated.
    pub(crate) const fn stopping(self) -> bool {
        matches!(self, Self::Stopping | Self::OverStopping | Self::LostStopping)
    }
}

impl Task {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    pub(crate) fn number(&self) -> TaskNumber {
        TaskNumber(self.number)
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// What it stands in its queue by: its deadline, or when its patience ends.
    pub(crate) fn due(&self, patience_ms: u64) -> u64 {
        if self.deadline != 0 {
            return self.deadline;
        }
        let patience = patience_ms << (9 - u32::from(self.priority.min(9)));
        self.submitted.saturating_add(patience)
    }

    pub(crate) fn promise(&self) -> Option<Promise> {
        self.rare.as_ref()?.promise
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts.into(),
            backoff_ms: self.backoff_ms.into(),
            max_backoff_ms: self.max_backoff_ms.into(),
            factor_percent: self.factor_percent,
        }
    }

    /// Whether the attempt holds its slots.
    pub(crate) fn holds(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.holds)
    }

    /// When something of it is due by itself; 0: never.
    pub(crate) fn next_timer(&self) -> u64 {
        let mut next = u64::MAX;
        let mut due = |at: u64| {
            if at != 0 {
                next = next.min(at);
            }
        };
        if let Some(run) = &self.run {
            due(run.until);
            if run.stage != Stage::Frozen && run.holds {
                due(run.charged_until);
            }
            if run.stage == Stage::Running {
                due(run.checkpoint_at);
            }
            if self.timeout_ms != 0 && run.holds && !run.stage.fenced() {
                due(run.since.saturating_add(u64::from(self.timeout_ms).saturating_sub(run.ran_ms)).max(1));
            }
            if !run.late && !self.state.ended() {
                due(self.deadline);
            }
        } else if !self.state.ended() {
            due(self.ready_at);
            due(self.deadline);
        }
        if next == u64::MAX { 0 } else { next }
    }
}

/// The pause before the attempt after this many failures.
pub(crate) fn backoff(policy: RetryPolicy, failures: u32) -> u64 {
    let mut pause = u128::from(policy.backoff_ms);
    let most = u128::from(policy.max_backoff_ms.max(1));
    for _ in 1..failures {
        if pause >= most || policy.factor_percent <= 100 {
            break;
        }
        pause = pause * u128::from(policy.factor_percent) / 100;
    }
    u64::try_from(pause.min(most)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_task_is_small() {
        assert!(size_of::<Option<Task>>() <= 152, "{}", size_of::<Option<Task>>());
    }

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let policy =
            RetryPolicy { max_attempts: 9, backoff_ms: 100, max_backoff_ms: 1000, factor_percent: 300 };
        assert_eq!([1, 2, 3, 4, 1000].map(|n| backoff(policy, n)), [100, 300, 900, 1000, 1000]);
        assert_eq!(backoff(RetryPolicy { factor_percent: 100, ..policy }, 4_000_000_000), 100);
    }
}
