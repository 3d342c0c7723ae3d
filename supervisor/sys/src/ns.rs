//! Entering the namespaces of another process.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::call;

/// Enters the namespaces in `kinds` (`CLONE_NEW*`) of the process, all or none of them. A new pid namespace is that of
/// the next child.
///
/// # Errors
/// As setns says.
pub fn enter(pidfd: BorrowedFd<'_>, kinds: u64) -> Result<(), Errno> {
    let kinds = libc::c_int::try_from(kinds).map_err(|_| Errno::INVAL)?;
    call!(libc::SYS_setns, pidfd.as_raw_fd(), kinds).map(drop)
}

/// Moves this thread into new namespaces (`CLONE_NEW*`, and `CLONE_FS` 0x200 for a working directory of its own).
///
/// # Errors
/// As unshare says.
pub fn unshare(kinds: u64) -> Result<(), Errno> {
    if kinds & crate::clone::flags::FILES != 0 {
        // Another thread's descriptors would become others: what owns one could not tell.
        return Err(Errno::INVAL);
    }
    call!(libc::SYS_unshare, kinds).map(drop)
}
