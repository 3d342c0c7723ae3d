//! Writing a checkpoint: hashed by the caller's thread while another one compresses and writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use sha2::{Digest as _, Sha256};

use super::encode::Encoder;
use super::{CHUNK, Checkpoint};
use crate::db;
use crate::error::Error;
use crate::format::CheckpointInfo;
use crate::journal::Journal;
use crate::keys::{self, BLOBS};

/// Up to here a checkpoint is kept in memory until its length is known.
const BUFFER: usize = 1 << 20;

/// Up to here, compressed, a checkpoint travels in the batch: cheaper than the syncs of a file of its own.
const SMALL: u64 = 512 << 10;

/// Chunks between the two threads.
const QUEUE: usize = 4;

struct Thread {
    chunks: SyncSender<Vec<u8>>,
    thread: JoinHandle<Result<(u32, u64), Error>>,
    file: PathBuf,
}

/// Takes a checkpoint in parts. Dropped before [`CheckpointWriter::finish`], it leaves nothing.
pub struct CheckpointWriter {
    journal: Arc<Journal>,
    task: u64,
    number: u32,
    nonce: u64,
    hash: Sha256,
    length: u64,
    buffer: Vec<u8>,
    thread: Option<Thread>,
}

impl std::fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointWriter")
            .field("task", &self.task)
            .field("number", &self.number)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Begins checkpoint `number` of a task. Each number of a task is used once.
    ///
    /// # Errors
    /// [`Error::DiskFull`].
    pub fn checkpoint_writer(self: &Arc<Self>, task: u64, number: u32) -> Result<CheckpointWriter, Error> {
        self.room.check(false)?;
        Ok(CheckpointWriter {
            journal: Arc::clone(self),
            task,
            number,
            nonce: self.nonce.fetch_add(1, Ordering::Relaxed),
            hash: Sha256::new(),
            length: 0,
            buffer: Vec::new(),
            thread: None,
        })
    }
}

impl CheckpointWriter {
    /// The next part.
    ///
    /// # Errors
    /// [`Error::CheckpointTooLarge`], [`Error::DiskFull`], or why it cannot be written. Nothing of it is kept then.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.length += bytes.len() as u64;
        let limit = self.journal.options.max_checkpoint_bytes;
        if self.length > limit {
            return Err(Error::CheckpointTooLarge { limit });
        }
        self.hash.update(bytes);
        if self.thread.is_none() && self.buffer.len() + bytes.len() <= BUFFER {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        if self.thread.is_none() {
            self.spawn()?;
            let begun = std::mem::take(&mut self.buffer);
            for chunk in begun.chunks(CHUNK) {
                if chunk.len() == CHUNK {
                    self.send(chunk.to_vec())?;
                } else {
                    self.buffer.extend_from_slice(chunk);
                }
            }
        }
        while !bytes.is_empty() {
            self.buffer.reserve_exact(CHUNK.saturating_sub(self.buffer.len()));
            let (head, rest) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
            self.buffer.extend_from_slice(head);
            bytes = rest;
            if self.buffer.len() == CHUNK {
                let chunk = std::mem::take(&mut self.buffer);
                self.send(chunk)?;
            }
        }
        Ok(())
    }

