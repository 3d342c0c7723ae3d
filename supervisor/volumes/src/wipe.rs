//! Makes a used volume like new, when that is less work than a new one.
//!
//! Everything in it is removed and its root folder gets back what an agent, as its owner, may have changed:
//! owner, mode, extended attributes, flags. A volume with much in it is refused: it is thrown away as a whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, IFlags, Mode, OFlags, Uid, fchmod, fchown, fgetxattr, flistxattr,
    fremovexattr, fstatvfs, ioctl_getflags, ioctl_setflags, openat, unlinkat,
};
use rustix::io::Errno;

use crate::OWNER;

/// What may be in use, the file system's own needs included.
const MAX_BYTES: u64 = 64 << 20;
const MAX_FILES: u64 = 512;
const MAX_DEPTH: usize = 16;

/// Removes everything. `Ok(false)`, or an error, and the volume must not be used again.
pub(crate) fn wipe(root: BorrowedFd<'_>) -> Result<bool, Errno> {
    let used = fstatvfs(root)?;
    let bytes = used.f_blocks.saturating_sub(used.f_bfree).saturating_mul(used.f_frsize);
    if bytes > MAX_BYTES || used.f_files.saturating_sub(used.f_ffree) > MAX_FILES {
        return Ok(false);
    }
    let dir = open_dir(root, c".")?;
    if !empty(dir.as_fd(), 0)? {
        return Ok(false);
    }
    reset(dir.as_fd())?;
    Ok(true)
}

fn open_dir(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn empty(dir: BorrowedFd<'_>, depth: usize) -> Result<bool, Errno> {
    if depth > MAX_DEPTH {
        return Ok(false);
    }
    // Removing while listing may skip entries: what the last pass leaves is not removable.
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            if !empty(open_dir(dir, name)?.as_fd(), depth + 1)? {
                return Ok(false);
            }
            unlinkat(dir, name, AtFlags::REMOVEDIR)?;
        } else {
            unlinkat(dir, name, AtFlags::empty())?;
        }
    }
    let left = Dir::read_from(dir)?.filter_map(Result::ok);
    Ok(left.filter(|e| !matches!(e.file_name().to_bytes(), b"." | b"..")).count() == 0)
}

fn reset(root: BorrowedFd<'_>) -> Result<(), Errno> {
    fchown(root, Some(Uid::from_raw(OWNER)), Some(Gid::from_raw(OWNER)))?;
    fchmod(root, Mode::from_raw_mode(0o755))?;
    let mut names = [0u8; 4096];
    // More attributes than fit: too odd to be used again.
    let length = flistxattr(root, &mut names)?;
    for name in names.get(..length).unwrap_or_default().split(|&b| b == 0).filter(|n| !n.is_empty()) {
        // Attributes of a security module come with the file system and cannot be removed.
        if fremovexattr(root, name).is_err()
            && fgetxattr(root, name, &mut [0u8; 0]).is_ok()
            && !name.starts_with(b"security.")
        {
            return Err(Errno::PERM);
        }
    }
    let changed = IFlags::SYNC
        | IFlags::DIRSYNC
        | IFlags::APPEND
        | IFlags::IMMUTABLE
        | IFlags::NOATIME
        | IFlags::NODUMP;
    let flags = ioctl_getflags(root)?;
    if flags.intersects(changed) {
        ioctl_setflags(root, flags & !changed)?;
    }
    Ok(())
}
