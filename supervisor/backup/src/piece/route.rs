//! The way from a backup to a point in time, through pieces: found and checked before anything is written, then copied as one piece.
//!
//! A piece is taken only where it goes on from what is reached, in number and history. What is not needed is not read.

use std::io::{Read, Write};
use std::path::Path;
use std::result::Result as StdResult;
use std::time::{Duration, UNIX_EPOCH};

use crate::Error;
use crate::piece::{ClockStep, Commit, Header, Name, PieceReader, PieceWriter, Pieces, Position};

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// As far as there are pieces.
    End,
    /// To this event; a commit that goes beyond it is left out whole.
    Event(u64),
    /// To what was committed by then, in ms since 1970.
    Time(u64),
}

impl Point {
    const fn is_before(self, at: &Position) -> bool {
        match self {
            Self::End => false,
            Self::Event(event) => event < at.event,
            Self::Time(ms) => ms < at.time_ms,
        }
    }

    const fn is_passed_by(self, commit: &Commit) -> bool {
        match self {
            Self::End => false,
            Self::Event(event) => commit.event > event,
            Self::Time(ms) => commit.time_ms > ms,
        }
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::End => f.write_str("the archive's end"),
            Self::Event(event) => write!(f, "event {event}"),
            Self::Time(ms) => f.write_str(&time(*ms)),
        }
    }
}

/// A moment that came twice, as the clock went back behind it. What is reached is of the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twice {
    /// The first commit that the clock says is of before the moment again.
    pub step: ClockStep,
    /// The newest event that it says so of: where the second time leads.
    pub event: u64,
}

/// A clock that goes back by more than a day, in ms, behind the point is not looked for.
const LOOK_AHEAD: u64 = 24 * 3600 * 1000;

#[derive(Debug, Clone, Copy)]
struct Step {
    name: Name,
    after: u64,
    upto: u64,
}

/// A way that is there, whole.
#[derive(Debug, Clone)]
pub struct Route {
    pieces: Pieces,
    head: Option<Header>,
    steps: Vec<Step>,
    /// Where it leads.
    pub reached: Position,
    /// Commits on it.
    pub commits: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The moment that was asked for came twice.
    pub twice: Option<Twice>,
}

impl Route {
    /// Finds it, and reads all of it. `open` gives a piece, decrypted.
    ///
    /// # Errors
    /// [`Error::Point`], [`Error::Gap`], [`Error::Piece`], or what `open` says.
    pub fn find<R: Read, E: From<Error>>(
        pieces: Pieces,
        from: Position,
        point: Point,
        mut open: impl FnMut(&Path) -> StdResult<R, E>,
    ) -> StdResult<Self, E> {
        let mut batch = Vec::new();
        let (head, steps, twice) = (None, Vec::new(), None);
        let mut route = Self { pieces, head, steps, reached: from, commits: 0, bytes: 0, twice };
        if point.is_before(&from) {
            let again = route.second_time(point, &mut open, &mut batch).map(|twice| format!("; {twice}"));
            let what = format!(
                "{point} is before the backup, which has everything up to event {} and {}{}",
                from.event,
                time(from.time_ms),
                again.unwrap_or_default()
            );
            return Err(Error::Point { what }.into());
        }
        // Others may have been committed within the same millisecond.
        let mut until = from.time_ms.saturating_sub(1);
        while !route.is_at(point, until) {
            let Some((name, mut reader)) = route.next(&mut open, &mut batch)? else {
                route.is_enough(point, until)?;
                return Ok(route);
            };
            route.fits(&name, reader.header(), &from)?;
            let (after, mut passed) = (route.reached.commit, false);
            while let Some(commit) = reader.read(&mut batch)? {
                if point.is_passed_by(&commit) {
                    passed = true;
                    break;
                }
                route.reached = reader.at();
                route.commits += 1;
                route.bytes += batch.len() as u64;
            }
            reader.compare(&name)?;
            route.steps.push(Step { name, after, upto: route.reached.commit });
            if passed {
                break;
            }
            until = reader.end().map_or(until, |end| end.until_ms);
        }
        route.twice = route.second_time(point, &mut open, &mut batch);
        Ok(route)
    }

