//! `syscall(2)` with the result as rustix has it.

use rustix::io::Errno;

/// The largest errno that the kernel returns.
const MAX_ERRNO: i64 = 4095;

/// Reads the value of glibc's `syscall`: -1 and `errno`.
pub(crate) fn result(value: libc::c_long) -> Result<usize, Errno> {
    if value == -1 {
        return Err(last());
    }
    usize::try_from(value).map_err(|_| Errno::INVAL)
}

/// `errno` of this thread.
pub(crate) fn last() -> Errno {
    // SAFETY: takes nothing.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: glibc returns a valid pointer to the thread's errno.
    Errno::from_raw_os_error(unsafe { *place })
}

/// Reads a value as the kernel returns it: -errno.
pub(crate) fn kernel(value: i64) -> Result<i64, Errno> {
    if (-MAX_ERRNO..0).contains(&value) {
        return Err(Errno::from_raw_os_error(i32::try_from(-value).unwrap_or(libc::EINVAL)));
    }
    Ok(value)
}

/// A system call whose arguments are plain numbers and descriptors, or pointers to what outlives it.
macro_rules! call {
    ($nr:expr $(, $arg:expr)* $(,)?) => {
        crate::raw::result(
            // SAFETY: the caller's comment says why the arguments are what this call expects; numbers and
            // descriptors cannot break memory safety, and each pointer refers to a live value.
            unsafe { libc::syscall($nr $(, $arg)*) }
        )
    };
}
pub(crate) use call;

/// A descriptor that a system call has just made.
pub(crate) fn owned(fd: usize) -> Result<std::os::fd::OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}
