//! mount_setattr(2), which rustix does not have.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::call;

/// `MOUNT_ATTR_*`.
pub mod attr {
    #![expect(missing_docs, reason = "the names are the kernel's")]
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const AT_RECURSIVE: libc::c_int = 0x8000;
/// `MS_PRIVATE`.
const PRIVATE: u64 = 1 << 18;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Adds attributes to the mount at a descriptor, and makes it private.
///
/// # Errors
/// As mount_setattr says.
pub fn restrict(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    apply(mount, &MountAttr { set, clear: 0, propagation: PRIVATE, userns: 0 }, recursive)
}

/// Shows the files of a detached mount with the owners that a user namespace's maps give them.
///
/// # Errors
/// `EINVAL` when the file system cannot be idmapped.
pub fn map_owners(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<(), Errno> {
    let userns = u64::from(userns.as_raw_fd().unsigned_abs());
    apply(mount, &MountAttr { set: attr::IDMAP, clear: 0, propagation: 0, userns }, false)
}

fn apply(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let attr = std::ptr::from_ref(attr);
    call!(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, attr, size_of::<MountAttr>())
        .map(drop)
}
