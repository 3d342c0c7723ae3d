//! The journal: opening it and reading rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use rocksdb::{DB, DBRawIterator, ReadOptions};

use crate::error::Error;
use crate::format::CheckpointInfo;
use crate::keys::{self, BODIES, META, RESULTS, ROWS};
use crate::options::Options;
use crate::space::{Room, Space};
use crate::stats::Counters;
use crate::{db, place, schema};

/// What a commit needs to know of those before it.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) last_event: u64,
    pub(crate) ended: u64,
    /// Number and time of the last write.
    pub(crate) commit: u64,
    pub(crate) time_ms: u64,
    /// A write failed: the handle writes no more until it is opened again.
    pub(crate) failed: bool,
}

/// The journal. Shared behind an `Arc`; all methods take `&self`.
pub struct Journal {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) db: RwLock<Option<DB>>,
    pub(crate) head: Mutex<Head>,
    pub(crate) room: Room,
    pub(crate) counters: Counters,
    pub(crate) nonce: AtomicU64,
    /// Large checkpoints that no row names any more and whose files are still there.
    pub(crate) doomed: Mutex<Vec<CheckpointInfo>>,
    /// Held while files of large checkpoints are removed, and while they must not be.
    pub(crate) sweeping: Mutex<()>,
    /// Held by retention: two at once would count the same tasks.
    pub(crate) pruning: Mutex<()>,
    pub(crate) epoch: AtomicU64,
    read_only: bool,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in `path`, making it when there is none. The epoch has grown by one and is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::SchemaTooNew`], [`Error::DiskFull`], or what RocksDB says.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        refuse_newer(path)?;
        make_folder(path)?;
        let room = Room::new(path, &options);
        let mut journal = Self::assemble(path, options, room, db::open, false)?;
        journal.with_db(schema::migrate)?;
        let epoch = journal.bump_epoch()?;
        journal.epoch = AtomicU64::new(epoch);
        journal.nonce = AtomicU64::new(epoch << 32);
        *journal.lock_head() = journal.read_head()?;
        journal.remove_orphans()?;
        journal.room.trim_log();
        Ok(journal)
    }

    /// Opens it for reading only, also while another process has it open: what was on disk at this moment.
    ///
    /// # Errors
    /// [`Error::Open`] when there is none, [`Error::SchemaTooNew`].
    pub fn open_read_only(path: &Path, options: Options) -> Result<Self, Error> {
        refuse_newer(path)?;
        let room = Room::reader(path);
        let mut journal = Self::assemble(path, options, room, db::open_read_only, true)?;
        let found = journal.number(keys::META_SCHEMA)?.unwrap_or(0);
        if found > schema::SCHEMA_VERSION {
            return Err(Error::SchemaTooNew { found, supported: schema::SCHEMA_VERSION });
        }
        journal.epoch = AtomicU64::new(journal.number(keys::META_EPOCH)?.unwrap_or(0));
        *journal.lock_head() = journal.read_head()?;
        Ok(journal)
    }

    fn assemble(
        path: &Path,
        options: Options,
        room: Room,
        open: impl FnOnce(&Path, &Options) -> Result<DB, Error>,
        read_only: bool,
    ) -> Result<Self, Error> {
        let db = open(path, &options)?;
        Ok(Self {
            path: path.to_owned(),
            options,
            db: RwLock::new(Some(db)),
            head: Mutex::new(Head::default()),
            room,
            counters: Counters::default(),
            nonce: AtomicU64::new(0),
            doomed: Mutex::new(Vec::new()),
            sweeping: Mutex::new(()),
            pruning: Mutex::new(()),
            epoch: AtomicU64::new(0),
            read_only,
        })
    }

    fn bump_epoch(&self) -> Result<u64, Error> {
        let epoch = self.number(keys::META_EPOCH)?.unwrap_or(0) + 1;
        self.with_db(|db| {
            let mut write = rocksdb::WriteOptions::default();
            write.set_sync(true);
            db.write_opt(place::opening(db, epoch)?, &write).map_err(|e| self.failure(e))
        })?;
        Ok(epoch)
    }

    pub(crate) fn read_head(&self) -> Result<Head, Error> {
        let number = |key| Ok::<_, Error>(self.number(key)?.unwrap_or(0));
        let stamp = self.with_db(place::stamp)?.unwrap_or_default();
        Ok(Head {
            last_event: number(keys::META_EVENTS)?,
            ended: number(keys::META_ENDED)?,
            commit: stamp.commit,
            time_ms: stamp.time_ms,
            failed: false,
        })
    }

    /// Counts the opens of this journal. Tokens of attempts carry it.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What is free on its disk. Cheap: the file system is asked now and then.
    pub fn space(&self) -> Space {
        self.room.space()
    }

    /// Whether new work may be taken in. The reserve is taken again when there is room for it.
    ///
    /// # Errors
    /// [`Error::DiskFull`], with what is free and what must be.
    pub fn admits(&self) -> Result<(), Error> {
        self.room.check(true)
    }

    /// Calls `visit` with key and value of every row of what lives, in order of the keys.
    ///
    /// # Errors
    /// When the rows cannot be read, or what `visit` says.
    pub fn rows<E: From<Error>>(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.scan(ROWS, &[], |key, value| visit(key, value).map(|()| true))
    }

    /// One row of what lives.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get(ROWS, key)
    }

    /// What was stored as a task's body.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn body(&self, task: u64) -> Result<Option<Vec<u8>>, Error> {
        self.get(BODIES, &task.to_be_bytes())
    }

    /// A task's result.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn result(&self, task: u64) -> Result<Option<Vec<u8>>, Error> {
        self.get(RESULTS, &task.to_be_bytes())
    }

    pub(crate) fn lock_head(&self) -> MutexGuard<'_, Head> {
        // It is changed after a write only, in one step: a panicked holder left it whole.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_db<T>(&self, body: impl FnOnce(&DB) -> Result<T, Error>) -> Result<T, Error> {
        body(self.handle().as_ref().ok_or(Error::Closed)?)
    }

    pub(crate) fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with_db(|db| db.get_cf(db::handle(db, family)?, key).map_err(Error::Database))
    }

    pub(crate) fn number(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let Some(bytes) = self.get(META, key)? else { return Ok(None) };
        let number = keys::number(&bytes);
        number.map(Some).ok_or_else(|| Error::Corrupt { family: META, detail: "not a number".to_owned() })
    }

    /// Visits records from `from` on, in order, until `visit` says false.
    pub(crate) fn scan<E: From<Error>>(
        &self,
        family: &'static str,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.iterate(family, db::sequential(), |iter| {
            iter.seek(from);
            while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
                if !visit(key, value)? {
                    break;
                }
                iter.next();
            }
            Ok(())
        })
    }

    pub(crate) fn iterate<T, E: From<Error>>(
        &self,
        family: &'static str,
        read: ReadOptions,
        body: impl FnOnce(&mut DBRawIterator<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let guard = self.handle();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        let mut iter = db.raw_iterator_cf_opt(db::handle(db, family)?, read);
        let result = body(&mut iter)?;
        iter.status().map_err(Error::Database)?;
        Ok(result)
    }
}

/// A journal that is a newer version's is refused before anything of it is touched.
pub(crate) fn refuse_newer(path: &Path) -> Result<(), Error> {
    if db::unknown_families(path).is_empty() {
        return Ok(());
    }
    let supported = schema::SCHEMA_VERSION;
    let found = db::peek_meta(path, keys::META_SCHEMA).unwrap_or(0).max(supported + 1);
    Err(Error::SchemaTooNew { found, supported })
}

/// Makes the folder, for its owner only, in a way that survives a power cut.
fn make_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;

    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(Error::io("make the journal's folder"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io("sync the folder above the journal"))
}
