//! What can go wrong with the store.

use std::path::PathBuf;

use aion_types::ErrorCode;

/// A failed read or write. Nothing of a failed batch is in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be opened.
    #[error("cannot open the database in {}", path.display())]
    Open {
        /// Its folder.
        path: PathBuf,
        /// RocksDB's reason.
        #[source]
        source: rocksdb::Error,
    },
    /// Written by a newer version of AION.
    #[error("the database has schema version {found}, this version of aiond understands {supported} at most")]
    SchemaTooNew {
        /// What the database says.
        found: u32,
        /// What this build writes.
        supported: u32,
    },
    /// Less room than what is kept in reserve, or none at all.
    #[error("the disk that holds the state has {free} bytes left, {reserve} are kept in reserve")]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// What must stay free for the daemon's own bookkeeping.
        reserve: u64,
    },
    /// The name belongs to another agent.
    #[error("the name {name} belongs to agent {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// The id of the agent that has it.
        owner: String,
    },
    /// The cursor points at records that retention has dropped.
    #[error("record {wanted} is no longer in the index, the oldest is {oldest}")]
    CursorExpired {
        /// The first record that the reader would need.
        wanted: u64,
        /// The oldest one there is.
        oldest: u64,
    },
    /// Event rows must continue the index without a gap.
    #[error("event {found} does not follow {last}")]
    OutOfOrder {
        /// The newest indexed record.
        last: u64,
        /// What was to be written.
        found: u64,
    },
    /// A row that this version cannot read.
    #[error("a row of {family} cannot be read: {detail}")]
    Corrupt {
        /// The column family.
        family: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// RocksDB failed.
    #[error("the database failed")]
    Database(#[source] rocksdb::Error),
    /// The database is closed because an earlier write failed and it could not be opened again yet.
    #[error("the database is closed after an earlier failure")]
    Closed,
}

impl Error {
    /// The stable code a user meets.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::DiskFull { .. } => ErrorCode::DiskFull,
            Self::NameTaken { .. } => ErrorCode::NameTaken,
            Self::CursorExpired { .. } => ErrorCode::CursorExpired,
            Self::Open { .. }
            | Self::SchemaTooNew { .. }
            | Self::OutOfOrder { .. }
            | Self::Corrupt { .. }
            | Self::Database(_)
            | Self::Closed => ErrorCode::Internal,
        }
    }
}
