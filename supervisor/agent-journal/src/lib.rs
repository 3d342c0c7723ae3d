//! An agent's journal: one file that holds its output, its denied system calls, its exit, and what
//! a job leaves behind.
//!
//! `aion-init` is the only writer; the launcher and aiond read, each at its own cursor. The format is in
//! `docs/architecture.md`. Invariant: an offset, once written, never means another record; a reader that
//! is behind the head learns how many bytes it lost.

mod format;
mod reader;
mod space;
mod task;
mod writer;

pub use format::{
    DeniedCall, Exit, HEADER_LEN, Kind, MAGIC, MAX_PAYLOAD, RECORD_HEADER_LEN, Record, RecordHeader, Start,
};
pub use reader::{Item, Reader};
pub use space::{PlainFile, Space};
pub use task::{Checkpoint, MAX_NOTE, MAX_RESULT, NoteAbout, TaskNote, TaskResult};
pub use writer::Writer;

/// Where the oldest record that is kept begins: what is before it has been given back to the disk.
///
/// # Errors
/// [`Error::NotAJournal`] (also when it is still empty), or the file cannot be read.
pub fn head(file: &std::fs::File) -> Result<u64, Error> {
    reader::read_head(file)
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read or written.
    #[error("journal: cannot {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file does not begin with the journal's header.
    #[error("journal: not a journal file")]
    NotAJournal,
    /// Bytes that are no record, in the middle of the file.
    #[error("journal: no record at offset {cursor}")]
    Corrupt {
        /// Where.
        cursor: u64,
    },
    /// A payload over [`MAX_PAYLOAD`].
    #[error("journal: a payload of {len} bytes, at most {MAX_PAYLOAD} fit")]
    TooLong {
        /// How long it was.
        len: usize,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    /// Whether the disk is full: the record can be appended again later.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } => matches!(source.kind(), Kind::StorageFull | Kind::QuotaExceeded),
            _ => false,
        }
    }
}
