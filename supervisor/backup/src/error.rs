//! Why an archive, or a folder for it, cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// A failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It begins like nothing that AION writes.
    #[error("it is not a backup: it does not begin with {}", crate::manifest::NAME)]
    NotABackup,
    /// It is not as it was written.
    #[error("the backup is damaged in {file} at byte {offset}: {what}")]
    Broken {
        /// The file in the archive; of what is between files the one before.
        file: String,
        /// Bytes of the archive, after decryption.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// It holds what no backup of AION's holds.
    #[error("the backup is refused for {file} at byte {offset}: {what}")]
    Refused {
        /// The file's name, as far as it can be shown.
        file: String,
        /// Bytes of the archive, after decryption.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A newer version of AION wrote it.
    #[error("the backup's {what} is {found}, this version of aionctl understands {supported} at most")]
    Newer {
        /// Of what.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest that is understood.
        supported: u32,
    },
    /// The folder has something in it.
    #[error("{} is not empty: {found} is in it", dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// What.
        found: String,
    },
    /// A daemon runs on the folder.
    #[error("{daemon} runs on {}", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Which.
        daemon: &'static str,
    },
    /// There is less room than the state needs.
    #[error("{needed} bytes are needed in {}, {free} are free", dir.display())]
    NoRoom {
        /// The folder.
        dir: PathBuf,
        /// Bytes that the files have.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file that is to go in is shorter than it was said to be.
    #[error("{name} became shorter while it was read")]
    Short {
        /// Its name in the archive.
        name: String,
    },
    /// A name that no entry can have.
    #[error("{name} cannot be in a backup: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        why: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file; of the archive itself, `the backup`.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A piece of the journal's archive is not as it was written.
    #[error("the journal's archive is damaged in {piece} at byte {offset}: {what}")]
    Piece {
        /// Its file.
        piece: String,
        /// Bytes of it, after decryption.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The journal's archive does not lead where it should.
    #[error("the journal's archive does not go on: {what}")]
    Gap {
        /// Where.
        what: String,
    },
    /// A point in time that is not between the backup and the archive's end.
    #[error("the journal's archive does not have this point: {what}")]
    Point {
        /// What it has.
        what: String,
    },
    /// An older version of AION made the backup.
    #[error("the backup does not say where its journal stands")]
    NoPlace,
    /// The audit log that came with it cannot be looked at.
    #[error("the backup's audit log cannot be taken over")]
    Audit(#[source] aion_audit::Error),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Of the archive as a stream.
    pub(crate) fn stream(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        Self::io(action, Path::new("the backup"))
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}
