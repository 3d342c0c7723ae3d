//! Init gives up what it had for the set-up. It sits between the launcher and the agent for as long as the
//! agent lives: whoever took it over should gain nothing but the agent's own output.

use aion_sys::landlock::{self, Handled, access};
use aion_sys::seccomp;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::filter;

/// What is done in the folder of a task: reading, removing `.commit`, leaving a word in `.refused`.
const IN_TASK: u64 = access::READ_FILE
    | access::READ_DIR
    | access::WRITE_FILE
    | access::MAKE_REG
    | access::REMOVE_FILE
    | access::REMOVE_DIR;

/// Keeps only the capabilities in `keep`, and no file, new privilege or further system call. With the folder of a task, what
/// is needed for it is left.
pub(crate) fn ourselves(keep: CapabilitySet, task: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    empty_bounding_set()?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: none })?;
    aion_sys::park::hide_from_tracing()?;
    set_no_new_privs(true)?;
    let abi = landlock::abi();
    if abi > 0 {
        let all = Handled { fs: landlock::all_access(abi), ..Handled::default() };
        let rules = landlock::create(&all, abi)?;
        if let Some(folder) = task {
            landlock::allow(rules.as_fd(), IN_TASK & all.fs, folder)?;
        }
        landlock::enter(rules.as_fd())?;
    }
    seccomp::Program::new(&filter::program(task.is_some()))?.load(false).map(drop)
}

/// Whether this process has emptied its bounding set: what it makes inherits that.
static EMPTIED: AtomicBool = AtomicBool::new(false);

/// Empties the bounding set, once. It limits what an executed program may get, so nobody misses it who executes none.
pub(crate) fn empty_bounding_set() -> Result<(), Errno> {
    if bounding_set_is_empty() {
        return Ok(());
    }
    for number in 0..64u32 {
        let Some(one) = CapabilitySet::from_bits(1 << number) else { continue };
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(e) => return Err(e),
        }
    }
    EMPTIED.store(true, Ordering::Relaxed);
    Ok(())
}

pub(crate) fn bounding_set_is_empty() -> bool {
    EMPTIED.load(Ordering::Relaxed)
}