    /// Whether the clock went back behind the moment later on, so that it came again. What cannot be read there is no obstacle, and tells
    /// nothing.
    fn second_time<R: Read, E: From<Error>>(
        &self,
        point: Point,
        open: &mut impl FnMut(&Path) -> StdResult<R, E>,
        batch: &mut Vec<u8>,
    ) -> Option<Twice> {
        let Point::Time(ms) = point else { return None };
        let (mut ahead, mut found) = (self.clone(), None::<Twice>);
        while let Ok(Some((_, mut reader))) = ahead.next(open, batch) {
            let begun = ahead.reached.commit;
            while let Ok(Some(commit)) = reader.read(batch) {
                ahead.reached = reader.at();
                if commit.time_ms.saturating_sub(ms) > LOOK_AHEAD {
                    return found;
                }
                let Some(after_ms) = commit.clock_ms.filter(|clock_ms| *clock_ms <= ms) else { continue };
                let Commit { commit, event, time_ms: before_ms, .. } = commit;
                let step = ClockStep { commit, event, before_ms, after_ms };
                found.get_or_insert(Twice { step, event }).event = event;
            }
            if reader.end().is_none() || ahead.reached.commit == begun {
                break;
            }
        }
        found
    }

    /// Whether nothing that follows can belong to it.
    const fn is_at(&self, point: Point, until: u64) -> bool {
        match point {
            Point::End => false,
            Point::Event(event) => event == self.reached.event,
            Point::Time(ms) => ms <= until,
        }
    }

    /// The piece that goes on from what is reached, read up to there.
    fn next<R: Read, E: From<Error>>(
        &self,
        open: &mut impl FnMut(&Path) -> StdResult<R, E>,
        batch: &mut Vec<u8>,
    ) -> StdResult<Option<(Name, PieceReader<R>)>, E> {
        let at = self.reached;
        let covers = |name: &&Name| name.from <= at.commit && name.to.commit > at.commit;
        for name in self.pieces.names().iter().rev().filter(covers) {
            let mut reader = PieceReader::open(&name.to_string(), open(&self.pieces.path(name))?)?;
            while reader.at().commit < at.commit && reader.read(batch)?.is_some() {}
            if (reader.at().commit, reader.at().line) == (at.commit, at.line) {
                return Ok(Some((*name, reader)));
            }
        }
        Ok(None)
    }

    /// All pieces must be of the same form of the database.
    fn fits(&mut self, name: &Name, header: &Header, from: &Position) -> StdResult<(), Error> {
        let head = self.head.get_or_insert_with(|| Header {
            from: from.commit,
            line: from.line,
            begins: false,
            ..header.clone()
        });
        if (head.schema, &head.families) == (header.schema, &header.families) {
            return Ok(());
        }
        let what = format!("{name} is of another version of the journal than the one before it");
        Err(Error::Gap { what })
    }

    /// Where nothing goes on, and the point is not reached: whether that is the end that was asked for.
    fn is_enough(&self, point: Point, until: u64) -> StdResult<(), Error> {
        let (at, names) = (self.reached, self.pieces.names());
        let later = names.iter().filter(|name| name.to.commit > at.commit).min_by_key(|name| name.from);
        let is_there = self.commits > 0
            || names.iter().any(|name| (name.to.commit, name.to.line) == (at.commit, at.line));
        if point == Point::End && later.is_none() && is_there {
            return Ok(());
        }
        let ends = format!("commit {}, event {} of {}", at.commit, at.event, time(at.time_ms));
        Err(match (later, point) {
            _ if names.is_empty() => Error::Gap { what: "there is no piece of an archive".to_owned() },
            (Some(name), _) => {
                let what =
                    format!("nothing goes on from {ends}; {name} begins later, or is of another history");
                Error::Gap { what }
            }
            (None, Point::End) => Error::Gap {
                what: format!(
                    "no piece is of this backup's history, which stands at {ends}, or the archive ends before it"
                ),
            },
            (None, Point::Time(ms)) => {
                let what = format!("{} is after its end: it has everything until {}", time(ms), time(until));
                Error::Point { what }
            }
            (None, _) => Error::Point { what: format!("{point} is after its end: {ends}") },
        })
    }

    /// Writes it as one piece.
    ///
    /// # Errors
    /// It is not what it was when it was found, or cannot be written.
    pub fn copy<R: Read, W: Write, E: From<Error>>(
        &self,
        mut open: impl FnMut(&Path) -> StdResult<R, E>,
        out: W,
    ) -> StdResult<W, E> {
        let changed = || Error::Gap { what: "it was changed while it was read".to_owned() };
        let head = self.head.as_ref().ok_or_else(changed)?;
        let mut writer = PieceWriter::begin(out, head)?;
        let mut batch = Vec::new();
        for step in &self.steps {
            let path = self.pieces.path(&step.name);
            let mut reader = PieceReader::open(&step.name.to_string(), open(&path)?)?;
            while reader.at().commit < step.upto {
                let commit = reader.read(&mut batch)?.ok_or_else(changed)?;
                if commit.commit > step.after {
                    writer.commit(&commit, &batch)?;
                }
            }
        }
        if writer.at() != self.reached {
            return Err(changed().into());
        }
        Ok(writer.finish(self.reached.time_ms, 0)?)
    }
}

