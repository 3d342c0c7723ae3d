//! One volume, mounted and not yet given away.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use crate::{Error, Result};

/// A mounted volume. Dropped, it is unmounted; its image stays until [`crate::Volumes::remove`].
#[derive(Debug)]
pub struct Volume {
    pub(crate) mount: OwnedFd,
    pub(crate) bytes: u64,
}

impl Volume {
    /// Its size, file system included.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The detached mount as it is: its files belong to [`crate::OWNER`].
    #[must_use]
    pub fn into_mount(self) -> OwnedFd {
        self.mount
    }

    /// The detached mount, its files shown with the owners that the user namespace of process `pid` gives them. To
    /// be handed to that namespace's init.
    ///
    /// # Errors
    /// When the process is gone or the kernel cannot idmap ext4.
    pub fn mount_for(self, pid: u32) -> Result<OwnedFd> {
        let path = format!("/proc/{pid}/ns/user");
        let namespace = File::open(&path).map_err(|source| Error::File {
            action: "open the user namespace",
            path: path.into(),
            source,
        })?;
        aion_sys::mount::map_owners(self.mount.as_fd(), namespace.as_fd())
            .map_err(|error| Error::Mount { step: "idmap", source: error.into() })?;
        Ok(self.mount)
    }
}
