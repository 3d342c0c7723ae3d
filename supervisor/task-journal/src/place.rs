//! Where the journal stands: the number and time of its last commit, and the line that it is on.
//!
//! Each write carries them in itself, so that what is on disk, in RocksDB's log and in an archive says of each batch which one it is. A start
//! begins a line, a random number: a journal and a copy of it that both go on have the same numbers and other lines.

use std::time::{SystemTime, UNIX_EPOCH};

use aion_backup::{Line, Mark, Position};
use rocksdb::{DB, WriteBatch};

use crate::db;
use crate::error::Error;
use crate::journal::{Head, Journal};
use crate::keys::{self, META, META_CLOCK, META_LINES, META_STAMP};

/// So many lines are remembered: an archive that stands on an older one is begun anew.
const MAX_LINES: usize = 128;
const LINE: usize = 24;
/// A clock that is less behind than this, in ms, is told nobody.
const BEHIND: u64 = 1000;

/// What a write says of itself: its number, the newest event after it, when it was made in ms since 1970. Where the clock went back, the time
/// stays what it was, and what the clock said stands beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) commit: u64,
    pub(crate) event: u64,
    pub(crate) time_ms: u64,
    pub(crate) clock_ms: Option<u64>,
}

impl Stamp {
    pub(crate) fn encode(self) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&self.commit.to_be_bytes());
        out[8..16].copy_from_slice(&self.event.to_be_bytes());
        out[16..].copy_from_slice(&self.time_ms.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (commit, rest) = bytes.split_first_chunk::<8>()?;
        let (event, time_ms) = rest.split_first_chunk::<8>()?;
        let [commit, event] = [commit, event].map(|number| u64::from_be_bytes(*number));
        Some(Self { commit, event, time_ms: keys::number(time_ms)?, clock_ms: None })
    }

    /// Writes it, which comes first in a write: whoever looks for it in the log comes no further than to a range.
    pub(crate) fn put(self, db: &DB, write: &mut WriteBatch) -> Result<(), Error> {
        let meta = db::handle(db, META)?;
        write.put_cf(meta, META_STAMP, self.encode());
        if let Some(clock_ms) = self.clock_ms {
            write.put_cf(meta, META_CLOCK, clock_ms.to_be_bytes());
        }
        Ok(())
    }
}

impl Head {
    /// That of the next write. Times never go back.
    pub(crate) fn next(&self, event: u64) -> Stamp {
        self.next_at(event, now_ms())
    }

    fn next_at(&self, event: u64, clock_ms: u64) -> Stamp {
        let time_ms = self.time_ms.max(clock_ms);
        let clock_ms = (time_ms - clock_ms > BEHIND).then_some(clock_ms);
        Stamp { commit: self.commit + 1, event, time_ms, clock_ms }
    }

