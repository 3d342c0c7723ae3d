//! Raw system calls, so that an attempt is exactly what it says and no libc wrapper gives up first.
//!
//! The wrappers take numbers, not types. That is unsound as a library and right for this program: it is an
//! attacker, and a wrong address hurts nobody but itself.

use std::ffi::{CString, c_int, c_long};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A call that did not do what the attempt wanted.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    pub(crate) what: String,
    pub(crate) errno: i32,
}

impl Stop {
    /// Stopped without an error of the kernel's.
    pub(crate) fn because(what: impl Into<String>) -> Self {
        Self { what: what.into(), errno: 0 }
    }

    pub(crate) fn at(what: impl Into<String>, errno: i32) -> Self {
        Self { what: what.into(), errno }
    }

    pub(crate) fn last(what: impl Into<String>) -> Self {
        Self::at(what, std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.errno {
            0 => f.write_str(&self.what),
            errno => write!(f, "{} at {}", errno_name(errno), self.what),
        }
    }
}

/// How an attempt ended: what it reached, or what stopped it.
pub(crate) type Tried = Result<String, Stop>;

/// What an attempt says when it got through.
pub(crate) fn reached(what: impl Into<String>) -> Tried {
    Ok(what.into())
}

/// Turns an I/O error into the place that stopped the attempt.
pub(crate) fn at(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Stop {
    let what = what.into();
    move |e| Stop::at(what, e.raw_os_error().unwrap_or(libc::EIO))
}

pub(crate) fn call(what: &str, nr: c_long, args: &[usize]) -> Result<usize, Stop> {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: the kernel checks every argument; see the module's comment.
    let got = unsafe { libc::syscall(nr, a(0), a(1), a(2), a(3), a(4), a(5)) };
    if got == -1 { Err(Stop::last(what)) } else { Ok(got as usize) }
}

/// `sc!("mount(2)", SYS_mount, a, b, …)`: numbers and pointers alike.
macro_rules! sc {
    ($what:expr, $nr:expr $(, $arg:expr)* $(,)?) => {
        $crate::sys::call($what, $nr, &[$($arg as usize),*])
    };
}
pub(crate) use sc;

/// As [`call`], for calls that give a descriptor.
pub(crate) fn fd(got: usize) -> OwnedFd {
    // SAFETY: the kernel just gave it to us, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(got as c_int) }
}

pub(crate) fn text(s: &str) -> CString {
    CString::new(s.replace('\0', "")).unwrap_or_default()
}

pub(crate) fn open(path: &str, flags: c_int) -> Result<OwnedFd, Stop> {
    let name = text(path);
    sc!(
        &format!("open {path}"),
        libc::SYS_openat,
        libc::AT_FDCWD,
        name.as_ptr(),
        flags | libc::O_CLOEXEC,
        0o600
    )
    .map(fd)
}

pub(crate) fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> Result<(), Stop> {
    let (s, t, k, d) = (text(source), text(target), text(kind), text(data));
    let what = format!("mount(2) of {kind}{} on {target}", if kind.is_empty() { source } else { "" });
    sc!(&what, libc::SYS_mount, s.as_ptr(), t.as_ptr(), k.as_ptr(), flags, d.as_ptr()).map(drop)
}

pub(crate) fn unshare(flags: c_int) -> Result<(), Stop> {
    sc!("unshare(2)", libc::SYS_unshare, flags).map(drop)
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::getpid() }
}

pub(crate) fn kill(pid: i32, signal: c_int) -> Result<(), Stop> {
    sc!("kill(2)", libc::SYS_kill, pid, signal).map(drop)
}

pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: ends the process without running destructors, as a forked child must.
    unsafe { libc::_exit(code) }
}

/// A forked child that runs `body` and never returns.
pub(crate) fn fork(body: impl FnOnce()) -> Result<i32, Stop> {
    // SAFETY: this program has one thread whenever it forks.
    match unsafe { libc::fork() } {
        -1 => Err(Stop::last("fork(2)")),
        0 => {
            // SAFETY: numbers only. The child does not outlive its parent.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            body();
            exit(0)
        }
        pid => Ok(pid),
    }
}

/// Waits for a child; the raw status, or `None` when the time is over.
pub(crate) fn wait(pid: i32, limit: Duration) -> Option<c_int> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let got = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if got == pid {
            return Some(status);
        }
        if got == -1 || Instant::now() > end {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Ends a child and takes its status.
pub(crate) fn end(pid: i32) {
    if pid > 0 {
        let _ = kill(pid, libc::SIGKILL);
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
    }
}

/// Makes one call in a child, and tells what it answered.
pub(crate) fn in_child(what: &str, body: impl FnOnce() -> Result<(), Stop>) -> Tried {
    let pid = fork(|| exit(body().err().map_or(0, |stop| stop.errno.max(1))))?;
    match wait(pid, Duration::from_secs(5)) {
        Some(status) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => reached(what),
        Some(status) if libc::WIFEXITED(status) => Err(Stop::at(what, libc::WEXITSTATUS(status))),
        Some(status) => Err(Stop::because(format!("killed by signal {}", libc::WTERMSIG(status)))),
        None => Err(Stop::because(format!("{what} did not end"))),
    }
}

/// A raw fork-like call (`clone`, `clone3`): the child ends at once, the parent takes its status.
pub(crate) fn spawned(got: usize) {
    match got as i32 {
        0 => exit(0),
        pid => {
            let mut status = 0;
            // SAFETY: `status` outlives the call. __WALL: the child may have another exit signal.
            unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        }
    }
}

pub(crate) fn socket(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd, Stop> {
    sc!("socket(2)", libc::SYS_socket, family, kind | libc::SOCK_CLOEXEC, protocol).map(fd)
}

pub(crate) fn ioctl(what: &str, file: &impl AsRawFd, request: u64, argument: usize) -> Result<usize, Stop> {
    sc!(what, libc::SYS_ioctl, file.as_raw_fd(), request, argument)
}

/// A pseudo-terminal pair.
pub(crate) fn pty() -> Result<(OwnedFd, OwnedFd), Stop> {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: both descriptors outlive the call, the rest may be null.
    let got = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    if got == -1 {
        return Err(Stop::last("openpty"));
    }
    Ok((fd(master as usize), fd(slave as usize)))
}

/// The kernel's name of an error.
pub(crate) fn errno_name(errno: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::E2BIG, "E2BIG"),
        (libc::ENOEXEC, "ENOEXEC"),
        (libc::EBADF, "EBADF"),
        (libc::ECHILD, "ECHILD"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENODEV, "ENODEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENFILE, "ENFILE"),
        (libc::EMFILE, "EMFILE"),
        (libc::ENOTTY, "ENOTTY"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::EFBIG, "EFBIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::EDQUOT, "EDQUOT"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::ENETUNREACH, "ENETUNREACH"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::EUSERS, "EUSERS"),
        (libc::EOVERFLOW, "EOVERFLOW"),
    ];
    NAMES
        .iter()
        .find(|(n, _)| *n == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}
