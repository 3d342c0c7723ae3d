//! Where the clock of the host went back. Times of commits never do: they stay what they were until the clock has come up with them again, and
//! beside them stands what it said.

use crate::piece::Commit;

/// The clock went back before this commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// The first one after it.
    pub commit: u64,
    /// The newest event after that one.
    pub event: u64,
    /// From there, in ms since 1970.
    pub before_ms: u64,
    /// To there.
    pub after_ms: u64,
}

/// Finds steps in commits as they follow each other.
#[derive(Debug, Default, Clone)]
pub(super) struct Clock {
    behind: Option<u64>,
}

impl Clock {
    /// The step that lies before this one; of a clock that was behind already, one further back.
    pub(super) fn step(&mut self, commit: &Commit) -> Option<ClockStep> {
        let before = std::mem::replace(&mut self.behind, commit.clock_ms);
        let after_ms = commit.clock_ms?;
        let before_ms = before.unwrap_or(commit.time_ms);
        let Commit { commit, event, .. } = *commit;
        (after_ms < before_ms).then_some(ClockStep { commit, event, before_ms, after_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_back_is_found_once() {
        let mut clock = Clock::default();
        let told = [
            (1, 1000, None),
            (2, 5000, None),
            (3, 5000, Some(3000)),
            (4, 5000, Some(3500)),
            (5, 5000, Some(2000)),
            (6, 5100, None),
            (7, 6000, Some(10)),
        ]
        .map(|(commit, time_ms, clock_ms)| {
            clock.step(&Commit { commit, event: 2 * commit, time_ms, clock_ms, line: None })
        });
        let steps: Vec<_> = told
            .iter()
            .flatten()
            .map(|step| (step.commit, step.event, step.before_ms, step.after_ms))
            .collect();
        assert_eq!(steps, [(3, 6, 5000, 3000), (5, 10, 3500, 2000), (7, 14, 6000, 10)]);
    }
}
