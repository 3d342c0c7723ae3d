//! The places of a task inside: its folder in memory, and the door to aiond's socket. Made after the root is entered, before the
//! agent's first process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aion_agent_journal::MAX_RESULT;
use aion_sandbox::{CHECKPOINT_FOLDER, DOOR, TASK_FOLDER};
use aion_types::LayerName::Workspace;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags, fchown, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{Gid, Uid};

use super::format::MAX_ENTRIES;
use crate::failure::{Failure, Result, at};
use crate::mountpoint::attach;

/// The folder of a task.
pub(super) struct Room {
    pub(super) root: OwnedFd,
    pub(super) folder: OwnedFd,
    /// None where it cannot be watched: then it is looked at.
    pub(super) watch: Option<OwnedFd>,
}

pub(super) fn failed(message: &str) -> Failure {
    Failure::because(Workspace, message)
}

/// Makes the folder. A new checkpoint is written beside the old one, so there is room for two.
pub(super) fn make(checkpoint_max: u64, owner: (u32, u32)) -> Result<Room> {
    let size = (checkpoint_max + MAX_RESULT as u64).saturating_mul(2);
    let mount = tmpfs(size, owner).map_err(at(Workspace, "cannot make the folder of the task"))?;
    show(TASK_FOLDER, mount.as_fd()).map_err(at(Workspace, "cannot show the folder of the task"))?;
    let made = || {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = openat(CWD, TASK_FOLDER, folder, Mode::empty())?;
        mkdirat(&root, "checkpoint", Mode::from_raw_mode(0o700))?;
        let folder = openat(&root, "checkpoint", folder, Mode::empty())?;
        fchown(&folder, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        Ok((root, folder))
    };
    let (root, folder) = made().map_err(at(Workspace, "cannot make the folder of the checkpoint"))?;
    Ok(Room { root, folder, watch: watch().ok() })
}

fn tmpfs(size: u64, (uid, gid): (u32, u32)) -> std::result::Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let inodes = MAX_ENTRIES * 2;
    for (key, value) in [
        ("size", size.to_string()),
        ("nr_inodes", inodes.to_string()),
        ("mode", "0755".to_owned()),
        ("uid", uid.to_string()),
        ("gid", gid.to_string()),
    ] {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

fn watch() -> std::result::Result<OwnedFd, Errno> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    inotify::add_watch(&watch, CHECKPOINT_FOLDER, events)?;
    Ok(watch)
}

/// Shows the folder with aiond's socket.
pub(crate) fn show_door(mount: BorrowedFd<'_>) -> Result<()> {
    show(DOOR, mount).map_err(at(aion_types::LayerName::Rootfs, "cannot show the folder of the socket"))
}

/// `/run` is ours and still empty: no link can be in the way.
fn show(path: &str, mount: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    mkdirat(CWD, path, Mode::from_raw_mode(0o755))?;
    let place = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    attach(mount, place.as_fd())
}
