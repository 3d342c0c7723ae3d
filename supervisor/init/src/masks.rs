//! Parts of `/proc` that no agent needs: read-only, or hidden.
//!
//! An agent is not root, not even of its own namespace, so most of this could not be written anyway; it is
//! there for the day when that fails. The lists follow the OCI runtimes'.

use std::os::fd::{AsFd, BorrowedFd};

use aion_sys::mount::{attr, restrict};
use rustix::io::Errno;

use crate::mountpoint::{attach, copy_tree, open};

const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];
const HIDDEN_FILES: &[&str] =
    &["interrupts", "kcore", "keys", "kmsg", "latency_stats", "sched_debug", "timer_list", "timer_stats"];
const HIDDEN_FOLDERS: &[&str] = &["acpi", "asound", "scsi"];

/// Covers what is there. `null` is a device node that is a mount's root, `empty` a folder with nothing in it.
pub(crate) fn apply(proc: BorrowedFd<'_>, null: BorrowedFd<'_>, empty: BorrowedFd<'_>) -> Result<(), Errno> {
    for name in READ_ONLY {
        let Some(place) = place(proc, name)? else { continue };
        let mount = copy_tree(place.as_fd(), "", false)?;
        let set = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        restrict(mount.as_fd(), set, false)?;
        attach(mount.as_fd(), place.as_fd())?;
    }
    for (names, cover) in [(HIDDEN_FILES, null), (HIDDEN_FOLDERS, empty)] {
        for name in names {
            let Some(place) = place(proc, name)? else { continue };
            attach(copy_tree(cover, "", false)?.as_fd(), place.as_fd())?;
        }
    }
    Ok(())
}

fn place(proc: BorrowedFd<'_>, name: &str) -> Result<Option<std::os::fd::OwnedFd>, Errno> {
    match open(proc, name.as_bytes()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}