    /// All of it is there. A large one is on disk when this returns; it counts once [`crate::Batch::checkpoint`] is committed.
    ///
    /// # Errors
    /// [`Error::DiskFull`], or why it cannot be written.
    pub fn finish(mut self) -> Result<Checkpoint, Error> {
        let mut info = CheckpointInfo {
            task: self.task,
            number: self.number,
            length: self.length,
            stored: 0,
            sha256: std::mem::take(&mut self.hash).finalize().into(),
            nonce: self.nonce,
            chunks: 0,
            large: false,
        };
        if self.thread.is_none() {
            let mut encoder = Encoder::new(self.journal.options.checkpoint_level)?;
            let small = self
                .buffer
                .chunks(CHUNK)
                .map(|chunk| encoder.encode(chunk))
                .collect::<Result<Vec<_>, _>>()?;
            info.stored = small.iter().map(|chunk| chunk.len() as u64).sum();
            info.chunks = u32::try_from(small.len()).unwrap_or(u32::MAX);
            if info.stored <= SMALL {
                return Ok(Checkpoint { info, small });
            }
            self.spawn()?;
            for chunk in std::mem::take(&mut self.buffer).chunks(CHUNK) {
                self.send(chunk.to_vec())?;
            }
        } else if !self.buffer.is_empty() {
            let last = std::mem::take(&mut self.buffer);
            self.send(last)?;
        }
        info.large = true;
        let file = self.thread.as_ref().map(|thread| thread.file.clone()).unwrap_or_default();
        (info.chunks, info.stored) = self.join()?;
        let ingested = self.journal.ingest(&file);
        if ingested.is_err() {
            let _ = std::fs::remove_file(&file);
        }
        ingested?;
        Ok(Checkpoint { info, small: Vec::new() })
    }

    fn spawn(&mut self) -> Result<(), Error> {
        let folder = self.journal.incoming();
        std::fs::create_dir_all(&folder).map_err(Error::io("make the folder of incoming checkpoints"))?;
        let file = folder.join(format!("{:016x}.sst", self.nonce));
        let (chunks, queue) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
        let journal = Arc::clone(&self.journal);
        let (task, number, nonce, path) = (self.task, self.number, self.nonce, file.clone());
        let work = move || {
            if let Err(error) = journal.sweep() {
                tracing::warn!(%error, "cannot remove old checkpoints");
            }
            let mut encoder = Encoder::new(journal.options.checkpoint_level)?;
            let options = db::database_options(&journal.options).map_err(Error::Database)?;
            let mut table = SstFileWriter::create(&options);
            table.open(&path).map_err(|e| journal.failure(e))?;
            let (mut count, mut stored) = (0u32, 0u64);
            for chunk in queue {
                journal.room.check(false)?;
                let value = encoder.encode(&chunk)?;
                let key = keys::chunk(task, number, nonce, count);
                table.put(key, &value).map_err(|e| journal.failure(e))?;
                journal.room.wrote(value.len() as u64);
                stored += value.len() as u64;
                count += 1;
            }
            table.finish().map_err(|e| journal.failure(e))?;
            Ok((count, stored))
        };
        let thread = thread::Builder::new().name("checkpoint".to_owned()).spawn(work);
        let thread = thread.map_err(Error::io("start a thread for a checkpoint"))?;
        self.thread = Some(Thread { chunks, thread, file });
        Ok(())
    }

    fn send(&mut self, chunk: Vec<u8>) -> Result<(), Error> {
        let sent = self.thread.as_ref().is_some_and(|thread| thread.chunks.send(chunk).is_ok());
        // The thread ends early for one reason only: its error.
        if sent { Ok(()) } else { Err(self.join().err().unwrap_or(Error::WriterEnded)) }
    }

    fn join(&mut self) -> Result<(u32, u64), Error> {
        let Some(Thread { chunks, thread, file }) = self.thread.take() else {
            return Err(Error::WriterEnded);
        };
        drop(chunks);
        let result = thread.join().unwrap_or(Err(Error::WriterEnded));
        if result.is_err() {
            let _ = std::fs::remove_file(file);
        }
        result
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        let Some(Thread { file, .. }) = &self.thread else { return };
        let file = file.clone();
        let _ = self.join();
        let _ = std::fs::remove_file(file);
    }
}

impl Journal {
    pub(crate) fn incoming(&self) -> PathBuf {
        self.path.join("incoming")
    }

    /// Hands a finished table of chunks to RocksDB. It is on disk when this returns.
    pub(crate) fn ingest(&self, file: &std::path::Path) -> Result<(), Error> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Nothing else ever writes to this family, so there is nothing in memory to wait for.
        options.set_allow_blocking_flush(false);
        options.set_snapshot_consistency(false);
        self.with_db(|db| {
            db.ingest_external_file_cf_opts(db::handle(db, BLOBS)?, &options, vec![file])
                .map_err(|e| self.failure(e))
        })
    }
}
