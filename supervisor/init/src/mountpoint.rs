//! Finding and making the places where mounts go, without ever following a link: a root folder that somebody
//! else filled may hold any.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// What is made when a place is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    Nothing,
    Folder,
    File,
}

/// Opens a place below `root`; `path` has no leading slash and no dots.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a place, making it and the folders on the way when they are missing.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, path: &[u8], make: Make) -> Result<OwnedFd, Errno> {
    match open(root, path) {
        Err(Errno::NOENT) if make != Make::Nothing => {}
        other => return other,
    }
    let mut ends: Vec<usize> = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).collect();
    ends.push(path.len());
    let mut parent: Option<OwnedFd> = None;
    let mut begin = 0;
    for end in ends {
        let name = &path[begin..end];
        let at = parent.as_ref().map_or(root, AsFd::as_fd);
        if end == path.len() && make == Make::File {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            openat(at, name, flags, Mode::from_raw_mode(0o444))?;
        } else {
            match mkdirat(at, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
        let next = open(at, name)?;
        parent = Some(next);
        begin = end + 1;
    }
    parent.ok_or(Errno::NOENT)
}

/// Puts a mount on a place.
pub(crate) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// A detached copy of the mounts at and below a place.
pub(crate) fn copy_tree(at: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(at, path, flags)
}
