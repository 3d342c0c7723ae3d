//! A piece of an archive, applied to a journal that nobody has open: the same batches that it wrote where it ran on.
//!
//! Whoever asks for it throws the journal away when it fails: what is half applied is no journal.

use std::io::Read;
use std::path::Path;

use aion_backup::{Commit, PieceReader};
use rocksdb::{DB, WriteBatch, WriteOptions};

use crate::archive::{families, family_id, stamp};
use crate::error::Error;
use crate::format;
use crate::journal::{Journal, refuse_newer};
use crate::keys::{self, BLOBS, CHECKPOINTS, META};
use crate::options::Options;
use crate::place::{self, Stamp};
use crate::{db, schema};

/// What was applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commits.
    pub commits: u64,
    /// Large checkpoints that they name and that no piece has: their tasks go on from an older one.
    pub checkpoints_left_out: u64,
}

impl Journal {
    /// Applies a piece to the journal in `path`, which must stand where the piece begins.
    ///
    /// # Errors
    /// [`Error::Elsewhere`], [`Error::Piece`], [`Error::SchemaTooNew`], or why it cannot be opened or written.
    pub fn replay(path: &Path, options: &Options, input: impl Read) -> Result<Replayed, Error> {
        refuse_newer(path)?;
        if !path.join("CURRENT").is_file() {
            return Err(Error::Elsewhere { detail: format!("there is no journal in {}", path.display()) });
        }
        let mut piece = PieceReader::open("the piece", input).map_err(Error::Piece)?;
        let db = db::open(path, options)?;
        goes_on(&db, &piece)?;
        let meta = family_id(&db, META)?;
        let mut write = WriteOptions::default();
        // All of it is written to tables before anybody opens the journal.
        write.disable_wal(true);
        let mut replayed = Replayed::default();
        let mut bytes = Vec::new();
        while let Some(commit) = piece.read(&mut bytes).map_err(Error::Piece)? {
            let batch = WriteBatch::from_data(&bytes);
            let said = stamp(meta, &batch).filter(|stamp| is_of(stamp, &commit));
            if said.is_none() {
                return Err(elsewhere(format!("commit {} is another one than it says", commit.commit)));
            }
            db.write_opt(batch, &write).map_err(failure)?;
            replayed.commits += 1;
        }
        if place::position(&db)? != piece.at() && replayed.commits > 0 {
            return Err(elsewhere(format!("after commit {} it stands elsewhere", piece.at().commit)));
        }
        replayed.checkpoints_left_out = leave_out_checkpoints(&db, &write)?;
        for name in keys::ALL {
            db.flush_cf(db::handle(&db, name)?).map_err(failure)?;
        }
        Ok(replayed)
    }
}

/// Whether the piece begins where the journal stands, in the same form.
fn goes_on<R: Read>(db: &DB, piece: &PieceReader<R>) -> Result<(), Error> {
    let (header, here) = (piece.header(), place::position(db)?);
    let schema = db.get_cf(db::handle(db, META)?, keys::META_SCHEMA).map_err(Error::Database)?;
    let schema = schema.as_deref().and_then(keys::number).unwrap_or(0);
    if schema > schema::SCHEMA_VERSION {
        return Err(Error::SchemaTooNew { found: schema, supported: schema::SCHEMA_VERSION });
    }
    if (u64::from(header.schema), header.families.as_slice()) != (schema, families(db)?.as_slice()) {
        return Err(elsewhere("it is of another version of the journal".to_owned()));
    }
    if (header.from, header.line) != (here.commit, here.line) {
        return Err(elsewhere(format!(
            "it goes on from commit {} of history {}, and this is commit {} of {}",
            header.from, header.line, here.commit, here.line
        )));
    }
    Ok(())
}

/// Whether the batch is the one that the piece names. Pieces of older versions have no clock beside the time.
fn is_of(stamp: &Stamp, commit: &Commit) -> bool {
    (stamp.commit, stamp.event, stamp.time_ms) == (commit.commit, commit.event, commit.time_ms)
        && (commit.clock_ms.is_none() || commit.clock_ms == stamp.clock_ms)
}

/// The data of large checkpoints is in no batch: those whose data is not here are not known either.
fn leave_out_checkpoints(db: &DB, write: &WriteOptions) -> Result<u64, Error> {
    let (family, blobs) = (db::handle(db, CHECKPOINTS)?, db::handle(db, BLOBS)?);
    let mut batch = WriteBatch::default();
    let mut iter = db.raw_iterator_cf_opt(family, db::sequential());
    iter.seek_to_first();
    while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
        let (task, number) = crate::checkpoint::checkpoint_key(key)?;
        let info = format::checkpoint_info(task, number, value)?;
        let first = keys::chunk(task, number, info.nonce, 0);
        if info.large && db.get_pinned_cf(blobs, first).map_err(Error::Database)?.is_none() {
            batch.delete_cf(family, key);
        }
        iter.next();
    }
    iter.status().map_err(Error::Database)?;
    let left_out = batch.len() as u64;
    db.write_opt(batch, write).map_err(failure)?;
    Ok(left_out)
}

fn elsewhere(detail: String) -> Error {
    Error::Elsewhere { detail }
}

fn failure(source: rocksdb::Error) -> Error {
    if source.to_string().contains("No space left on device") {
        Error::DiskFull { free: 0, needed: 0 }
    } else {
        Error::Database(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_without_clocks_is_of_batches_with_them_and_no_other_clock_is() {
        let stamp = Stamp { commit: 3, event: 8, time_ms: 5000, clock_ms: Some(3000) };
        let commit = |clock_ms| Commit { commit: 3, event: 8, time_ms: 5000, clock_ms, line: None };
        assert!(is_of(&stamp, &commit(None)) && is_of(&stamp, &commit(Some(3000))));
        assert!(!is_of(&stamp, &commit(Some(3001))));
        assert!(!is_of(&Stamp { clock_ms: None, ..stamp }, &commit(Some(3000))));
        assert!(!is_of(&stamp, &Commit { event: 9, ..commit(None) }));
    }
}
