//! Landlock's three system calls.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw::{self, call};

/// Rights on files, `LANDLOCK_ACCESS_FS_*`.
pub mod access {
    #![expect(missing_docs, reason = "the names are the kernel's")]
    pub const EXECUTE: u64 = 1;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const REMOVE_DIR: u64 = 1 << 4;
    pub const REMOVE_FILE: u64 = 1 << 5;
    pub const MAKE_CHAR: u64 = 1 << 6;
    pub const MAKE_DIR: u64 = 1 << 7;
    pub const MAKE_REG: u64 = 1 << 8;
    pub const MAKE_SOCK: u64 = 1 << 9;
    pub const MAKE_FIFO: u64 = 1 << 10;
    pub const MAKE_BLOCK: u64 = 1 << 11;
    pub const MAKE_SYM: u64 = 1 << 12;
    /// From ABI 2.
    pub const REFER: u64 = 1 << 13;
    /// From ABI 3.
    pub const TRUNCATE: u64 = 1 << 14;
    /// From ABI 5.
    pub const IOCTL_DEV: u64 = 1 << 15;
}

/// Rights on TCP, `LANDLOCK_ACCESS_NET_*`: bind and connect. From ABI 4.
pub const NET_ALL: u64 = 3;
/// Scopes: abstract Unix sockets and signals. From ABI 6.
pub const SCOPE_ALL: u64 = 3;

/// Everything about files that an ABI version can handle.
#[must_use]
pub fn all_access(abi: u32) -> u64 {
    match abi {
        0 => 0,
        1 => (1 << 13) - 1,
        2 => (1 << 14) - 1,
        3 | 4 => (1 << 15) - 1,
        _ => (1 << 16) - 1,
    }
}

/// The kernel's ABI version; 0 when it has no Landlock or it is not enabled.
#[must_use]
pub fn abi() -> u32 {
    let version = call!(libc::SYS_landlock_create_ruleset, 0, 0, 1);
    version.ok().and_then(|v| u32::try_from(v).ok()).unwrap_or(0)
}

/// What a ruleset governs: what is handled and not allowed by a rule is denied.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Handled {
    /// Rights on files.
    pub fs: u64,
    /// Rights on TCP.
    pub net: u64,
    /// Scopes.
    pub scoped: u64,
}

/// Makes a ruleset. Fields that the ABI does not know must be 0.
///
/// # Errors
/// As the kernel says.
pub fn create(handled: &Handled, abi: u32) -> Result<OwnedFd, Errno> {
    let size = match abi {
        0 => return Err(Errno::NOSYS),
        1..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    raw::owned(call!(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(handled), size, 0)?)
}

/// Allows rights below a folder, or on a file (then without those that only folders have).
///
/// # Errors
/// As the kernel says.
pub fn allow(ruleset: BorrowedFd<'_>, access: u64, beneath: BorrowedFd<'_>) -> Result<(), Errno> {
    const PATH_BENEATH: libc::c_int = 1;
    let mut rule = [0u8; 12];
    rule[..8].copy_from_slice(&access.to_ne_bytes());
    rule[8..].copy_from_slice(&beneath.as_raw_fd().to_ne_bytes());
    call!(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, rule.as_ptr(), 0).map(drop)
}

/// Puts this thread into the ruleset's domain.
///
/// # Errors
/// As the kernel says.
pub fn enter(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    call!(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0).map(drop)
}
