//! The master of an agent's terminal: init keeps it, for the output; the launcher has a copy for input.

use std::os::fd::OwnedFd;

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::agent::Run;
use crate::lock::lock;

/// A copy of the master. A launcher that adopted the agent takes it from init.
pub(crate) fn master(run: &Run) -> Option<OwnedFd> {
    let mut kept = lock(&run.tty);
    if kept.is_none() {
        *kept = from_init(run);
    }
    kept.as_ref()?.try_clone().ok()
}

fn from_init(run: &Run) -> Option<OwnedFd> {
    let folder = format!("/proc/{}/fd", run.init_pid);
    let number = std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let is_master = target.file_name().is_some_and(|name| name == "ptmx");
        if is_master { entry.file_name().to_str()?.parse::<i32>().ok() } else { None }
    })?;
    pidfd_getfd(run.pidfd()?, number, PidfdGetfdFlags::empty()).ok()
}
