//! Where an archive does not go on, and whether that costs anything: a backup from behind a gap does not need what is missing.

use crate::piece::{Position, Run};

/// What lies between two runs, the newer of which does not go on from the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The older one leads here.
    pub after: Position,
    /// And has every commit up to this moment, in ms since 1970.
    pub until_ms: u64,
    /// The newer one goes on from a backup that stands at this commit, or after it.
    pub from: u64,
    /// When its first commit was made; none: it has none yet.
    pub since_ms: Option<u64>,
    /// A piece is not there any more. Else aiond began the archive anew, and said so: the log was given up, or it is another history.
    pub missing: bool,
    /// The newest backup stands behind it.
    pub harmless: bool,
}

/// The gaps between runs, the newest last, for whoever has backups that stand there.
#[must_use]
pub fn gaps(runs: &[Run], backups: &[Position]) -> Vec<Gap> {
    let newest = backups.iter().max_by_key(|backup| (backup.time_ms, backup.commit));
    // The run that it leads on in; what is younger than the archive needs nothing of it.
    let reached = newest.and_then(|backup| {
        let found = runs.iter().rposition(|run| run.leads_on(backup));
        found.or_else(|| is_after(runs, backup).then_some(runs.len()))
    });
    let between = runs.windows(2).enumerate().filter_map(|(at, pair)| match pair {
        [older, newer] => Some(Gap {
            after: older.to,
            until_ms: older.until_ms,
            from: newer.from,
            since_ms: newer.since_ms,
            missing: !newer.begins,
            harmless: reached.is_some_and(|reached| reached > at),
        }),
        _ => None,
    });
    between.collect()
}

/// Whether a backup was made after all that is in the archive.
#[must_use]
pub fn is_after(runs: &[Run], backup: &Position) -> bool {
    runs.iter().all(|run| run.to.time_ms <= backup.time_ms && run.until_ms <= backup.time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::Line;

    fn at(commit: u64, time_ms: u64, line: u8) -> Position {
        Position { commit, event: 2 * commit, time_ms, line: Line([line; 16]) }
    }

    /// From one commit to another one, on one line.
    fn run(from: u64, to: Position, begins: bool) -> Run {
        let (since_ms, until_ms) = (Some(to.time_ms - 5), to.time_ms);
        let lines = vec![(from, to.line)];
        Run {
            from,
            since_ms,
            to,
            until_ms,
            pieces: 1,
            commits: to.commit - from,
            begins,
            lines,
            steps: Vec::new(),
        }
    }

    #[test]
    fn a_gap_is_harmless_to_who_has_a_backup_from_behind_it() {
        let runs =
            [run(5, at(9, 100, 1), false), run(12, at(20, 200, 1), false), run(30, at(40, 300, 2), true)];
        let harmless =
            |backups: &[Position]| gaps(&runs, backups).iter().map(|gap| gap.harmless).collect::<Vec<_>>();
        let found = gaps(&runs, &[]);
        assert_eq!(
            found.iter().map(|gap| (gap.after.commit, gap.from, gap.missing)).collect::<Vec<_>>(),
            [(9, 12, true), (20, 30, false)]
        );
        assert_eq!(harmless(&[]), [false, false], "nobody knows of a backup");
        assert_eq!(harmless(&[at(7, 90, 1)]), [false, false]);
        assert_eq!(harmless(&[at(12, 150, 1)]), [true, false]);
        // Of several the newest counts.
        assert_eq!(harmless(&[at(35, 250, 2), at(7, 90, 1)]), [true, true]);
        // One of another history, and one from within a gap, lead nowhere; one that is younger than all of it needs nothing.
        assert_eq!(harmless(&[at(35, 250, 1)]), [false, false]);
        assert_eq!(harmless(&[at(10, 110, 1)]), [false, false]);
        assert_eq!(harmless(&[at(50, 400, 2)]), [true, true]);
        assert!(gaps(&runs[..1], &[]).is_empty() && gaps(&[], &[]).is_empty());
    }

    #[test]
    fn a_run_is_gone_on_with_by_who_is_on_its_line() {
        let run = Run { lines: vec![(5, Line([1; 16])), (8, Line([2; 16]))], ..run(5, at(9, 100, 2), true) };
        for (commit, line, leads) in [
            (4, 1, false),
            (5, 1, true),
            (7, 1, true),
            (7, 2, false),
            (8, 2, true),
            (9, 2, true),
            (10, 2, false),
        ] {
            assert_eq!(run.leads_on(&at(commit, 90, line)), leads, "{commit} {line}");
        }
    }
}
