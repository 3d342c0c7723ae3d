//! A copy of the database as of one moment, made of links to its files.

use std::path::Path;

use rocksdb::FlushOptions;
use rocksdb::checkpoint::Checkpoint;

use crate::db::{Store, handle};
use crate::error::Error;
use crate::keys;

impl Store {
    /// Writes what is in memory into tables, so that a checkpoint right after it has little left to write.
    ///
    /// # Errors
    /// [`Error::DiskFull`] before anything is tried: a write that fails for want of room would end all writing.
    pub fn flush(&self) -> Result<(), Error> {
        self.check_room(false)?;
        let guard = self.db();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        let families = keys::ALL.iter().map(|name| handle(db, name)).collect::<Result<Vec<_>, _>>()?;
        db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(Error::Database)
    }

    /// Makes a database in `to`, which must not be there, of everything that is committed. The files are shared: they cost no room until this
    /// one has rewritten them. `to` should be on the same file system.
    ///
    /// # Errors
    /// [`Error::DiskFull`], or what RocksDB says.
    pub fn checkpoint(&self, to: &Path) -> Result<(), Error> {
        self.check_room(false)?;
        let guard = self.db();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        Checkpoint::new(db).and_then(|checkpoint| checkpoint.create_checkpoint(to)).map_err(Error::Database)
    }
}
