//! The way from a backup to a point in time, through pieces: found and checked before anything is written, then copied as one piece.
//!
//! A piece is taken only where it goes on from what is reached, in number and history. What is not needed is not read.

use std::io::{Read, Write};
use std::path::Path;
use std::result::Result as StdResult;
use std::time::{Duration, UNIX_EPOCH};

use crate::Error;
use crate::piece::{Commit, Header, Name, PieceReader, PieceWriter, Pieces, Position};

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
        if point.is_before(&from) {
            let what = format!(
                "{point} is before the backup, which has everything up to event {} and {}",
                from.event,
                time(from.time_ms)
            );
            return Err(Error::Point { what }.into());
        }
        let mut route = Self { pieces, head: None, steps: Vec::new(), reached: from, commits: 0, bytes: 0 };
        // Others may have been committed within the same millisecond.
        let mut until = from.time_ms.saturating_sub(1);
        let mut batch = Vec::new();
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
                return Ok(route);
            }
            until = reader.end().map_or(until, |end| end.until_ms);
        }
        Ok(route)
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

/// RFC 3339 in UTC.
fn time(ms: u64) -> String {
    // The formatter's range ends with the year 9999.
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_999)))
        .to_string()
}
