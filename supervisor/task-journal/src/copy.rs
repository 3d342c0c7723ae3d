//! A copy of the journal as of one moment, made of links to its files.

use std::path::Path;
use std::sync::PoisonError;

use aion_backup::Position;
use rocksdb::FlushOptions;
use rocksdb::checkpoint::Checkpoint;

use crate::error::Error;
use crate::journal::Journal;
use crate::{db, keys, place};

impl Journal {
    /// Writes what is in memory into tables, so that a copy right after it has little left to write.
    ///
    /// # Errors
    /// [`Error::DiskFull`] before anything is tried: a write that fails for want of room would end all writing.
    pub fn flush(&self) -> Result<(), Error> {
        self.admits()?;
        self.with_db(|db| {
            let families =
                keys::ALL.iter().map(|name| db::handle(db, name)).collect::<Result<Vec<_>, _>>()?;
            db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(Error::Database)
        })
    }

    /// Makes a journal in `to`, which must not be there, of everything that is committed. The files are shared: they cost no room until this
    /// one has rewritten them. `to` should be on the same file system. Gives where the copy stands.
    ///
    /// # Errors
    /// [`Error::DiskFull`], or what RocksDB says.
    pub fn copy_to(&self, to: &Path) -> Result<Position, Error> {
        self.admits()?;
        let _files_stay = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        // Retention writes beside the writer: it waits, so that the copy stands where it says.
        let _still = self.lock_head();
        self.with_db(|db| {
            Checkpoint::new(db)
                .and_then(|checkpoint| checkpoint.create_checkpoint(to))
                .map_err(Error::Database)?;
            place::position(db)
        })
    }
}
