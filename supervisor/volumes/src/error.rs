//! What can go wrong with a volume.

use std::io;
use std::path::PathBuf;

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The template could not be formatted.
    #[error("mkfs.ext4 failed: {message}; install e2fsprogs")]
    Format {
        /// What it said.
        message: String,
    },
    /// No loop device could be had.
    #[error("cannot make a loop device (modprobe loop)")]
    Loop {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The image could not be mounted.
    #[error("cannot mount a volume: {step}")]
    Mount {
        /// Which step.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Smaller than a file system can be, or larger than is sane.
    #[error("a volume of {bytes} bytes: at least {min} and at most {max} bytes")]
    Size {
        /// What was asked.
        bytes: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// Not a name that a volume may have.
    #[error("{name:?} is not a volume's name")]
    Name {
        /// What was given.
        name: String,
    },
}

impl Error {
    /// The kernel's number, 0 when there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::File { source, .. } | Self::Loop { source } | Self::Mount { source, .. } => {
                source.raw_os_error().unwrap_or(0)
            }
            Self::Format { .. } | Self::Size { .. } | Self::Name { .. } => 0,
        }
    }
}
