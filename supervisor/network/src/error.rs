//! What can go wrong.

use rustix::io::Errno;

/// A step that the kernel or the file system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {reason}")]
pub struct Error {
    doing: String,
    reason: String,
    errno: i32,
}

impl Error {
    pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { doing: doing.into(), reason: errno.to_string(), errno: errno.raw_os_error() }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self {
            doing: doing.into(),
            reason: error.to_string(),
            errno: error.raw_os_error().unwrap_or(0),
        }
    }

    pub(crate) fn new(doing: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { doing: doing.into(), reason: reason.into(), errno: 0 }
    }

    /// The kernel's error number; 0 when it was not the kernel's.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        self.errno
    }
}
