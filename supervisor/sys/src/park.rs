//! A child that executes an image from a descriptor and finds its control socket at 3, and nothing else open.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;

use crate::clone::{self, Child, SignalsBlocked, Stack, flags};

/// Where the child finds its control socket.
pub const CONTROL_FD: i32 = 3;
const IMAGE_FD: i32 = 4;
/// Above the numbers that are given out, below every limit.
const ASIDE: i32 = 16;

/// What the child executes, and with what.
#[derive(Debug)]
pub struct Image<'a> {
    /// An executable file that is open for reading.
    pub program: BorrowedFd<'a>,
    /// The name that it has in process lists, and its only arguments.
    pub argv: &'a [&'a CStr],
    /// Becomes descriptor 3.
    pub control: BorrowedFd<'a>,
    /// Becomes descriptors 0, 1 and 2.
    pub null: BorrowedFd<'a>,
}

struct Args {
    program: i32,
    control: i32,
    null: i32,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    errno: AtomicI32,
}

/// Makes the child and returns when it executes. `namespaces` are `CLONE_NEW*` flags; a user namespace is not
/// among them, for its first process loses its capabilities when it executes before its ids are mapped.
///
/// # Errors
/// The clone or the execution failed; there is no child then.
pub fn spawn(namespaces: u64, cgroup: Option<BorrowedFd<'_>>, image: &Image<'_>) -> Result<Child, Errno> {
    if namespaces & flags::NEWUSER != 0 {
        return Err(Errno::INVAL);
    }
    let mut argv: Vec<_> = image.argv.iter().map(|a| a.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [std::ptr::null()];
    let mut args = Args {
        program: image.program.as_raw_fd(),
        control: image.control.as_raw_fd(),
        null: image.null.as_raw_fd(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        errno: AtomicI32::new(0),
    };
    let stack = Stack::new()?;
    let child = {
        let _blocked = SignalsBlocked::new();
        let arg = std::ptr::from_mut(&mut args).cast();
        // SAFETY: `run` keeps to system calls and takes `Args`; VFORK keeps us here until it executes or ends.
        unsafe { clone::into(namespaces | flags::VFORK, cgroup, &stack, run, arg)? }
    };
    match args.errno.load(Ordering::Relaxed) {
        0 => Ok(child),
        errno => {
            use rustix::process::{WaitId, WaitIdOptions, waitid};
            use std::os::fd::AsFd;
            waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
            Err(Errno::from_raw_os_error(errno))
        }
    }
}

unsafe extern "C" fn run(arg: *mut libc::c_void) -> ! {
    // SAFETY: `spawn` passes its `Args`, which it keeps until we execute or end.
    let args = unsafe { &*arg.cast::<Args>() };
    let errno = match become_image(args) {
        Ok(never) => match never {},
        Err(errno) => errno,
    };
    args.errno.store(errno.raw_os_error(), Ordering::Relaxed);
    exit_now(127)
}

enum Never {}

fn become_image(args: &Args) -> Result<Never, Errno> {
    let aside = |fd: i32| -> Result<i32, Errno> {
        let fd = crate::raw::call!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, ASIDE)?;
        i32::try_from(fd).map_err(|_| Errno::BADF)
    };
    let (null, control, program) = (aside(args.null)?, aside(args.control)?, aside(args.program)?);
    for fd in 0..=2 {
        crate::raw::call!(libc::SYS_dup3, null, fd, 0)?;
    }
    crate::raw::call!(libc::SYS_dup3, control, CONTROL_FD, 0)?;
    crate::raw::call!(libc::SYS_dup3, program, IMAGE_FD, libc::O_CLOEXEC)?;
    crate::raw::call!(libc::SYS_close_range, IMAGE_FD + 1, u32::MAX, 0)?;
    crate::raw::call!(libc::SYS_setsid)?;
    let empty = c"".as_ptr();
    crate::raw::call!(libc::SYS_execveat, IMAGE_FD, empty, args.argv, args.envp, libc::AT_EMPTY_PATH)?;
    Err(Errno::NOEXEC)
}

pub(crate) const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Ends this process without running anything of ours.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; shared memory stays as it is.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    // A filter may have refused the call; an abort cannot be refused.
    std::process::abort()
}

/// The control socket of a parked child: descriptor 3, close-on-exec from now on. Can be taken once.
///
/// # Errors
/// `BADF` when it is no socket or was taken before.
pub fn take_control() -> Result<std::os::unix::net::UnixStream, Errno> {
    use std::os::fd::FromRawFd;
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Errno::BADF);
    }
    crate::raw::call!(libc::SYS_fcntl, CONTROL_FD, libc::F_SETFD, libc::FD_CLOEXEC)?;
    // SAFETY: the descriptor is open, and nobody else takes it: it was given to us for this.
    Ok(unsafe { std::os::unix::net::UnixStream::from_raw_fd(CONTROL_FD) })
}

/// Makes this process undumpable: its files in /proc belong to the host's root, and nobody may trace it.
///
/// # Errors
/// As prctl says.
pub fn hide_from_tracing() -> Result<(), Errno> {
    crate::raw::call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0).map(drop)
}
