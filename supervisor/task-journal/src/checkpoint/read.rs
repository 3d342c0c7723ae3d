//! Reading checkpoints. Length and hash are compared at each read; what does not match is an error that names it.

use rocksdb::ReadOptions;
use sha2::{Digest as _, Sha256};

use super::encode;
use crate::error::Error;
use crate::format::{self, CheckpointInfo};
use crate::journal::Journal;
use crate::keys::{self, BLOBS, CHECKPOINTS, SMALL_BLOBS};

impl Journal {
    /// The checkpoints that a task has, oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn checkpoints(&self, task: u64) -> Result<Vec<CheckpointInfo>, Error> {
        let mut found = Vec::new();
        let mut read = ReadOptions::default();
        if let Some(next) = task.checked_add(1) {
            read.set_iterate_upper_bound(keys::checkpoint(next, 0));
        }
        self.iterate(CHECKPOINTS, read, |iter| {
            iter.seek(keys::checkpoint(task, 0));
            while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
                let (task, number) = checkpoint_key(key)?;
                found.push(format::checkpoint_info(task, number, value)?);
                iter.next();
            }
            Ok(found)
        })
    }

    /// Hands a checkpoint to `sink` in parts. Only when this returns without an error were they what the agent gave.
    ///
    /// # Errors
    /// [`Error::CheckpointMissing`], [`Error::CheckpointCorrupt`], or what `sink` says.
    pub fn read_checkpoint<E: From<Error>>(
        &self,
        task: u64,
        number: u32,
        sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<CheckpointInfo, E> {
        let value = self.get(CHECKPOINTS, &keys::checkpoint(task, number))?;
        let value = value.ok_or(Error::CheckpointMissing { task, number })?;
        let info = format::checkpoint_info(task, number, &value)?;
        self.read_chunks(&info, sink)?;
        Ok(info)
    }

    /// A checkpoint as a whole.
    ///
    /// # Errors
    /// As [`Journal::read_checkpoint`].
    pub fn load_checkpoint(&self, task: u64, number: u32) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        self.read_checkpoint(task, number, |part| {
            data.extend_from_slice(part);
            Ok::<_, Error>(())
        })?;
        Ok(data)
    }

    /// The newest checkpoint of a task that is whole, and what is wrong with those after it.
    ///
    /// # Errors
    /// When the rows cannot be read; damaged data is no error while there is an older one.
    pub fn newest_checkpoint(&self, task: u64) -> Result<(Option<CheckpointInfo>, Vec<Error>), Error> {
        let mut damaged = Vec::new();
        for info in self.checkpoints(task)?.iter().rev() {
            match self.read_chunks(info, |_| Ok::<_, Error>(())) {
                Ok(()) => return Ok((Some(*info), damaged)),
                Err(error) => damaged.push(error),
            }
        }
        Ok((None, damaged))
    }

    pub(crate) fn read_chunks<E: From<Error>>(
        &self,
        info: &CheckpointInfo,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (task, number) = (info.task, info.number);
        let corrupt = |detail: String| Error::CheckpointCorrupt { task, number, detail };
        let key = |index| keys::chunk(task, number, info.nonce, index);
        let mut hash = Sha256::new();
        let mut length = 0;
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        read.set_readahead_size(1 << 20);
        read.set_iterate_upper_bound(key(u32::MAX));
        let family = if info.large { BLOBS } else { SMALL_BLOBS };
        // One iterator: it keeps the file while somebody drops the checkpoint.
        let result = self.iterate(family, read, |iter| {
            iter.seek(key(0));
            for index in 0..info.chunks {
                let Some(value) = iter.value().filter(|_| iter.key() == Some(&key(index))) else {
                    let detail = iter
                        .status()
                        .err()
                        .map_or_else(|| format!("chunk {index} is missing"), |e| e.to_string());
                    return Err(corrupt(detail).into());
                };
                let chunk =
                    encode::decode(value).map_err(|detail| corrupt(format!("chunk {index}: {detail}")))?;
                hash.update(&chunk);
                length += chunk.len() as u64;
                sink(&chunk)?;
                iter.next();
            }
            Ok::<_, E>(())
        });
        result?;
        if length != info.length {
            return Err(corrupt(format!("it has {length} bytes, {} were stored", info.length)).into());
        }
        if <[u8; 32]>::from(hash.finalize()) != info.sha256 {
            return Err(corrupt("its SHA-256 is another one".to_owned()).into());
        }
        Ok(())
    }
}

pub(crate) fn checkpoint_key(key: &[u8]) -> Result<(u64, u32), Error> {
    keys::checkpoint_parts(key).filter(|_| key.len() == 12).ok_or_else(|| Error::Corrupt {
        family: CHECKPOINTS,
        detail: "a key is not a task's number and a checkpoint's".to_owned(),
    })
}
