//! All attempts, a file for each kind of way out.

mod devices;
mod exec;
mod exhaustion;
mod files;
mod identity;
mod ipc;
mod kernel;
mod machine;
mod mounts;
mod namespaces;
mod proc;
mod processes;
mod sockets;
mod terminal;

use std::process::ExitCode;

pub(crate) use exhaustion::is_starved;
pub(crate) use mounts::cgroup_of_control;

use crate::attempt::{Attempt, category};

pub(crate) fn all() -> Vec<Attempt> {
    [
        category("namespaces", namespaces::unshare_and_clone()),
        category("setns", namespaces::setns()),
        category("mounts", mounts::old()),
        category("new mount API", mounts::new()),
        category("cgroups", mounts::cgroups()),
        category("proc and sys", proc::writes()),
        category("kernel addresses", proc::reads()),
        category("init's proc", proc::init()),
        category("other processes", processes::all()),
        category("kernel programs", kernel::programs()),
        category("kernel code", kernel::code()),
        category("other architectures", kernel::architectures()),
        category("machine", machine::all()),
        category("sockets", sockets::families()),
        category("network", sockets::reach()),
        category("ipc and keys", ipc::all()),
        category("terminal", terminal::all()),
        category("devices", devices::all()),
        category("identity", identity::all()),
        category("host files", files::host()),
        category("inheritance", files::inherited()),
        category("workspace", files::workspace()),
        category("execution", exec::all()),
        category("exhaustion", exhaustion::all()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Programs that attempts execute: this one, under another first argument.
pub(crate) fn helper(args: &[String]) -> Option<ExitCode> {
    exec::helper(args)
}
