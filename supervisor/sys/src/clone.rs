//! clone3 in its two shapes: a child that shares our memory while we wait (like vfork, but on a stack of its
//! own), and a child that shares our memory and only waits to be killed.
//!
//! Sharing memory makes the cost independent of the parent's size. The child is a plain function of this
//! crate: system calls, no allocation, no lock, no return.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::raw;

/// Flags of clone3, `CLONE_*`.
pub mod flags {
    #![expect(missing_docs, reason = "the names are the kernel's")]
    pub const NEWTIME: u64 = 0x80;
    pub const VM: u64 = 0x100;
    pub const FILES: u64 = 0x400;
    pub const PIDFD: u64 = 0x1000;
    pub const VFORK: u64 = 0x4000;
    pub const PARENT: u64 = 0x8000;
    pub const THREAD: u64 = 0x1_0000;
    pub const NEWNS: u64 = 0x0002_0000;
    pub const NEWCGROUP: u64 = 0x0200_0000;
    pub const NEWUTS: u64 = 0x0400_0000;
    pub const NEWIPC: u64 = 0x0800_0000;
    pub const NEWUSER: u64 = 0x1000_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    pub const NEWNET: u64 = 0x4000_0000;
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub const INTO_CGROUP: u64 = 0x2_0000_0000;
}

/// `struct clone_args`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child that was made.
#[derive(Debug)]
pub struct Child {
    /// Its number in our pid namespace.
    pub pid: u32,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// What a child runs. It never returns.
pub(crate) type Entry = unsafe extern "C" fn(*mut libc::c_void) -> !;

const STACK: usize = 64 * 1024;

/// Memory for a child's stack, with an inaccessible page below.
pub(crate) struct Stack {
    base: *mut libc::c_void,
}

// SAFETY: the mapping belongs to this value alone; its address means the same in every thread.
unsafe impl Send for Stack {}

impl Stack {
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(raw::last());
        }
        let new = Self { base };
        // SAFETY: the first page of the mapping just made.
        if unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) } != 0 {
            return Err(raw::last());
        }
        Ok(new)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no child runs on it any more.
        unsafe { libc::munmap(self.base, STACK) };
    }
}

/// Makes a child that runs `entry(arg)` on `stack` in our memory.
///
/// # Safety
/// `entry` keeps to system calls, and `arg` is what it expects. Without `VFORK` both `stack` and what `arg`
/// points to must stay until the child has ended or executed.
pub(crate) unsafe fn into(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    stack: &Stack,
    entry: Entry,
    arg: *mut libc::c_void,
) -> Result<Child, Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | flags::VM | flags::PIDFD,
        pidfd: std::ptr::addr_of_mut!(pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: stack.base as u64,
        stack_size: STACK as u64,
        ..CloneArgs::default()
    };
    if let Some(group) = cgroup {
        args.flags |= flags::INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // SAFETY: passed on to our caller.
    let value = unsafe { clone3(&mut args, entry, arg) };
    let pid = raw::kernel(value)?;
    let pidfd = raw::owned(usize::try_from(pidfd).map_err(|_| Errno::BADF)?)?;
    Ok(Child { pid: u32::try_from(pid).map_err(|_| Errno::OVERFLOW)?, pidfd })
}

/// clone3; the child calls `entry(arg)` on the new stack and never comes back.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &mut CloneArgs, entry: Entry, arg: *mut libc::c_void) -> i64 {
    let mut value: i64 = libc::SYS_clone3;
    // SAFETY: the child starts on an empty, 16-byte aligned stack of its own with our registers; it takes
    // `entry` and `arg` from registers that the system call keeps, and leaves this function's frame alone.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") value,
            in("rdi") std::ptr::from_mut(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") arg,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    value
}

/// clone3; the child calls `entry(arg)` on the new stack and never comes back.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &mut CloneArgs, entry: Entry, arg: *mut libc::c_void) -> i64 {
    let mut value: i64 = std::ptr::from_mut(args) as i64;
    // SAFETY: as for x86_64.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") value,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x20") arg,
            in("x21") entry,
        );
    }
    value
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent(Child),
}

/// Forks a sibling: a copy of this process whose parent is our parent. `namespaces` are `CLONE_NEW*` flags. The copy
/// begins at once in `cgroup`.
///
/// # Errors
/// `INVAL` when this process has more than one thread: locks of the others would stay locked in the copy.
pub fn fork_sibling(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Errno> {
    // Without another effect, this fails in a process with several threads.
    crate::ns::unshare(flags::THREAD)?;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: namespaces | flags::PARENT | flags::PIDFD,
        pidfd: std::ptr::addr_of_mut!(pidfd) as u64,
        ..CloneArgs::default()
    };
    if args.flags & (flags::VM | flags::VFORK | flags::FILES | flags::THREAD) != 0 {
        return Err(Errno::INVAL);
    }
    if let Some(group) = cgroup {
        args.flags |= flags::INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().unsigned_abs());
    }
    // Without shared memory and without a stack of its own the copy goes on right here, as after fork.
    let size = size_of::<CloneArgs>();
    let value = raw::call!(libc::SYS_clone3, std::ptr::from_mut(&mut args), size)?;
    if value == 0 {
        return Ok(Fork::Child);
    }
    let pidfd = raw::owned(usize::try_from(pidfd).map_err(|_| Errno::BADF)?)?;
    Ok(Fork::Parent(Child { pid: u32::try_from(value).map_err(|_| Errno::OVERFLOW)?, pidfd }))
}

/// Blocks every signal in this thread until dropped, so that no handler runs in a child that shares memory.
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        // SAFETY: a signal set is plain bytes, for which zero is valid.
        let (mut all, mut before) = unsafe { std::mem::zeroed::<(libc::sigset_t, libc::sigset_t)>() };
        // SAFETY: a valid set to fill.
        unsafe { libc::sigfillset(&mut all) };
        // SAFETY: two valid sets.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) };
        Self { before }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set that pthread_sigmask filled.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}
