//! Mounts made on the host for a sandbox: detached, so that they are visible nowhere else, restricted before
//! anybody can see them, and from descriptors, so that no path is resolved twice.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aion_sys::mount::{attr, map_owners, restrict};
use aion_types::LayerName;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;
use crate::host::idmap::{self, Owner};

/// Opens an absolute path for one of the mounts here. No component may be a symbolic link: somebody could
/// change it between the check and the use.
///
/// # Errors
/// `layer` with the kernel's reason.
pub fn open_path(path: &Path, layer: LayerName) -> Result<OwnedFd, Error> {
    let failed = |errno: i32, why: &str| Error::Layer {
        layer,
        errno,
        message: format!("cannot use {}{why}", path.display()),
    };
    if !path.is_absolute() {
        return Err(failed(0, ": the path is not absolute"));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve).map_err(|e| match e {
        Errno::LOOP => failed(e.raw_os_error(), ": a part of the path is a symbolic link; name its target"),
        e => failed(e.raw_os_error(), ""),
    })
}

/// A read-only mount of a folder and of what is mounted below it, for `LaunchFds::rootfs`.
///
/// # Errors
/// Layer `rootfs`.
pub fn rootfs(dir: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    read_only(dir)
}

/// A read-only mount of a folder or file and of what is mounted below it.
///
/// # Errors
/// Layer `rootfs`.
pub fn read_only(dir: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let tree = clone_tree(dir, true).map_err(Error::layer(LayerName::Rootfs, "cannot bind a folder"))?;
    restrict(tree.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV, true)
        .map_err(Error::layer(LayerName::Rootfs, "cannot make a mount read-only"))?;
    Ok(tree)
}

/// A mount of aiond's folder for one agent, for `LaunchFds::door`: the agent may connect to the socket in it, and nothing else. What
/// is mounted below is not shown.
///
/// # Errors
/// Layer `rootfs`.
pub fn door(dir: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let failed = |what: &'static str| Error::layer(LayerName::Rootfs, what);
    let tree = clone_tree(dir, false).map_err(failed("cannot bind the folder of the socket"))?;
    restrict(tree.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, false)
        .map_err(failed("cannot restrict the folder of the socket"))?;
    Ok(tree)
}

/// A mount in which the agent is the folder's owner. What is mounted below is not shown: its owners
/// could not be mapped, and it was not asked for.
pub(crate) fn owned(dir: BorrowedFd<'_>, owner: Owner, read_only: bool) -> Result<OwnedFd, Error> {
    let layer = |message: &'static str| Error::layer(LayerName::Workspace, message);
    let tree = clone_tree(dir, false).map_err(layer("cannot bind the folder"))?;
    let stat = rustix::fs::fstat(&tree).map_err(layer("cannot see the folder's owner"))?;
    let namespace = idmap::namespace(stat.st_uid, stat.st_gid, owner)?;
    map_owners(tree.as_fd(), namespace.as_fd()).map_err(layer(
        "the folder's file system cannot map owners (idmapped mounts; tmpfs can from Linux 6.3 on)",
    ))?;
    let mut set = attr::NOSUID | attr::NODEV;
    if read_only {
        set |= attr::RDONLY;
    }
    restrict(tree.as_fd(), set, false).map_err(layer("cannot restrict the mount"))?;
    Ok(tree)
}

pub(crate) fn clone_tree(dir: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, "", flags)
}
