//! Parts of `/proc` that no agent needs: read-only, or hidden.
//!
//! An agent is not root, not even of its own namespace, so most of this could not be written anyway; it is
//! there for the day when that fails. The lists follow the OCI runtimes'.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aion_sys::mount::{attr, restrict};
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};

use crate::mountpoint::copy_tree;

const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];
const HIDDEN_FILES: &[&str] =
    &["interrupts", "kcore", "keys", "kmsg", "latency_stats", "sched_debug", "timer_list", "timer_stats"];
const HIDDEN_FOLDERS: &[&str] = &["acpi", "asound", "scsi"];

/// Covers what is there. `null` is a device node that is a mount's root, `empty` a folder with nothing in it. Nobody
/// else can make a file in `/proc`, so its paths are what they say.
pub(crate) fn apply(proc: BorrowedFd<'_>, null: BorrowedFd<'_>, empty: BorrowedFd<'_>) -> Result<(), Errno> {
    let put = |mount: OwnedFd, name: &str| {
        move_mount(mount.as_fd(), "", proc, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    for name in READ_ONLY {
        let mount = match copy_tree(proc, name, false) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        restrict(mount.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, false)?;
        put(mount, name)?;
    }
    for (names, cover) in [(HIDDEN_FILES, null), (HIDDEN_FOLDERS, empty)] {
        for name in names {
            match accessat(proc, *name, Access::EXISTS, AtFlags::empty()) {
                Err(Errno::NOENT) => continue,
                other => other?,
            }
            put(copy_tree(cover, "", false)?, name)?;
        }
    }
    Ok(())
}
