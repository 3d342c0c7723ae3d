//! Signals as a descriptor, and a clean start.

use std::os::fd::OwnedFd;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::raw::{self, call};

const LAST_SIGNAL: i32 = 64;
const CLOEXEC_NONBLOCK: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

/// Blocks all signals of this thread and gives them as a descriptor instead.
///
/// # Errors
/// As the kernel says.
pub fn take_all() -> Result<OwnedFd, Errno> {
    let all = u64::MAX;
    let all = std::ptr::from_ref(&all);
    let no = std::ptr::null_mut::<u64>();
    call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, all, no, size_of::<u64>())?;
    raw::owned(call!(libc::SYS_signalfd4, -1, all, size_of::<u64>(), CLOEXEC_NONBLOCK)?)
}

/// The next signal's number, or `None` when none waits.
///
/// # Errors
/// As read says.
pub fn next(signals: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    let mut info = [0u8; 128];
    match call!(libc::SYS_read, signals.as_raw_fd(), info.as_mut_ptr(), info.len()) {
        Ok(n) if n >= 4 => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Gives every signal its default action, so that nothing is inherited as ignored.
pub fn reset_actions() {
    // handler, flags, restorer, mask: all zero is the default action
    let default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        let no = std::ptr::null_mut::<u64>();
        // SIGKILL and SIGSTOP cannot be set; they cannot be ignored either.
        let _ = call!(libc::SYS_rt_sigaction, signal, default.as_ptr(), no, size_of::<u64>());
    }
}

/// Unblocks a signal and ends this process by it. Returns only when the signal does not end it.
pub fn die_of(signal: i32) {
    reset_actions();
    let none = 0u64;
    let none = std::ptr::from_ref(&none);
    let no = std::ptr::null_mut::<u64>();
    let _ = call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, none, no, size_of::<u64>());
    let _ = call!(libc::SYS_kill, std::process::id(), signal);
}

/// Sends a signal to every process that we may signal, but ourselves.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn kill_all(signal: i32) -> Result<(), Errno> {
    call!(libc::SYS_kill, -1, signal).map(drop)
}

/// Sends a signal to the process at a pidfd.
///
/// # Errors
/// As the kernel says; `ESRCH` when it is gone.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    call!(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0).map(drop)
}
