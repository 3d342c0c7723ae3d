//! Programs in memory files (memfd): a path rule cannot see them, so they are forbidden as such.
//!
//! `vm.memfd_noexec` belongs to the pid namespace of whoever writes it, and only root of the host may. So a child writes it that is in
//! the namespace for the moment; it shares our memory, makes one system call and ends.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::clone::{self, SignalsBlocked, Stack, flags};
use crate::ns;
use crate::park::exit_now;
use crate::raw::call;

/// Linux 6.3 and later.
const SYSCTL: &str = "/proc/sys/vm/memfd_noexec";
/// No memory file is executable, and none can be asked for.
const ENFORCED: &[u8] = b"2";

/// A pid namespace.
#[derive(Debug, Clone, Copy)]
pub enum Namespace<'a> {
    /// One made for this alone: shows whether the kernel lets us.
    New,
    /// That of a process, by its pidfd.
    Of(BorrowedFd<'a>),
}

/// Forbids executable memory files in a pid namespace, for good.
///
/// # Errors
/// `NOENT` where the kernel cannot (before 6.3); `ROFS` where `/proc/sys` is read-only.
pub fn forbid_executable(namespace: Namespace<'_>) -> Result<(), Errno> {
    let file = rustix::fs::open(SYSCTL, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Whoever enters a pid namespace makes all further children there: a thread that ends.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("memfd".to_owned());
        let thread = thread
            .spawn_scoped(scope, || write_inside(namespace, &file))
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
        thread.join().unwrap_or(Err(Errno::CANCELED))
    })
}

struct Args {
    file: i32,
    errno: AtomicI32,
}

fn write_inside(namespace: Namespace<'_>, file: &OwnedFd) -> Result<(), Errno> {
    let mut new = 0;
    match namespace {
        Namespace::New => new = flags::NEWPID,
        Namespace::Of(pidfd) => ns::enter(pidfd, flags::NEWPID)?,
    }
    let mut args = Args { file: file.as_raw_fd(), errno: AtomicI32::new(0) };
    let stack = Stack::new()?;
    let child = {
        let _blocked = SignalsBlocked::new();
        let arg = std::ptr::from_mut(&mut args).cast();
        // SAFETY: `write` keeps to system calls and takes `Args`; VFORK keeps us here until it ends.
        unsafe { clone::into(new | flags::VFORK, None, &stack, write, arg)? }
    };
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    match args.errno.load(Ordering::Relaxed) {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

unsafe extern "C" fn write(arg: *mut libc::c_void) -> ! {
    // SAFETY: `write_inside` passes its `Args`, which it keeps until we end.
    let args = unsafe { &*arg.cast::<Args>() };
    if let Err(errno) = call!(libc::SYS_write, args.file, ENFORCED.as_ptr(), ENFORCED.len()) {
        args.errno.store(errno.raw_os_error(), Ordering::Relaxed);
    }
    exit_now(0)
}

/// The number of the system call that makes a memory file.
#[must_use]
pub fn create_number() -> u32 {
    u32::try_from(libc::SYS_memfd_create).unwrap_or(u32::MAX)
}

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// What goes in front of a filter (`struct sock_filter` after `struct sock_filter`) to refuse memory files altogether, for
/// kernels that cannot forbid their execution: by its listener when it has one, else with EPERM.
#[must_use]
pub fn denial(listener: bool) -> Vec<u8> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NOTIFY: u32 = 0x7fc0_0000;
    const ERRNO: u32 = 0x0005_0000;
    let refusal = if listener { NOTIFY } else { ERRNO | libc::EPERM.unsigned_abs() };
    // Jumps go to the first instruction after these.
    let program: [(u16, u8, u8, u32); 5] = [
        (LOAD_WORD, 0, 0, 4),
        (JUMP_EQUAL, 0, 3, ARCH),
        (LOAD_WORD, 0, 0, 0),
        (JUMP_EQUAL, 0, 1, create_number()),
        (RETURN, 0, 0, refusal),
    ];
    let mut out = Vec::with_capacity(program.len() * 8);
    for (code, on_true, on_false, value) in program {
        out.extend_from_slice(&code.to_ne_bytes());
        out.extend_from_slice(&[on_true, on_false]);
        out.extend_from_slice(&value.to_ne_bytes());
    }
    out
}
