//! User namespaces that exist for their id maps alone: an idmapped mount takes its map from one.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::clone::{self, Child, SignalsBlocked, Stack, flags};

/// A user namespace held by a child that does nothing. It ends when this is dropped; a descriptor of the
/// namespace, or a mount that uses it, keeps the namespace.
#[derive(Debug)]
pub struct Holder {
    child: Child,
    // Freed after the child has ended: fields are dropped after `drop` has run.
    _stack: HolderStack,
}

struct HolderStack(#[expect(dead_code, reason = "held for the child")] Stack);

impl std::fmt::Debug for HolderStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}

impl Holder {
    /// Makes the child and its namespace. The maps are still empty.
    ///
    /// # Errors
    /// As clone3 says.
    pub fn new() -> Result<Self, Errno> {
        let stack = Stack::new()?;
        let _blocked = SignalsBlocked::new();
        // SAFETY: `wait_forever` touches no memory but its stack, which lives until the child has ended.
        let child = unsafe { clone::into(flags::NEWUSER, None, &stack, wait_forever, std::ptr::null_mut())? };
        Ok(Self { child, _stack: HolderStack(stack) })
    }

    /// The child's number, for `/proc/PID/uid_map`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// The child's pidfd.
    #[must_use]
    pub fn pidfd(&self) -> &OwnedFd {
        &self.child.pidfd
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let killed = pidfd_send_signal(&self.child.pidfd, Signal::KILL);
        let gone =
            killed.and_then(|()| waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED));
        if gone.is_err() {
            // It may still stand on its stack, which must not be given to anybody else.
            if let Ok(spare) = Stack::new() {
                std::mem::forget(std::mem::replace(&mut self._stack, HolderStack(spare)));
            }
        }
    }
}

unsafe extern "C" fn wait_forever(_: *mut libc::c_void) -> ! {
    loop {
        // SAFETY: waits for a signal; all but SIGKILL are blocked.
        unsafe { libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0) };
    }
}
