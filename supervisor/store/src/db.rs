//! The database: opening, point reads, scans, and the one way to write.
//!
//! A full disk is met before RocksDB meets it: a commit is refused while less than a reserve is free. Should the
//! log fail all the same, RocksDB stops writing for good; the database is then opened again at the next commit
//! that finds room, which replays exactly what was acknowledged.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator, LogLevel,
    WriteBatch, WriteOptions,
};

use crate::batch::{Batch, Durability, Op};
use crate::error::Error;
use crate::names::Names;
use crate::options::Options;
use crate::{SCHEMA_VERSION, codec, keys};

/// The store. Shared behind an `Arc`; all methods take `&self`.
pub struct Store {
    path: PathBuf,
    options: Options,
    db: RwLock<Option<DB>>,
    /// A write failed in a way that RocksDB does not recover from by itself.
    broken: AtomicBool,
    /// Held while a name is checked and written, and while the index grows or is trimmed.
    serial: Mutex<()>,
    /// Held for reading while rows of the kernel API are written, for writing by their sweep.
    rows: RwLock<()>,
    pub(crate) names: Names,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database in `path`, making it when there is none.
    ///
    /// # Errors
    /// [`Error::SchemaTooNew`] for a newer one's database, [`Error::Open`] when RocksDB refuses.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let db = open_db(path, &options)?;
        let store = Self {
            path: path.to_owned(),
            options,
            db: RwLock::new(Some(db)),
            broken: AtomicBool::new(false),
            serial: Mutex::new(()),
            rows: RwLock::new(()),
            names: Names::default(),
        };
        match store.number(keys::META_SCHEMA)? {
            None => {
                let mut batch = Batch::bookkeeping();
                let version = u64::from(SCHEMA_VERSION).to_be_bytes();
                batch.put(keys::META, keys::META_SCHEMA, codec::raw(&version));
                store.commit(batch, Durability::Host)?;
            }
            Some(found) if found > u64::from(SCHEMA_VERSION) => {
                return Err(Error::SchemaTooNew {
                    found: u32::try_from(found).unwrap_or(u32::MAX),
                    supported: SCHEMA_VERSION,
                });
            }
            Some(_) => {}
        }
        Ok(store)
    }

    /// How the store was opened.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Writes a batch, all of it or nothing.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::NameTaken`], [`Error::OutOfOrder`], or what RocksDB says.
    pub fn commit(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        self.check_room(batch.bookkeeping)?;
        if self.broken.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let _rows = batch.rows.then(|| self.rows.read().unwrap_or_else(PoisonError::into_inner));
        let _serial = (!batch.claims.is_empty() || batch.events.is_some()).then(|| self.serialise());
        for claim in &batch.claims {
            if let Some(owner) = self.agent_by_name(&claim.tenant, &claim.name)?
                && owner != claim.id
                && batch.inherits.as_ref() != Some(&owner)
            {
                return Err(Error::NameTaken { name: claim.name.to_string(), owner: owner.to_string() });
            }
        }
        if let Some((first, _)) = batch.events {
            let last = self.cursor()?;
            if first <= last {
                return Err(Error::OutOfOrder { last, found: first });
            }
        }
        self.write(batch, durability)
    }

    pub(crate) fn serialise(&self) -> MutexGuard<'_, ()> {
        // The mutex guards no data of its own, so a panicked holder left nothing half-done.
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rows_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        let mut write = WriteBatch::default();
        let renames = batch.ops.iter().any(Op::is_of_a_name);
        for op in batch.ops {
            match op {
                Op::Put { family, key, value } => write.put_cf(handle(db, family)?, key, value),
                Op::Delete { family, key } => write.delete_cf(handle(db, family)?, key),
                Op::DeleteRange { family, from, to } => write.delete_range_cf(handle(db, family)?, from, to),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Host);
        let result = db.write_opt(write, &options);
        drop(guard);
        if renames {
            self.names.changed();
        }
        result.map_err(|source| {
            // After a failed log write RocksDB refuses all others until it is opened again.
            self.broken.store(true, Ordering::Release);
            if source.to_string().contains("No space left on device") {
                Error::DiskFull { free: self.free_bytes().unwrap_or(0), reserve: self.options.reserve_bytes }
            } else {
                Error::Database(source)
            }
        })
    }

    /// Refuses when less than the reserve is free.
    ///
    /// # Errors
    /// [`Error::DiskFull`].
    pub fn check_room(&self, bookkeeping: bool) -> Result<(), Error> {
        let reserve = if bookkeeping { self.options.hard_reserve_bytes } else { self.options.reserve_bytes };
        match self.free_bytes() {
            Some(free) if free < reserve => Err(Error::DiskFull { free, reserve }),
            _ => Ok(()),
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.path).ok()?;
        Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    fn reopen(&self) -> Result<(), Error> {
        let mut guard = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if !self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), "opening the database again after a failed write");
        // RocksDB holds a lock file: the old handle must be gone first.
        *guard = None;
        self.names.changed();
        *guard = Some(open_db(&self.path, &self.options)?);
        self.broken.store(false, Ordering::Release);
        Ok(())
    }

    pub(crate) fn db(&self) -> RwLockReadGuard<'_, Option<DB>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        db.get_cf(handle(db, family)?, key).map_err(Error::Database)
    }

    pub(crate) fn number(&self, key: &[u8]) -> Result<Option<u64>, Error> {
        let Some(bytes) = self.get(keys::META, key)? else { return Ok(None) };
        let payload = codec::payload(keys::META, &bytes)?;
        let number = <[u8; 8]>::try_from(payload)
            .map_err(|e| Error::Corrupt { family: keys::META, detail: e.to_string() })?;
        Ok(Some(u64::from_be_bytes(number)))
    }

    /// The newest audit record that is indexed; 0 before the first.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn cursor(&self) -> Result<u64, Error> {
        Ok(self.number(keys::META_CURSOR)?.unwrap_or(0))
    }

    /// The newest audit record that the detections have looked at; none before the first.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn detected(&self) -> Result<Option<u64>, Error> {
        self.number(keys::META_DETECTED)
    }

    /// Visits rows from `from` on, in order, until `visit` says false.
    pub(crate) fn scan(
        &self,
        family: &'static str,
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        self.with_iterator(family, |iter| {
            iter.seek(from);
            while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
                if !visit(key, value) {
                    break;
                }
                iter.next();
            }
            Ok(())
        })
    }

    pub(crate) fn with_iterator<T>(
        &self,
        family: &'static str,
        body: impl FnOnce(&mut DBRawIterator<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let guard = self.db();
        let db = guard.as_ref().ok_or(Error::Closed)?;
        let mut iter = db.raw_iterator_cf(handle(db, family)?);
        let result = body(&mut iter)?;
        iter.status().map_err(Error::Database)?;
        Ok(result)
    }
}

