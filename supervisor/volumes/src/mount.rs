//! From an image to a detached mount.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use aion_sys::loopdev::LoopDevice;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::{Error, Result};

fn step(step: &'static str) -> impl Fn(Errno) -> Error {
    move |error| Error::Mount { step, source: error.into() }
}

/// Mounts an image: nosuid, nodev, seen by nobody until the descriptor is moved somewhere. The device and the file system
/// go with the last mount.
pub(crate) fn detached(image: &File) -> Result<OwnedFd> {
    let device = LoopDevice::attach(image.as_fd()).map_err(|error| Error::Loop { source: error.into() })?;
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("fsopen"))?;
    let source = device.path().to_string_lossy();
    fsconfig_set_string(context.as_fd(), "source", source.as_ref()).map_err(step("source"))?;
    // Zeroing inode tables in the background would fill the sparse file.
    fsconfig_set_flag(context.as_fd(), "noinit_itable").map_err(step("noinit_itable"))?;
    fsconfig_create(context.as_fd()).map_err(step("create"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step("fsmount"))
}