    pub(crate) const fn stamped(&mut self, stamp: Stamp) {
        self.commit = stamp.commit;
        self.time_ms = stamp.time_ms;
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The write with which a start begins: a new epoch, and a new line.
pub(crate) fn opening(db: &DB, epoch: u64) -> Result<WriteBatch, Error> {
    let meta = db::handle(db, META)?;
    let old = stamp(db)?.unwrap_or_default();
    let event = db.get_cf(meta, keys::META_EVENTS).map_err(Error::Database)?;
    let event = event.as_deref().and_then(keys::number).unwrap_or(0);
    // A version that numbers nothing was here meanwhile: a number is left out, so that nothing goes on over what it wrote.
    let number = |key| db.get_cf(meta, key).map(|value| value.as_deref().and_then(keys::number));
    let is_ours = number(keys::META_EPOCH).map_err(Error::Database)?
        == number(keys::META_LINE_EPOCH).map_err(Error::Database)?;
    let commit = if is_ours { old.commit } else { old.commit + 1 };
    let head = Head { commit, time_ms: old.time_ms, ..Head::default() };
    let next = head.next(event);
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Error::Io {
        action: "get a random number",
        source: std::io::Error::other(error.to_string()),
    })?;
    let mut lines = lines(db)?;
    lines.push((next.commit, Line(random)));
    let begin = lines.len().saturating_sub(MAX_LINES);
    let mut value = Vec::with_capacity(LINE * MAX_LINES);
    for (commit, line) in &lines[begin..] {
        value.extend_from_slice(&commit.to_be_bytes());
        value.extend_from_slice(&line.0);
    }
    let mut write = WriteBatch::default();
    next.put(db, &mut write)?;
    write.put_cf(meta, keys::META_EPOCH, epoch.to_be_bytes());
    write.put_cf(meta, keys::META_LINE_EPOCH, epoch.to_be_bytes());
    write.put_cf(meta, META_LINES, value);
    Ok(write)
}

pub(crate) fn stamp(db: &DB) -> Result<Option<Stamp>, Error> {
    let Some(bytes) = db.get_cf(db::handle(db, META)?, META_STAMP).map_err(Error::Database)? else {
        return Ok(None);
    };
    Stamp::decode(&bytes).map(Some).ok_or_else(|| corrupt("the last write's number cannot be read"))
}

/// From which commit on the journal is on which line, the oldest first.
pub(crate) fn lines(db: &DB) -> Result<Vec<(u64, Line)>, Error> {
    let bytes = db.get_cf(db::handle(db, META)?, META_LINES).map_err(Error::Database)?.unwrap_or_default();
    let mut found = Vec::with_capacity(bytes.len() / LINE + 1);
    for entry in bytes.chunks(LINE) {
        let parts =
            entry.split_first_chunk::<8>().and_then(|(commit, line)| Some((commit, line.try_into().ok()?)));
        let (commit, line) = parts.ok_or_else(|| corrupt("the journal's lines cannot be read"))?;
        found.push((u64::from_be_bytes(*commit), Line(line)));
    }
    Ok(found)
}

/// The line of a commit; none: it is older than what is remembered.
pub(crate) fn line_at(lines: &[(u64, Line)], commit: u64) -> Option<Line> {
    lines.iter().rev().find(|(from, _)| *from <= commit).map(|(_, line)| *line)
}

/// Where a database stands that nobody writes to meanwhile.
pub(crate) fn position(db: &DB) -> Result<Position, Error> {
    let Stamp { commit, event, time_ms, .. } = stamp(db)?.unwrap_or_default();
    let line = line_at(&lines(db)?, commit).ok_or_else(|| corrupt("the journal is on no line"))?;
    Ok(Position { commit, event, time_ms, line })
}

impl Journal {
    /// Where it stands, where RocksDB looks for the next write, and a moment in ms since 1970 up to which no write is missing: later ones have
    /// a later time.
    pub(crate) fn stands(&self) -> Result<(Position, Mark, u64), Error> {
        // Whoever writes holds it.
        let mut head = self.lock_head();
        let (position, hint) = self.with_db(|db| Ok((position(db)?, db.latest_sequence_number())))?;
        let until = now_ms().max(head.time_ms);
        head.time_ms = until + 1;
        Ok((position, Mark { commit: position.commit, line: position.line, hint }, until))
    }
}

fn corrupt(detail: &str) -> Error {
    Error::Corrupt { family: META, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_come_back_and_lines_are_found_by_commit() {
        let stamp = Stamp { commit: 3, event: 8, time_ms: 1000, clock_ms: None };
        assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
        assert_eq!(Stamp::decode(&stamp.encode()[1..]), None);
        let lines = [(5, Line([1; 16])), (9, Line([2; 16]))];
        for (commit, line) in [(4, None), (5, Some(1)), (8, Some(1)), (9, Some(2)), (u64::MAX, Some(2))] {
            assert_eq!(line_at(&lines, commit), line.map(|n| Line([n; 16])), "{commit}");
        }
    }

    #[test]
    fn times_never_go_back() {
        let head = Head { commit: 4, time_ms: 5000, ..Head::default() };
        let stamp = |time_ms, clock_ms| Stamp { commit: 5, event: 1, time_ms, clock_ms };
        assert_eq!(head.next_at(1, 5001), stamp(5001, None));
        assert_eq!(
            head.next_at(1, 4000),
            stamp(5000, None),
            "whoever asks where it stands takes a moment, too"
        );
        assert_eq!(head.next_at(1, 3999), stamp(5000, Some(3999)));
        assert_eq!(Head { time_ms: u64::MAX - 5, ..head }.next(1).time_ms, u64::MAX - 5);
    }

    #[test]
    fn what_a_clock_said_that_went_back_stands_beside_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::open(dir.path(), &crate::Options::default()).unwrap();
        let ahead = now_ms() + 3_600_000;
        let mut write = WriteBatch::default();
        Stamp { commit: 1, event: 0, time_ms: ahead, clock_ms: None }.put(&db, &mut write).unwrap();
        db.write(write).unwrap();
        let next = opening(&db, 1).unwrap();
        let meta = crate::archive::family_id(&db, META).unwrap();
        let found = crate::archive::stamp(meta, &next).unwrap();
        assert_eq!((found.commit, found.time_ms), (2, ahead));
        assert!(found.clock_ms.is_some_and(|clock_ms| clock_ms < ahead - 3_000_000), "{found:?}");
        // A write with a clock that is right has none, whatever an earlier one left.
        db.write(next).unwrap();
        let mut write = WriteBatch::default();
        Stamp { commit: 3, event: 0, time_ms: ahead, clock_ms: None }.put(&db, &mut write).unwrap();
        assert_eq!(crate::archive::stamp(meta, &write).unwrap().clock_ms, None);
    }

    #[test]
    fn each_start_begins_a_line_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::open(dir.path(), &crate::Options::default()).unwrap();
        for epoch in 1..=MAX_LINES as u64 + 3 {
            db.write(opening(&db, epoch).unwrap()).unwrap();
        }
        let lines = lines(&db).unwrap();
        assert_eq!((lines.len(), lines[0].0), (MAX_LINES, 4));
        let here = position(&db).unwrap();
        assert_eq!((here.commit, here.line), (MAX_LINES as u64 + 3, lines[MAX_LINES - 1].1));
        assert_ne!(lines[0].1, lines[1].1);
        // A version without lines counts its start alone.
        db.put_cf(db::handle(&db, META).unwrap(), keys::META_EPOCH, 1000_u64.to_be_bytes()).unwrap();
        db.write(opening(&db, 1001).unwrap()).unwrap();
        assert_eq!(position(&db).unwrap().commit, here.commit + 2);
        db.write(opening(&db, 1002).unwrap()).unwrap();
        assert_eq!(position(&db).unwrap().commit, here.commit + 3);
    }
}