pub(crate) fn handle<'a>(db: &'a DB, family: &'static str) -> Result<&'a rocksdb::ColumnFamily, Error> {
    db.cf_handle(family)
        .ok_or_else(|| Error::Corrupt { family, detail: "the column family is missing".to_owned() })
}

fn open_db(path: &Path, options: &Options) -> Result<DB, Error> {
    let mut db = rocksdb::Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_max_background_jobs(2);
    db.set_max_file_opening_threads(1);
    db.set_max_open_files(64);
    db.set_db_write_buffer_size(options.write_buffer_bytes);
    db.set_max_total_wal_size(32 << 20);
    db.set_skip_stats_update_on_db_open(true);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_bytes_per_sync(1 << 20);

    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let families = keys::ALL.map(|name| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        table.set_block_size(8 << 10);
        table.set_cache_index_and_filter_blocks(true);
        if name != keys::EVENTS {
            table.set_bloom_filter(10.0, false);
        }
        let mut family = rocksdb::Options::default();
        family.set_block_based_table_factory(&table);
        family.set_write_buffer_size(options.write_buffer_bytes);
        family.set_max_write_buffer_number(2);
        family.set_arena_block_size(256 << 10);
        family.set_target_file_size_base(8 << 20);
        family.set_max_bytes_for_level_base(32 << 20);
        family.set_compression_type(DBCompressionType::Lz4);
        family.set_bottommost_compression_type(DBCompressionType::Zstd);
        ColumnFamilyDescriptor::new(name, family)
    });
    DB::open_cf_descriptors(&db, path, families)
        .map_err(|source| Error::Open { path: path.to_owned(), source })
}
