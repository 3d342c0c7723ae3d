//! What the journal committed after a mark, as a piece of an archive: the batches of RocksDB's log, byte for byte.
//!
//! The log is read a few megabytes at a time, and nothing is held while somebody takes them slowly: neither writing nor a recovery waits. A
//! log that does not go on from the mark any more is a gap: the piece begins anew from here, and says so.

use std::io::Write;

use aion_backup::{Commit, End, Header, Line, Mark, PieceWriter, Position};
use rocksdb::{DB, ErrorKind, WriteBatch, WriteBatchIteratorCf};

use crate::error::Error;
use crate::journal::Journal;
use crate::keys::{self, META, META_CLOCK, META_STAMP};
use crate::place::{self, Stamp};
use crate::{db, schema};

/// Bytes of batches that are read at once.
const STEP: usize = 4 << 20;

/// What a piece has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// How it ends.
    pub end: End,
    /// Commits in it.
    pub commits: u64,
    /// Nothing that was asked about leads here.
    pub begins: bool,
}

/// A commit, from the log.
struct Logged {
    stamp: Stamp,
    batch: WriteBatch,
    hint: u64,
}

impl Journal {
    /// Writes a piece of all commits up to now that come after one of these marks: the furthest that this journal knows. When it knows none, or
    /// the log no longer has what comes after it, the piece begins here and has no commit.
    ///
    /// # Errors
    /// [`Error::Piece`] when it cannot be written, or the journal cannot be read.
    pub fn archive(&self, marks: &[Mark], out: impl Write) -> Result<Archived, Error> {
        let (here, now, until) = self.stands()?;
        let (lines, families) = self.with_db(|db| Ok((place::lines(db)?, families(db)?)))?;
        let known = |mark: &&Mark| {
            mark.commit <= here.commit && place::line_at(&lines, mark.commit) == Some(mark.line)
        };
        let from = marks.iter().filter(known).max_by_key(|mark| mark.commit);
        let (mut at, mut step) = (now, Vec::new());
        let mut begins = true;
        if let Some(mark) = from {
            step = self.log_from(mark, here.commit)?;
            begins = step.is_empty() && mark.commit != here.commit;
            if !begins {
                at = *mark;
            }
        }
        let schema = u32::try_from(schema::SCHEMA_VERSION).unwrap_or(u32::MAX);
        let header = Header { schema, families, from: at.commit, line: at.line, begins };
        let mut writer = PieceWriter::begin(out, &header).map_err(Error::Piece)?;
        let mut commits = 0;
        while !step.is_empty() {
            for logged in step.drain(..) {
                let Stamp { commit, event, time_ms, clock_ms } = logged.stamp;
                let line = begun(&lines, commit);
                let head = Commit { commit, event, time_ms, clock_ms, line };
                writer.commit(&head, logged.batch.data()).map_err(Error::Piece)?;
                at = Mark { commit, line: line.unwrap_or(at.line), hint: logged.hint };
                commits += 1;
            }
            step = self.log_after(&at, here.commit)?;
        }
        // When the log ends early, the next piece finds the gap.
        let to = writer.at();
        let until_ms = if to.commit == here.commit { until } else { to.time_ms };
        writer.finish(until_ms, at.hint).map_err(Error::Piece)?;
        let end = End { to, until_ms, hint: at.hint };
        Ok(Archived { end, commits, begins })
    }

    /// Where it stands.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn position(&self) -> Result<Position, Error> {
        self.stands().map(|(position, ..)| position)
    }

    /// As [`Journal::log_after`]. A log that is damaged, as a power cut leaves one, is given up: there is a gap once, and not for as long as it
    /// is kept.
    fn log_from(&self, after: &Mark, last: u64) -> Result<Vec<Logged>, Error> {
        match self.log_after(after, last) {
            Err(Error::Database(error)) if error.kind() == ErrorKind::Corruption => {
                tracing::warn!(%error, "the journal's log cannot be read for the archive");
                self.room.give_up_log("it is damaged");
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// The next commits from the log, up to `last`; none: it has none that goes on from `after`.
    fn log_after(&self, after: &Mark, last: u64) -> Result<Vec<Logged>, Error> {
        if after.commit >= last {
            return Ok(Vec::new());
        }
        self.with_db(|db| {
            let meta = family_id(db, META)?;
            let (mut found, mut bytes, mut commit) = (Vec::new(), 0, after.commit);
            // A place that it does not have is a gap; what cannot be read just now is none.
            let log = match db.get_updates_since(after.hint) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
                log => log.map_err(Error::Database)?,
            };
            for entry in log {
                let (sequence, batch) = match entry {
                    Err(error) if found.is_empty() => return Err(Error::Database(error)),
                    Err(_) => break,
                    Ok(entry) => entry,
                };
                if batch.is_empty() {
                    continue;
                }
                let Some(stamp) =
                    stamp(meta, &batch).filter(|stamp| Some(stamp.commit) == commit.checked_add(1))
                else {
                    break;
                };
                commit = stamp.commit;
                bytes += batch.size_in_bytes();
                let hint = sequence + batch.len() as u64 - 1;
                found.push(Logged { stamp, batch, hint });
                if commit == last || bytes >= STEP {
                    break;
                }
            }
            Ok(found)
        })
    }
}

/// The line that a commit begins.
fn begun(lines: &[(u64, Line)], commit: u64) -> Option<Line> {
    lines.iter().find(|(from, _)| *from == commit).map(|(_, line)| *line)
}

/// Which families there are under which numbers, as RocksDB writes it: a batch with one empty value in each.
pub(crate) fn families(db: &DB) -> Result<Vec<u8>, Error> {
    let mut probe = WriteBatch::default();
    for name in keys::ALL {
        probe.put_cf(db::handle(db, name)?, name, b"");
    }
    Ok(probe.data().to_vec())
}

/// The number of a family, which batches name it by.
pub(crate) fn family_id(db: &DB, name: &'static str) -> Result<u32, Error> {
    let mut probe = WriteBatch::default();
    probe.put_cf(db::handle(db, name)?, name, b"");
    let mut found = Found { family: None, stamp: None, clock: None, first: None };
    probe.iterate_cf(&mut found);
    found.first.ok_or_else(|| Error::Corrupt { family: name, detail: "it has no number".to_owned() })
}

/// What a batch says of itself. It is before any range, at which RocksDB's walk through a batch ends.
pub(crate) fn stamp(meta: u32, batch: &WriteBatch) -> Option<Stamp> {
    let mut found = Found { family: Some(meta), stamp: None, clock: None, first: None };
    batch.iterate_cf(&mut found);
    found.stamp.map(|stamp| Stamp { clock_ms: found.clock, ..stamp })
}

struct Found {
    family: Option<u32>,
    stamp: Option<Stamp>,
    clock: Option<u64>,
    first: Option<u32>,
}

impl WriteBatchIteratorCf for Found {
    fn put_cf(&mut self, family: u32, key: &[u8], value: &[u8]) {
        self.first.get_or_insert(family);
        if self.family == Some(family) && key == META_STAMP {
            self.stamp = Stamp::decode(value);
        }
        if self.family == Some(family) && key == META_CLOCK {
            self.clock = keys::number(value);
        }
    }

    fn delete_cf(&mut self, _: u32, _: &[u8]) {}

    fn merge_cf(&mut self, _: u32, _: &[u8], _: &[u8]) {}
}
