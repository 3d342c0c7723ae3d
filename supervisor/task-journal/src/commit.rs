//! The one way to write, and the way back after it failed.

use std::sync::PoisonError;
use std::time::Instant;

use rocksdb::{ColumnFamily, DB, ReadOptions, WriteBatch, WriteOptions};

use crate::batch::{Batch, Drop};
use crate::db;
use crate::error::Error;
use crate::format::{self, CheckpointInfo};
use crate::journal::{Head, Journal};
use crate::keys::{self, CHECKPOINTS, META, SMALL_BLOBS};

impl Journal {
    /// Writes a batch, all of it or nothing, and returns when it is on disk.
    ///
    /// After a failed write every other one fails too, until [`Journal::recover`]: what follows may build on what failed.
    /// A refusal that leaves the disk alone (no room, events out of order) is not a failed write.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::OutOfOrder`], [`Error::Failed`], or what RocksDB says.
    pub fn commit(&self, batch: Batch) -> Result<(), Error> {
        self.commit_together(&mut [batch])
    }

    /// Writes some batches as one.
    ///
    /// # Errors
    /// As [`Journal::commit`]; none of them is on disk then.
    pub fn commit_together(&self, batches: &mut [Batch]) -> Result<(), Error> {
        let mut head = self.lock_head();
        if head.failed || self.is_read_only() {
            return Err(Error::Failed);
        }
        let last_event = follow(head.last_event, batches)?;
        let admits = batches.iter().any(|batch| batch.admits);
        self.room.check(admits)?;
        let ended = head.ended + batches.iter().map(|batch| batch.ended).sum::<u64>();
        let stamp = head.next(last_event);
        let (doomed, bytes, records) = self.with_db(|db| {
            let (mut write, doomed) = assemble(db, batches)?;
            let meta = db::handle(db, META)?;
            if last_event != head.last_event {
                write.put_cf(meta, keys::META_EVENTS, last_event.to_be_bytes());
            }
            if ended != head.ended {
                write.put_cf(meta, keys::META_ENDED, ended.to_be_bytes());
            }
            if write.is_empty() {
                return Ok((doomed, 0, 0));
            }
            stamp.put(db, &mut write)?;
            let (bytes, records) = (write.size_in_bytes() as u64, write.len() as u64);
            self.write(db, write, &mut head)?;
            Ok((doomed, bytes, records))
        })?;
        head.last_event = last_event;
        head.ended = ended;
        if records > 0 {
            head.stamped(stamp);
        }
        drop(head);
        self.room.wrote(bytes);
        self.counters.committed(records, bytes);
        self.doom(doomed);
        Ok(())
    }

    /// The synced write itself.
    pub(crate) fn write(&self, db: &DB, write: WriteBatch, head: &mut Head) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        let begun = Instant::now();
        let result = db.write_opt(write, &options);
        self.counters.synced(begun.elapsed());
        result.map_err(|source| {
            head.failed = true;
            self.failure(source)
        })
    }

    pub(crate) fn failure(&self, source: rocksdb::Error) -> Error {
        self.counters.failed();
        if source.to_string().contains("No space left on device") {
            self.room.forget();
            Error::DiskFull { free: self.room.space().free, needed: self.options.admit_bytes }
        } else {
            Error::Database(source)
        }
    }

    /// After a failed write: opens the database again, which brings back exactly what is on disk. Without one it does nothing.
    ///
    /// # Errors
    /// [`Error::DiskFull`] while there is no room, or why it cannot be opened. What can be read stays readable.
    pub fn recover(&self) -> Result<(), Error> {
        let mut head = self.lock_head();
        if !head.failed {
            return Ok(());
        }
        self.room.forget();
        self.room.check(false)?;
        tracing::warn!(path = %self.path.display(), "opening the journal again after a failed write");
        let mut guard = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // RocksDB holds a lock file: the old handle must be gone first.
        *guard = None;
        let opened = db::open(&self.path, &self.options);
        let failed = match opened {
            Ok(db) => {
                *guard = Some(db);
                None
            }
            Err(error) => {
                *guard = db::open_read_only(&self.path, &self.options).ok();
                Some(error)
            }
        };
        drop(guard);
        if let Some(error) = failed {
            return Err(error);
        }
        *head = self.read_head()?;
        Ok(())
    }

    /// Lets go of the files, once whoever reads is done: from here on everything answers [`Error::Closed`], and the folder may be
    /// opened again or moved.
    pub fn close(&self) {
        let mut head = self.lock_head();
        head.failed = true;
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The newest event on disk; 0 before the first.
    pub fn last_event(&self) -> u64 {
        self.lock_head().last_event
    }
}

/// Checks that the events of the batches continue the sequence; the newest.
fn follow(last: u64, batches: &mut [Batch]) -> Result<u64, Error> {
    let mut newest = last;
    for batch in batches {
        if let Some(error) = batch.refused.take() {
            return Err(error);
        }
        if let Some((first, end)) = batch.events {
            if newest.checked_add(1) != Some(first) {
                return Err(Error::OutOfOrder { last: newest, found: first });
            }
            newest = end;
        }
    }
    Ok(newest)
}

fn assemble(db: &DB, batches: &[Batch]) -> Result<(WriteBatch, Vec<CheckpointInfo>), Error> {
    let mut handles: Vec<&ColumnFamily> = Vec::with_capacity(keys::ALL.len());
    for family in keys::ALL {
        handles.push(db::handle(db, family)?);
    }
    let bytes = batches.iter().map(|batch| batch.bytes() + 16 * batch.len()).sum::<usize>();
    let mut write = WriteBatch::with_capacity_bytes(bytes + 64);
    let mut doomed = Vec::new();
    for batch in batches {
        // What a batch brings is not on disk yet, so its drops see only what was there before it.
        for drop in &batch.drops {
            drop_checkpoints(db, *drop, &mut write, &mut doomed)?;
        }
        for (family, key, value) in batch.records() {
            let handle = handles[family as usize];
            match value {
                Some(value) => write.put_cf(handle, key, value),
                None => write.delete_cf(handle, key),
            }
        }
    }
    Ok((write, doomed))
}

/// Removes what is known of a task's older checkpoints, and the data of the small ones.
pub(crate) fn drop_checkpoints(
    db: &DB,
    drop: Drop,
    write: &mut WriteBatch,
    doomed: &mut Vec<CheckpointInfo>,
) -> Result<(), Error> {
    let family = db::handle(db, CHECKPOINTS)?;
    let mut read = ReadOptions::default();
    read.set_iterate_upper_bound(keys::checkpoint(drop.task, drop.below));
    let mut iter = db.raw_iterator_cf_opt(family, read);
    iter.seek(keys::checkpoint(drop.task, 0));
    let mut found = Vec::new();
    while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
        if let Some((task, number)) = keys::checkpoint_parts(key) {
            found.push(format::checkpoint_info(task, number, value)?);
        }
        iter.next();
    }
    iter.status().map_err(Error::Database)?;
    found.truncate(found.len().saturating_sub(drop.keep));
    let small = db::handle(db, SMALL_BLOBS)?;
    for info in found {
        write.delete_cf(family, keys::checkpoint(info.task, info.number));
        if info.large {
            doomed.push(info);
        } else {
            for index in 0..info.chunks {
                write.delete_cf(small, keys::chunk(info.task, info.number, info.nonce, index));
            }
        }
    }
    Ok(())
}
