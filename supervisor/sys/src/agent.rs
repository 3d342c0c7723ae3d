//! The agent's first process, from the clone to its own program.
//!
//! It shares init's memory and descriptors until it executes, so it reports by writing into memory, and the
//! listener of its seccomp filter is init's at once. Everything it needs is prepared; it makes system calls
//! and nothing else. The order is that of the layers: what a layer takes away is not needed after it.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use rustix::io::Errno;

use crate::clone::{self, Child, SignalsBlocked, Stack, flags};
use crate::park::{CAPABILITY_VERSION_3, exit_now};
use crate::raw::call;
use crate::seccomp;

/// What was being done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Nothing has failed.
    None = 0,
    /// A session of its own, its controlling terminal, standard descriptors.
    Session,
    /// Its place in the order of the out-of-memory killer.
    OomScore,
    /// rlimits.
    Rlimits,
    /// Emptying the bounding set and the capability sets.
    Capabilities,
    /// Becoming the agent's user.
    User,
    /// Entering the working directory.
    Directory,
    /// no_new_privs.
    NoNewPrivs,
    /// The Landlock domain.
    Landlock,
    /// The seccomp filter.
    Seccomp,
    /// Executing the program.
    Execute,
}

const STEPS: [Step; 11] = [
    Step::None,
    Step::Session,
    Step::OomScore,
    Step::Rlimits,
    Step::Capabilities,
    Step::User,
    Step::Directory,
    Step::NoNewPrivs,
    Step::Landlock,
    Step::Seccomp,
    Step::Execute,
];

/// Everything that the first process does.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program's file.
    pub program: &'a CStr,
    /// Its arguments, the name included.
    pub argv: &'a [&'a CStr],
    /// Its environment.
    pub env: &'a [&'a CStr],
    /// Its working directory.
    pub cwd: &'a CStr,
    /// Its standard descriptors; each number is above 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether standard input is its controlling terminal.
    pub terminal: bool,
    /// Whether every other descriptor is closed; else all are inherited.
    pub close_others: bool,
    /// Written to `/proc/self/oom_score_adj`; empty for none.
    pub oom_score_adj: &'a [u8],
    /// Resource, soft and hard limit.
    pub rlimits: &'a [(u32, u64, u64)],
    /// User and group.
    pub user: (u32, u32),
    /// Whether all capability sets are emptied.
    pub drop_capabilities: bool,
    /// Whether the bounding set is empty already: ours is inherited.
    pub bounding_set_is_empty: bool,
    /// Whether no_new_privs is set.
    pub no_new_privs: bool,
    /// A Landlock ruleset to enter.
    pub landlock: Option<BorrowedFd<'a>>,
    /// A seccomp filter, and whether it has a listener.
    pub seccomp: Option<(&'a [u8], bool)>,
}

/// The process that executes.
#[derive(Debug)]
pub struct Started {
    /// Its number in our pid namespace (of its own in the namespace it was made in).
    pub child: Child,
    /// The listener of its filter.
    pub listener: Option<OwnedFd>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// What was being done.
    pub step: Step,
    /// The kernel's reason.
    pub errno: Errno,
}

struct Args<'a> {
    start: &'a Start<'a>,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    filter: seccomp::Program<'a>,
    step: AtomicU8,
    errno: AtomicI32,
    listener: AtomicI32,
}

/// Makes the process and returns when it executes.
///
/// # Errors
/// [`Failed`] says at which step; there is no process then.
pub fn start(start: &Start<'_>) -> Result<Started, Failed> {
    let early = |errno| Failed { step: Step::Session, errno };
    let pointers = |strings: &[&CStr]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(start.argv), pointers(start.env));
    let filter = seccomp::Program::new(start.seccomp.map_or(&[][..], |(bytes, _)| bytes))
        .map_err(|errno| Failed { step: Step::Seccomp, errno })?;
    let mut args = Args {
        start,
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        filter,
        step: AtomicU8::new(0),
        errno: AtomicI32::new(0),
        listener: AtomicI32::new(-1),
    };
    let stack = Stack::new().map_err(early)?;
    let child = {
        let _blocked = SignalsBlocked::new();
        let arg = std::ptr::from_mut(&mut args).cast();
        // SAFETY: `run` keeps to system calls and takes `Args`; VFORK keeps us here until it executes or ends.
        unsafe { clone::into(flags::VFORK | flags::FILES, None, &stack, run, arg) }.map_err(early)?
    };
    let listener = match args.listener.load(Ordering::Relaxed) {
        -1 => None,
        fd => Some(crate::raw::owned(usize::try_from(fd).unwrap_or(usize::MAX)).map_err(early)?),
    };
    match args.errno.load(Ordering::Relaxed) {
        0 => Ok(Started { child, listener }),
        errno => {
            use rustix::process::{WaitId, WaitIdOptions, waitid};
            use std::os::fd::AsFd;
            waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).map_err(early)?;
            let step = STEPS.get(usize::from(args.step.load(Ordering::Relaxed))).copied();
            Err(Failed { step: step.unwrap_or(Step::None), errno: Errno::from_raw_os_error(errno) })
        }
    }
}

