//! All pieces of an archive, read to their ends: what can be reached with them.

use std::io::Read;
use std::path::Path;
use std::result::Result as StdResult;

use crate::Error;
use crate::piece::clock::Clock;
use crate::piece::{ClockStep, Line, PieceReader, Pieces, Position};

/// Pieces that go on from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// A backup that stands at this commit, or after it, can be gone on from.
    pub from: u64,
    /// When the first commit was made, in ms since 1970; none: there is no commit yet.
    pub since_ms: Option<u64>,
    /// Where it leads.
    pub to: Position,
    /// No commit up to this moment is missing.
    pub until_ms: u64,
    /// How many pieces.
    pub pieces: u64,
    /// Commits in them.
    pub commits: u64,
    /// Its first piece says that nothing in the archive leads to it; else that is because older ones are gone.
    pub begins: bool,
    /// From which commit on it is on which line.
    pub lines: Vec<(u64, Line)>,
    /// Where the clock went back.
    pub steps: Vec<ClockStep>,
}

impl Run {
    /// Whether a backup that stands there can be gone on from with it.
    #[must_use]
    pub fn leads_on(&self, from: &Position) -> bool {
        let line = self.lines.iter().rev().find(|(commit, _)| *commit <= from.commit);
        from.commit <= self.to.commit && line.is_some_and(|(_, line)| *line == from.line)
    }
}

/// Reads every byte of every piece. What comes back in one run has no gap; more than one says that there are gaps, or histories that went
/// apart. The newest comes last.
///
/// # Errors
/// [`Error::Piece`], or what `open` says.
pub fn survey<R: Read, E: From<Error>>(
    pieces: &Pieces,
    mut open: impl FnMut(&Path) -> StdResult<R, E>,
) -> StdResult<Vec<Run>, E> {
    let mut runs = Vec::<(Run, Clock)>::new();
    let mut batch = Vec::new();
    for name in pieces.names() {
        let mut reader = PieceReader::open(&name.to_string(), open(&pieces.path(name))?)?;
        let (mut since_ms, mut commits) = (None, 0);
        let (from, line, begins) = (reader.header().from, reader.header().line, reader.header().begins);
        let before = runs.iter_mut().find(|(run, _)| (run.to.commit, run.to.line) == (from, line));
        // A clock that was behind at the end of the piece before is behind here.
        let mut clock = before.as_ref().map(|(_, clock)| clock.clone()).unwrap_or_default();
        let (mut lines, mut steps) = (vec![(from, line)], Vec::new());
        while let Some(commit) = reader.read(&mut batch)? {
            since_ms = since_ms.or(Some(commit.time_ms));
            commits += 1;
            lines.extend(commit.line.map(|line| (commit.commit, line)));
            steps.extend(clock.step(&commit));
        }
        reader.compare(name)?;
        let to = reader.at();
        let until_ms = reader.end().map_or(0, |end| end.until_ms);
        match before {
            Some((run, at)) => {
                // A piece without commits knows no event.
                if commits > 0 {
                    run.to = to;
                }
                run.since_ms = run.since_ms.or(since_ms);
                run.until_ms = run.until_ms.max(until_ms);
                run.pieces += 1;
                run.commits += commits;
                run.lines.extend(lines.into_iter().skip(1));
                run.steps.extend(steps);
                *at = clock;
            }
            None => {
                let run = Run { from, since_ms, to, until_ms, pieces: 1, commits, begins, lines, steps };
                runs.push((run, clock));
            }
        }
    }
    let mut runs: Vec<Run> = runs.into_iter().map(|(run, _)| run).collect();
    runs.sort_by_key(|run| run.until_ms);
    Ok(runs)
}
