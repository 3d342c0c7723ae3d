//! Numbers for metrics and for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::journal::Journal;
use crate::{db, keys};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
    sync_ns: AtomicU64,
    slowest_ns: AtomicU64,
}

impl Counters {
    pub(crate) fn committed(&self, records: u64, bytes: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn synced(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sync_ns.fetch_add(ns, Ordering::Relaxed);
        self.slowest_ns.fetch_max(ns, Ordering::Relaxed);
    }
}

/// What the journal has done since it was opened, and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Synced writes.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the log in them.
    pub bytes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Time spent in synced writes.
    pub write_time: Duration,
    /// The slowest of them.
    pub slowest_write: Duration,
    /// The newest event.
    pub last_event: u64,
    /// Ended tasks that are kept.
    pub ended: u64,
    /// By family: how many records (an estimate) and the bytes of its files.
    pub families: Vec<(&'static str, u64, u64)>,
    /// Bytes in memory that no table has yet.
    pub memory_bytes: u64,
    /// Bytes of all files of the journal.
    pub disk_bytes: u64,
}

impl Journal {
    /// What it has done and holds.
    ///
    /// # Errors
    /// When RocksDB does not say.
    pub fn stats(&self) -> Result<Stats, Error> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut stats = Stats {
            commits: load(&counters.commits),
            records: load(&counters.records),
            bytes: load(&counters.bytes),
            failures: load(&counters.failures),
            write_time: Duration::from_nanos(load(&counters.sync_ns)),
            slowest_write: Duration::from_nanos(load(&counters.slowest_ns)),
            ..Stats::default()
        };
        {
            let head = self.lock_head();
            (stats.last_event, stats.ended) = (head.last_event, head.ended);
        }
        self.with_db(|db| {
            for name in keys::ALL {
                let family = db::handle(db, name)?;
                let number = |property: &str| {
                    db.property_int_value_cf(family, property)
                        .map(|value| value.unwrap_or(0))
                        .map_err(Error::Database)
                };
                let bytes = number("rocksdb.total-sst-files-size")? + number("rocksdb.total-blob-file-size")?;
                stats.families.push((name, number("rocksdb.estimate-num-keys")?, bytes));
                stats.memory_bytes += number("rocksdb.cur-size-all-mem-tables")?;
            }
            Ok(())
        })?;
        let files = std::fs::read_dir(&self.path).map_err(Error::io("list the journal's files"))?;
        stats.disk_bytes =
            files.flatten().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
        Ok(stats)
    }

    /// Writes everything in memory into tables and merges them: the smallest on disk and the fastest start.
    ///
    /// # Errors
    /// When RocksDB cannot write.
    pub fn compact(&self) -> Result<(), Error> {
        self.sweep()?;
        self.with_db(|db| {
            for name in keys::ALL.into_iter().filter(|name| *name != keys::BLOBS) {
                let family = db::handle(db, name)?;
                db.flush_cf(family).map_err(|e| self.failure(e))?;
                db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
            }
            Ok(())
        })
    }
}
