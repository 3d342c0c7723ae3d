//! Which calls had their server to themselves: what it writes to standard error names no call, so only of such a call can be
//! said that what was written meanwhile is about nobody else's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a server writes goes through a pipe that PID 1 of its sandbox empties: an answer may be here before the words about it
/// have their time.
const QUIET: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };

#[derive(Default)]
struct Counts {
    begun: u64,
    /// Calls that were not answered. One that was given up stays: the server may still be at it.
    open: u64,
    answered: Option<Instant>,
}

/// The calls of one server.
#[derive(Default)]
pub(super) struct Turns(Mutex<Counts>);

/// One call's place among them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    number: u64,
    quiet: bool,
}

impl Turns {
    /// A call is about to be sent.
    pub(super) fn begin(&self, now: Instant) -> Turn {
        let mut counts = self.counts();
        let quiet =
            counts.open == 0 && counts.answered.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        counts.begun += 1;
        counts.open += 1;
        Turn { number: counts.begun, quiet }
    }

    /// A call was answered.
    pub(super) fn answered(&self, now: Instant) {
        let mut counts = self.counts();
        counts.open = counts.open.saturating_sub(1);
        counts.answered = Some(now);
    }

    /// Whether no other call was there from this one's beginning until now, nor shortly before.
    pub(super) fn alone(&self, turn: Turn) -> bool {
        turn.quiet && self.counts().begun == turn.number
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_alone_when_nobody_was_there_shortly_before_or_since() {
        let (turns, start) = (Turns::default(), Instant::now());
        let first = turns.begin(start);
        assert!(turns.alone(first));
        let beside = turns.begin(start);
        assert!(!turns.alone(first) && !turns.alone(beside));
        turns.answered(start);
        assert!(!turns.alone(turns.begin(start + QUIET)), "one was not answered yet");
        turns.answered(start);
        turns.answered(start);
        let early = turns.begin(start + QUIET / 2);
        assert!(!turns.alone(early), "what the last one left may be on its way");
        turns.answered(start + QUIET / 2);
        assert!(turns.alone(turns.begin(start + QUIET * 2)));
        // That one is given up: nobody after it is alone.
        assert!(!turns.alone(turns.begin(start + QUIET * 100)));
    }
}
