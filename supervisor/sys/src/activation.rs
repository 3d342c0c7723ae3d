//! Sockets that a service manager opened for this process (sd_listen_fds(3)): descriptors from 3 on, as many as LISTEN_FDS says,
//! for the process that LISTEN_PID names.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// The first descriptor.
const FIRST: RawFd = 3;
/// Nobody hands over more; a number from outside is no reason to look at a million descriptors.
const MOST: RawFd = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that were handed to this process, closed on exec from now on. They are given once: a second call gets none.
///
/// # Errors
/// `INVAL` when the variables are not numbers, or too large; `BADF` when a descriptor is not there.
pub fn take() -> Result<Vec<OwnedFd>, Errno> {
    let variable = |name: &str| std::env::var_os(name);
    let count =
        count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref(), std::process::id())?;
    if count == 0 || TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let mut taken = Vec::new();
    for number in FIRST..FIRST + count {
        // SAFETY: it is only asked about; a number that names no descriptor is answered with EBADF.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = fcntl_getfd(borrowed)?;
        fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
        // SAFETY: it is open, the caller of exec left it to this process, and TAKEN sees to it that it is owned once.
        taken.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(taken)
}

/// How many there are. The variables of another process, inherited, say nothing.
fn count(pid: Option<&OsStr>, fds: Option<&OsStr>, own: u32) -> Result<RawFd, Errno> {
    let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u32>().ok()).ok_or(Errno::INVAL);
    let (Some(pid), Some(fds)) = (pid, fds) else { return Ok(0) };
    if number(pid)? != own {
        return Ok(0);
    }
    RawFd::try_from(number(fds)?).ok().filter(|count| *count <= MOST).ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        let of = |pid: &str, fds: &str| count(Some(OsStr::new(pid)), Some(OsStr::new(fds)), 7);
        assert_eq!(of("7", "2"), Ok(2));
        assert_eq!(of("8", "2"), Ok(0));
        assert_eq!(count(None, Some(OsStr::new("2")), 7), Ok(0));
        assert_eq!(count(Some(OsStr::new("7")), None, 7), Ok(0));
        for (pid, fds) in [("7", "65"), ("7", "-1"), ("7", "x"), ("x", "1"), ("7", "4294967295")] {
            assert_eq!(of(pid, fds), Err(Errno::INVAL), "{pid} {fds}");
        }
    }
}
