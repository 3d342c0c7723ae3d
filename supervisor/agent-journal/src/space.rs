//! How the writer asks for disk space ahead and gives it back: two calls that std does not have.
//!
//! `aion-init` brings them from `aion-sys`; tests and tools can do without.

use std::fs::File;
use std::io;

/// Space of a file beyond its contents.
pub trait Space {
    /// Allocates `len` bytes at `offset` without changing the file's size.
    ///
    /// # Errors
    /// The disk is full. A file system that cannot do it answers `Unsupported`, which is no failure.
    fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()>;

    /// Gives the blocks of a range back; it reads as zeros from then on.
    ///
    /// # Errors
    /// As the file system says. `Unsupported` is no failure.
    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()>;
}

/// Neither reserves nor punches: the file keeps all its blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainFile;

impl Space for PlainFile {
    fn reserve(&self, _: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn punch(&self, _: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Takes `Unsupported` for success.
pub(crate) fn tolerate_unsupported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}
