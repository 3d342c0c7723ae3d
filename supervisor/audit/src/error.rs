//! What can go wrong with the log's files.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the audit log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the log could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, e.g. `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process writes this log.
    #[error("another process writes the audit log ({} is locked)", key.display())]
    Locked {
        /// The key file, which carries the lock.
        key: PathBuf,
    },
    /// There is a log, but not the key that signs it.
    #[error("the audit log in {} has no key at {}: restore the key, or move the log away", dir.display(), key.display())]
    KeyMissing {
        /// The log's folder.
        dir: PathBuf,
        /// Where the key was looked for.
        key: PathBuf,
    },
    /// The key file does not hold a key.
    #[error("{} is not an audit key: {why}", path.display())]
    KeyInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// What says where a new log goes on from cannot be read.
    #[error("{} does not say after which record the audit log goes on: restore the backup again", path.display())]
    OriginInvalid {
        /// The file.
        path: PathBuf,
    },
    /// A field of a new record is longer than allowed.
    #[error("field {field} of an audit record has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// Which.
        field: &'static str,
        /// How long it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// The detail of a new record is not a JSON object.
    #[error("the detail of an audit record is not a JSON object: {why}")]
    DetailInvalid {
        /// What is wrong.
        why: String,
    },
    /// The kernel failed to sync written records. What is on the disk is unknown until the log is opened
    /// again, so nothing more is accepted.
    #[error("the audit log could not be synced to {} and must be opened again", path.display())]
    Poisoned {
        /// The segment.
        path: PathBuf,
    },
    /// The random number generator failed.
    #[error("cannot make an audit key: no random bytes: {why}")]
    NoRandom {
        /// Why.
        why: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the disk (or the quota) is full: the caller may try again when there is room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