impl std::fmt::Display for Twice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ClockStep { commit, event, before_ms, after_ms } = self.step;
        write!(
            f,
            "the clock went back at commit {commit}, event {event}, from {} to {}, and the second time ends with event {}",
            time(before_ms),
            time(after_ms),
            self.event
        )
    }
}

/// RFC 3339 in UTC.
fn time(ms: u64) -> String {
    // The formatter's range ends with the year 9999.
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999)))
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::piece::{Line, survey};

    const LINE: Line = Line([1; 16]);

    fn file(path: &Path) -> crate::Result<File> {
        File::open(path).map_err(Error::io("open", path))
    }

    /// Commits from this one on with two events each, of these times and what the clock said.
    fn put(dir: &Path, from: u64, commits: &[(u64, Option<u64>)]) {
        let header = Header { schema: 1, families: Vec::new(), from, line: LINE, begins: from == 0 };
        let mut writer = PieceWriter::begin(Vec::new(), &header).unwrap();
        for (&(time_ms, clock_ms), commit) in commits.iter().zip(from + 1..) {
            let commit = Commit { commit, event: 2 * commit, time_ms, clock_ms, line: None };
            writer.commit(&commit, b"batch").unwrap();
        }
        let to = writer.at();
        let mark = crate::piece::Mark { commit: to.commit, line: LINE, hint: 0 };
        let bytes = writer.finish(to.time_ms, 0).unwrap();
        fs::write(dir.join(Name { from, to: mark }.to_string()), bytes).unwrap();
    }

    #[test]
    fn a_moment_that_came_twice_is_told_and_its_first_time_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        // The clock is ahead, goes back at commit 4 from 3000 to 1500, and has come up with the times at commit 8.
        put(dir, 0, &[(1000, None), (2000, None), (3000, None), (3000, Some(1500))]);
        put(dir, 4, &[(3001, Some(1900)), (3001, Some(2500)), (3001, Some(2900)), (3100, None)]);
        let base = Position { line: LINE, ..Position::default() };
        let to = |from: Position, point| Route::find(Pieces::list(dir).unwrap(), from, point, file);
        let found = to(base, Point::Time(2000)).unwrap();
        assert_eq!(found.reached.commit, 2, "the last one before the first of later");
        let twice = found.twice.unwrap();
        assert_eq!((twice.step.commit, twice.step.event, twice.event), (4, 8, 10));
        assert_eq!((twice.step.before_ms, twice.step.after_ms), (3000, 1500));
        let told = twice.to_string();
        assert!(
            told.contains("event 8, from 1970-01-01T00:00:03.000Z to 1970-01-01T00:00:01.500Z"),
            "{told}"
        );
        assert!(told.ends_with("ends with event 10"), "{told}");
        assert_eq!(to(base, Point::Event(10)).unwrap().reached.commit, 5);
        // Before the step came to it, and behind it, a moment is one.
        for (ms, commit) in [(1000, 1), (1499, 1), (3050, 7)] {
            let found = to(base, Point::Time(ms)).unwrap();
            assert_eq!((found.reached.commit, found.twice), (commit, None), "{ms}");
        }
        // A backup whose time is ahead.
        let base = Position { commit: 4, event: 8, time_ms: 3000, line: LINE };
        let refused = to(base, Point::Time(2600)).unwrap_err().to_string();
        assert!(
            refused.contains("is before the backup") && refused.ends_with("ends with event 12"),
            "{refused}"
        );
        // All steps are found once, also where a piece ends while the clock is behind; and what is damaged there is no obstacle.
        let runs = survey(&Pieces::list(dir).unwrap(), file).unwrap();
        let steps: Vec<_> =
            runs.iter().flat_map(|run| &run.steps).map(|step| (step.commit, step.after_ms)).collect();
        assert_eq!((runs.len(), steps), (1, vec![(4, 1500)]));
        let second = dir.join(Pieces::list(dir).unwrap().names()[1].to_string());
        let mut bytes = fs::read(&second).unwrap();
        bytes.truncate(90);
        fs::write(&second, bytes).unwrap();
        let base = Position { line: LINE, ..Position::default() };
        let found = to(base, Point::Time(2000)).unwrap();
        assert_eq!((found.reached.commit, found.twice.map(|twice| twice.event)), (2, Some(8)));
    }
}
