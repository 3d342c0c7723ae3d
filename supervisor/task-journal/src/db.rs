//! Opening RocksDB: one place for everything that is tuned.
//!
//! The log is not recycled and its recovery tolerates nothing but a last record that was being written: a damaged log is an
//! error that someone sees, not a shorter journal.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    ErrorKind, LogLevel, ReadOptions,
};

use crate::error::Error;
use crate::keys;
use crate::options::Options;
use crate::torn;

/// Values from this size on are kept out of the tables, so that compaction does not copy them again and again.
const BLOB_BYTES: u64 = 16 << 10;

/// Options that the bindings know no function for. A start need not write tables of what the log holds.
const BY_NAME: &str = "avoid_flush_during_recovery=true;avoid_unnecessary_blocking_io=true";

pub(crate) fn database_options(options: &Options) -> Result<rocksdb::Options, rocksdb::Error> {
    let mut db = rocksdb::Options::default().get_options_from_string(BY_NAME)?;
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_max_background_jobs(2);
    db.set_max_file_opening_threads(1);
    db.set_max_open_files(64);
    db.set_db_write_buffer_size(options.write_buffer_bytes);
    db.set_max_total_wal_size(options.max_wal_bytes);
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    if options.keep_log_bytes > 0 {
        // Whatever is older moves to a folder `archive`. RocksDB looks at its size every ten minutes only: see `kept`.
        db.set_wal_size_limit_mb((options.keep_log_bytes >> 20).max(1));
    }
    // One thread writes: what lets many write at once only costs.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    db.set_skip_stats_update_on_db_open(true);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db.set_log_level(LogLevel::Warn);
    // Tables reach the disk as they are written, so that the log's next sync does not find it busy with all of one.
    db.set_bytes_per_sync(1 << 20);
    Ok(db)
}

fn family_options(name: &str, options: &Options, cache: &Cache) -> rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    // A start reads all rows in order, everything else is read by key.
    table.set_block_size(if name == keys::ROWS { 32 << 10 } else { 8 << 10 });
    if matches!(name, keys::ROWS | keys::ENDED | keys::BODIES | keys::RESULTS) {
        table.set_bloom_filter(10.0, false);
    }
    let mut family = rocksdb::Options::default();
    family.set_block_based_table_factory(&table);
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(3);
    family.set_arena_block_size(256 << 10);
    family.set_target_file_size_base(8 << 20);
    family.set_max_bytes_for_level_base(32 << 20);
    family.set_level_zero_slowdown_writes_trigger(24);
    family.set_level_zero_stop_writes_trigger(48);
    match name {
        // Read at each start, rewritten often.
        keys::ROWS | keys::META => family.set_compression_type(DBCompressionType::None),
        // Compressed by chunk before they come here.
        keys::BLOBS | keys::SMALL_BLOBS => family.set_compression_type(DBCompressionType::None),
        _ => {
            family.set_compression_type(DBCompressionType::Lz4);
            family.set_bottommost_compression_type(DBCompressionType::Zstd);
        }
    }
    if matches!(name, keys::BODIES | keys::RESULTS | keys::SMALL_BLOBS) {
        family.set_enable_blob_files(true);
        family.set_min_blob_size(BLOB_BYTES);
        family.set_blob_file_size(32 << 20);
        family.set_enable_blob_gc(true);
        if name != keys::SMALL_BLOBS {
            family.set_blob_compression_type(DBCompressionType::Lz4);
        }
    }
    family
}

fn families(options: &Options) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    keys::ALL
        .iter()
        .map(|name| ColumnFamilyDescriptor::new(*name, family_options(name, options, &cache)))
        .collect()
}

pub(crate) fn open(path: &Path, options: &Options) -> Result<DB, Error> {
    let opened =
        database_options(options).and_then(|db| DB::open_cf_descriptors(&db, path, families(options)));
    let opened = match opened {
        Err(error) if error.kind() == ErrorKind::Corruption && torn::only_the_tail(path) => {
            tracing::warn!(path = %path.display(), "the journal's last write was cut off; what was acknowledged is before it");
            open_before_the_tear(path, options)
        }
        other => other,
    };
    opened.map_err(|source| {
        if source.to_string().contains("/LOCK:") {
            Error::Locked { path: path.to_owned() }
        } else {
            Error::Open { path: path.to_owned(), source }
        }
    })
}

/// Replays the log up to the bad record and writes what it held into tables, so that no later start reads that log.
fn open_before_the_tear(path: &Path, options: &Options) -> Result<DB, rocksdb::Error> {
    let mut db = database_options(options)?.get_options_from_string("avoid_flush_during_recovery=false")?;
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    DB::open_cf_descriptors(&db, path, families(options))
}

pub(crate) fn open_read_only(path: &Path, options: &Options) -> Result<DB, Error> {
    database_options(options)
        .and_then(|mut db| {
            db.create_if_missing(false);
            DB::open_cf_descriptors_read_only(&db, path, families(options), false)
        })
        .map_err(|source| Error::Open { path: path.to_owned(), source })
}

/// Families of the database in `path` that this version does not know.
pub(crate) fn unknown_families(path: &Path) -> Vec<String> {
    let names = DB::list_cf(&rocksdb::Options::default(), path).unwrap_or_default();
    names.into_iter().filter(|name| name != "default" && !keys::ALL.contains(&name.as_str())).collect()
}

/// A value of `meta`, read without the other families.
pub(crate) fn peek_meta(path: &Path, key: &[u8]) -> Option<u64> {
    let options = rocksdb::Options::default();
    let db = DB::open_cf_for_read_only(&options, path, [keys::META], false).ok()?;
    db.get_cf(db.cf_handle(keys::META)?, key).ok()?.and_then(|bytes| keys::number(&bytes))
}

pub(crate) fn handle<'a>(db: &'a DB, family: &'static str) -> Result<&'a ColumnFamily, Error> {
    db.cf_handle(family).ok_or_else(|| Error::Corrupt { family, detail: "the family is missing".to_owned() })
}

/// For reading much, once: the cache is kept for others.
pub(crate) fn sequential() -> ReadOptions {
    let mut read = ReadOptions::default();
    read.fill_cache(false);
    read.set_readahead_size(1 << 20);
    read
}
