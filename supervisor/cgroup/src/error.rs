//! What can go wrong with control groups.

use std::io;
use std::path::{Path, PathBuf};

use crate::Controller;

/// A failure of control groups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of a cgroup file system could not be used.
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
    /// No cgroup file system is mounted.
    #[error("no cgroup file system is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    /// A name that would not be one folder.
    #[error("{name:?} is not a name for a control group")]
    BadName {
        /// The name.
        name: String,
    },
    /// A limit whose controller this host does not have.
    #[error("limit {limit} needs the cgroup controller {controller}, which this host does not have ({why})")]
    ControllerMissing {
        /// The controller.
        controller: Controller,
        /// The limit.
        limit: &'static str,
        /// What exactly is not there.
        why: String,
    },
    /// The kernel refused a limit.
    #[error("cannot set limit {limit} of the cgroup controller {controller}")]
    Limit {
        /// The controller.
        controller: Controller,
        /// The limit.
        limit: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("control group {} was not {state} after {ms} ms", path.display())]
    Timeout {
        /// The group.
        path: PathBuf,
        /// What was waited for.
        state: &'static str,
        /// How long.
        ms: u128,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The kernel's reason, 0 when it is not the kernel's.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Io { source, .. } => source.raw_os_error().unwrap_or(0),
            _ => 0,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
