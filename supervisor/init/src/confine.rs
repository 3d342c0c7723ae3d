//! Init gives up what it had for the set-up. It sits between the launcher and the agent for as long as the
//! agent lives: whoever took it over should gain nothing but the agent's own output.

use aion_sys::landlock::{self, Handled};
use aion_sys::seccomp;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use std::os::fd::AsFd;

use crate::filter;

/// Keeps only the capabilities in `keep`, and no file, new privilege or further system call.
pub(crate) fn ourselves(keep: CapabilitySet) -> Result<(), Errno> {
    for number in 0..64u32 {
        let Some(one) = CapabilitySet::from_bits(1 << number) else { continue };
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(e) => return Err(e),
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: none })?;
    aion_sys::park::hide_from_tracing()?;
    set_no_new_privs(true)?;
    let abi = landlock::abi();
    if abi > 0 {
        let all = Handled { fs: landlock::all_access(abi), ..Handled::default() };
        landlock::enter(landlock::create(&all, abi)?.as_fd())?;
    }
    seccomp::Program::new(&filter::program())?.load(false).map(drop)
}
