//! Another journal in the place of this one, without closing anything but its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rocksdb::WriteOptions;

use crate::error::Error;
use crate::journal::Journal;
use crate::keys::{self, META};
use crate::{db, place, schema};

impl Journal {
    /// Takes the files of the journal in `from`, which nobody has open, as this one's: what was here must be without tasks, and
    /// goes. The epoch is above both. After an error everything is as before.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::SchemaTooNew`], or why it cannot be moved or opened.
    pub fn replace(&self, from: &Path) -> Result<(), Error> {
        let mut head = self.lock_head();
        if head.failed || self.is_read_only() {
            return Err(Error::Failed);
        }
        if head.ended > 0 {
            return Err(Error::NotEmpty { path: self.path.clone() });
        }
        let mut guard = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // RocksDB holds a lock file, and tidies up by path: the old handle must be gone first.
        *guard = None;
        let aside = aside(&self.path);
        let swapped = swap(&self.path, from, &aside);
        let opened = swapped.and_then(|()| self.open_replaced());
        let (opened, failed) = match opened {
            Ok((db, epoch)) => {
                self.epoch.store(epoch, Ordering::Release);
                self.nonce.fetch_max(epoch << 32, Ordering::AcqRel);
                let _ = fs::remove_dir_all(&aside);
                (Ok(db), None)
            }
            Err(error) => {
                if aside.is_dir() {
                    let _ = fs::remove_dir_all(&self.path);
                    let _ = fs::rename(&aside, &self.path);
                }
                (db::open(&self.path, &self.options), Some(error))
            }
        };
        match opened {
            Ok(db) => *guard = Some(db),
            // Opened again by `recover`.
            Err(_) => head.failed = true,
        }
        drop(guard);
        if let Some(error) = failed {
            return Err(error);
        }
        *head = self.read_head()?;
        drop(head);
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.room.moved();
        self.remove_orphans()
    }

    fn open_replaced(&self) -> Result<(rocksdb::DB, u64), Error> {
        let db = db::open(&self.path, &self.options)?;
        schema::migrate(&db)?;
        let meta = db::handle(&db, META)?;
        let theirs = db.get_cf(meta, keys::META_EPOCH).map_err(Error::Database)?;
        let theirs = theirs.as_deref().and_then(keys::number).unwrap_or(0);
        let epoch = theirs.max(self.epoch()) + 1;
        let mut write = WriteOptions::default();
        write.set_sync(true);
        db.write_opt(place::opening(&db, epoch)?, &write).map_err(Error::Database)?;
        Ok((db, epoch))
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".before-import");
    path.with_file_name(name)
}

/// Moves what is in `path` aside, and `from` to its place.
fn swap(path: &Path, from: &Path, aside: &Path) -> Result<(), Error> {
    let _ = fs::remove_dir_all(aside);
    fs::rename(path, aside).map_err(Error::io("move the empty journal aside"))?;
    fs::rename(from, path).map_err(Error::io("move the imported journal to its place"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("sync the folder above the journal"))
}
