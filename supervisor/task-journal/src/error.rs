//! What can go wrong with the journal.

use std::path::PathBuf;

use aion_types::ErrorCode;

/// A failed read or write. A batch whose commit failed is on disk as a whole or not at all; which of the two is known
/// after [`crate::Journal::recover`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be opened.
    #[error("cannot open the journal in {}", path.display())]
    Open {
        /// Its folder.
        path: PathBuf,
        /// RocksDB's reason.
        #[source]
        source: rocksdb::Error,
    },
    /// Another process has it open.
    #[error("the journal in {} is in use by another process", path.display())]
    Locked {
        /// Its folder.
        path: PathBuf,
    },
    /// Written by a newer version of AION.
    #[error("the journal has schema version {found}, this version of AION understands {supported} at most")]
    SchemaTooNew {
        /// What the journal says.
        found: u64,
        /// What this build writes.
        supported: u64,
    },
    /// Less room than what is kept free, or none at all.
    #[error("the disk that holds the journal has {free} bytes left, {needed} are kept free")]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// What must stay free.
        needed: u64,
    },
    /// Events must continue the sequence without a gap.
    #[error("event {found} does not follow {last}")]
    OutOfOrder {
        /// The newest event.
        last: u64,
        /// What was to be written.
        found: u64,
    },
    /// An earlier write failed; nothing is written until the journal has recovered.
    #[error("an earlier write failed and the journal has not recovered yet")]
    Failed,
    /// A row that this version cannot read.
    #[error("a row of {family} cannot be read: {detail}")]
    Corrupt {
        /// The family.
        family: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A checkpoint whose bytes are not those that were stored.
    #[error("checkpoint {number} of task {task} is damaged: {detail}")]
    CheckpointCorrupt {
        /// The task's number.
        task: u64,
        /// The checkpoint's.
        number: u32,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no such checkpoint.
    #[error("task {task} has no checkpoint {number}")]
    CheckpointMissing {
        /// The task's number.
        task: u64,
        /// The checkpoint's.
        number: u32,
    },
    /// A checkpoint over the limit.
    #[error("a checkpoint may have {limit} bytes at most")]
    CheckpointTooLarge {
        /// The limit.
        limit: u64,
    },
    /// An import needs a folder without a journal.
    #[error("{} holds a journal already", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// An exported file that cannot be read.
    #[error("the exported journal cannot be read: {detail}")]
    Import {
        /// What is wrong with it.
        detail: String,
    },
    /// An archive's piece cannot be written or read.
    #[error("the journal's archive cannot be used")]
    Piece(#[source] aion_backup::Error),
    /// An archive's piece that does not go on from where this journal stands.
    #[error("the archive does not go on from this journal: {detail}")]
    Elsewhere {
        /// Why not.
        detail: String,
    },
    /// A file operation failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// RocksDB failed.
    #[error("the journal's database failed")]
    Database(#[source] rocksdb::Error),
    /// The database is closed because it could not be opened again after a failure.
    #[error("the journal is closed after an earlier failure")]
    Closed,
    /// The writer's thread is gone.
    #[error("the journal's writer has ended")]
    WriterEnded,
}

impl Error {
    /// The stable code a user meets.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::DiskFull { .. } => ErrorCode::DiskFull,
            Self::CheckpointTooLarge { .. } => ErrorCode::TooLarge,
            Self::CheckpointCorrupt { .. } => ErrorCode::CheckpointCorrupt,
            Self::Corrupt { .. } | Self::SchemaTooNew { .. } | Self::Open { .. } => ErrorCode::JournalBroken,
            _ => ErrorCode::Internal,
        }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
