//! From an image to a file system, and to detached mounts of it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aion_sys::loopdev::LoopDevice;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::{Error, Result};

/// A file system that stays mounted as long as this value: agents' mounts come and go.
#[derive(Debug)]
pub(crate) struct FileSystem {
    device: PathBuf,
    mount: OwnedFd,
}

fn step(step: &'static str) -> impl Fn(Errno) -> Error {
    move |error| Error::Mount { step, source: error.into() }
}

impl FileSystem {
    /// Mounts an image where nobody sees it. Device and file system go with the last mount.
    pub(crate) fn of(image: &File) -> Result<Self> {
        let device =
            LoopDevice::attach(image.as_fd()).map_err(|error| Error::Loop { source: error.into() })?;
        let path = device.path().to_owned();
        let mount = detached(&path)?;
        Ok(Self { device: path, mount })
    }

    /// A further mount of it: nosuid, nodev, seen by nobody until the descriptor is moved somewhere. (Kernels
    /// before 6.15 cannot clone a detached mount; asking for the same device again gives the same file system.)
    pub(crate) fn mount(&self) -> Result<OwnedFd> {
        detached(&self.device)
    }

    /// Its root folder.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

fn detached(device: &std::path::Path) -> Result<OwnedFd> {
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("fsopen"))?;
    fsconfig_set_string(context.as_fd(), "source", device.to_string_lossy().as_ref())
        .map_err(step("source"))?;
    // Zeroing inode tables in the background would fill the sparse file.
    fsconfig_set_flag(context.as_fd(), "noinit_itable").map_err(step("noinit_itable"))?;
    fsconfig_create(context.as_fd()).map_err(step("create"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step("fsmount"))
}
