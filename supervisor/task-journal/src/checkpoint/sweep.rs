//! Removing the files of large checkpoints: whole files leave RocksDB's list, nothing is rewritten.

use std::sync::PoisonError;

use crate::db;
use crate::error::Error;
use crate::format::{self, CheckpointInfo};
use crate::journal::Journal;
use crate::keys::{self, BLOBS, CHECKPOINTS};

impl Journal {
    /// Remembers files that no row names any more.
    pub(crate) fn doom(&self, infos: Vec<CheckpointInfo>) {
        if !infos.is_empty() {
            self.doomed.lock().unwrap_or_else(PoisonError::into_inner).extend(infos);
        }
    }

    /// Removes the files of checkpoints that were dropped. Called by who writes the next large one, and by retention: never
    /// by the writer of rows.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        // While an export reads, the files stay: it reads as of one moment, and files that are removed leave all moments.
        let Ok(_alone) = self.sweeping.try_lock() else { return Ok(()) };
        let doomed = std::mem::take(&mut *self.doomed.lock().unwrap_or_else(PoisonError::into_inner));
        for info in doomed {
            self.remove_file(info.task, info.number, info.nonce)?;
        }
        Ok(())
    }

    fn remove_file(&self, task: u64, number: u32, nonce: u64) -> Result<(), Error> {
        let [from, to] = [0, u32::MAX].map(|index| keys::chunk(task, number, nonce, index));
        self.room.forget();
        self.with_db(|db| {
            db.delete_file_in_range_cf(db::handle(db, BLOBS)?, from, to).map_err(Error::Database)
        })
    }

    /// Removes large checkpoints that no row names: what was written before a crash and never committed.
    pub(crate) fn remove_orphans(&self) -> Result<(), Error> {
        let folder = self.incoming();
        if folder.exists() {
            std::fs::remove_dir_all(&folder)
                .map_err(Error::io("empty the folder of incoming checkpoints"))?;
        }
        let files = self.with_db(|db| db.live_files().map_err(Error::Database))?;
        for file in files.iter().filter(|file| file.column_family_name == BLOBS) {
            let Some(key) = &file.start_key else { continue };
            let (Some((task, number)), Some(nonce)) = (keys::checkpoint_parts(key), keys::chunk_nonce(key))
            else {
                continue;
            };
            let value = self.get(CHECKPOINTS, &keys::checkpoint(task, number))?;
            let named = value.map(|value| format::checkpoint_info(task, number, &value)).transpose()?;
            if named.is_none_or(|info| info.nonce != nonce || !info.large) {
                tracing::info!(task, number, "removing a checkpoint that was never committed");
                self.remove_file(task, number, nonce)?;
            }
        }
        Ok(())
    }
}
