//! Checkpoints: what an agent wants back when it goes on.
//!
//! The data is cut into chunks, each compressed on its own. Small ones travel in the batch that makes them count; large
//! ones become a table file of their own, handed to RocksDB before that batch, so that neither the log nor a memory table
//! nor compaction ever sees them. A large one without a row is an orphan, removed at the next open.

mod encode;
mod read;
mod sweep;
mod write;

pub(crate) use read::checkpoint_key;
pub use write::CheckpointWriter;

use crate::format::CheckpointInfo;

/// Bytes of a chunk before compression.
pub(crate) const CHUNK: usize = 256 << 10;

/// A checkpoint whose data is safe or will be with the batch that it is put into with [`crate::Batch::checkpoint`].
#[derive(Debug)]
pub struct Checkpoint {
    info: CheckpointInfo,
    small: Vec<Vec<u8>>,
}

impl Checkpoint {
    /// What is known of it.
    #[must_use]
    pub const fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    pub(crate) fn small(&self) -> impl Iterator<Item = &[u8]> {
        self.small.iter().map(Vec::as_slice)
    }
}