unsafe extern "C" fn run(arg: *mut libc::c_void) -> ! {
    // SAFETY: `start` passes its `Args`, which it keeps until we execute or end.
    let args = unsafe { &*arg.cast::<Args<'_>>() };
    if let Err(errno) = steps(args) {
        args.errno.store(errno.raw_os_error(), Ordering::Relaxed);
    }
    exit_now(127)
}

fn steps(args: &Args<'_>) -> Result<(), Errno> {
    let start = args.start;
    let at = |step: Step| args.step.store(step as u8, Ordering::Relaxed);
    at(Step::Session);
    session(start)?;
    if !start.oom_score_adj.is_empty() {
        at(Step::OomScore);
        set_oom_score(start.oom_score_adj)?;
    }
    at(Step::Rlimits);
    for &(resource, soft, hard) in start.rlimits {
        set_rlimit(resource, soft, hard)?;
    }
    if start.drop_capabilities && !start.bounding_set_is_empty {
        at(Step::Capabilities);
        empty_bounding_set()?;
    }
    at(Step::User);
    let (uid, gid) = start.user;
    call!(libc::SYS_setgroups, 0, 0)?;
    call!(libc::SYS_setresgid, gid, gid, gid)?;
    call!(libc::SYS_setresuid, uid, uid, uid)?;
    if start.drop_capabilities {
        at(Step::Capabilities);
        empty_capabilities()?;
    }
    at(Step::Directory);
    call!(libc::SYS_chdir, start.cwd.as_ptr())?;
    at(Step::NoNewPrivs);
    if start.no_new_privs {
        call!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
    }
    at(Step::Landlock);
    if let Some(ruleset) = start.landlock {
        call!(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0)?;
    }
    at(Step::Session);
    unblock_signals()?;
    at(Step::Seccomp);
    if let Some((_, listener)) = start.seccomp {
        let fd = args.filter.load(listener)?;
        args.listener.store(fd, Ordering::Relaxed);
    }
    at(Step::Execute);
    call!(libc::SYS_execve, start.program.as_ptr(), args.argv, args.envp)?;
    Err(Errno::NOEXEC)
}

fn session(start: &Start<'_>) -> Result<(), Errno> {
    call!(libc::SYS_setsid)?;
    for (number, fd) in (0..).zip(start.stdio) {
        call!(libc::SYS_dup3, fd.as_raw_fd(), number, 0)?;
    }
    if start.terminal {
        call!(libc::SYS_ioctl, 0, libc::TIOCSCTTY, 0)?;
    }
    if start.close_others {
        call!(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
    } else {
        for fd in 3..64 {
            // A number that is not open is no concern.
            let _ = call!(libc::SYS_fcntl, fd, libc::F_SETFD, 0);
        }
    }
    Ok(())
}

/// The files of a process that is not dumpable belong to the host's root, so it is made dumpable for the
/// moment. Nobody could use it: only processes of the agent's user are around, and we are still root here.
fn set_oom_score(value: &[u8]) -> Result<(), Errno> {
    call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)?;
    let path = c"/proc/self/oom_score_adj".as_ptr();
    let opened = call!(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_WRONLY | libc::O_CLOEXEC);
    let written = opened.and_then(|fd| {
        let written = call!(libc::SYS_write, fd, value.as_ptr(), value.len());
        call!(libc::SYS_close, fd)?;
        written
    });
    call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0)?;
    written.map(drop)
}

/// Sets a limit, within the hard limit that we have: nobody here may raise it.
fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let mut now = [0u64; 2];
    let none = std::ptr::null::<u64>();
    call!(libc::SYS_prlimit64, 0, resource, none, now.as_mut_ptr())?;
    let hard = hard.min(now[1]);
    let new = [soft.min(hard), hard];
    call!(libc::SYS_prlimit64, 0, resource, new.as_ptr(), std::ptr::null_mut::<u64>()).map(drop)
}

fn empty_bounding_set() -> Result<(), Errno> {
    for cap in 0..64 {
        match call!(libc::SYS_prctl, libc::PR_CAPBSET_DROP, cap, 0, 0, 0) {
            Ok(_) => {}
            // Past the last capability of this kernel.
            Err(Errno::INVAL) if cap > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn empty_capabilities() -> Result<(), Errno> {
    call!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)?;
    let header = [CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    call!(libc::SYS_capset, header.as_ptr(), none.as_ptr()).map(drop)
}

fn unblock_signals() -> Result<(), Errno> {
    let none = 0u64;
    call!(
        libc::SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        std::ptr::from_ref(&none),
        std::ptr::null_mut::<u64>(),
        size_of::<u64>()
    )
    .map(drop)
}
