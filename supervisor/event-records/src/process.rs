//! The life of processes.

use aion_probe_types::{Credentials, Exec, Exit, Fork, Oom, PrivChange, PrivSource};
use serde_json::{Map, Value, json};

use crate::{Description, SyscallName, text};

pub(crate) fn fork(kind: &'static str, mut detail: Map<String, Value>, fork: &Fork) -> Description {
    detail.insert("child".to_owned(), fork.child.into());
    detail.insert("child_ns_pid".to_owned(), fork.child_ns_pid.into());
    detail.insert("child_start_ns".to_owned(), fork.child_start_ns.into());
    detail.insert("comm".to_owned(), text(fork.comm.as_bytes()));
    Description::new(kind, false, "", detail)
}

pub(crate) fn exec(kind: &'static str, mut detail: Map<String, Value>, exec: &Exec<'_>) -> Description {
    detail.insert("filename".to_owned(), text(exec.filename));
    detail.insert("argv".to_owned(), exec.args().map(text).collect());
    detail.insert("comm".to_owned(), text(exec.comm.as_bytes()));
    detail.insert("uid".to_owned(), exec.cred.uid.into());
    detail.insert("ns_pid".to_owned(), exec.ns_pid.into());
    detail.insert("start_ns".to_owned(), exec.start_ns.into());
    for (name, set) in [
        ("truncated", exec.truncated),
        ("unreadable", exec.unreadable),
        ("secure", exec.secure),
        ("stdin_socket", exec.origin.stdin_socket),
        ("stdout_socket", exec.origin.stdout_socket),
        ("deleted", exec.origin.unlinked && !exec.origin.memfd),
        ("memfd", exec.origin.memfd),
        ("writable", exec.origin.writable),
    ] {
        if set {
            detail.insert(name.to_owned(), true.into());
        }
    }
    Description::new(kind, false, "", detail)
}

pub(crate) fn exit(kind: &'static str, mut detail: Map<String, Value>, exit: &Exit) -> Description {
    detail.insert("code".to_owned(), exit.code.into());
    detail.insert("signal".to_owned(), exit.signal.into());
    detail.insert("comm".to_owned(), text(exit.comm.as_bytes()));
    detail.insert("start_ns".to_owned(), exit.start_ns.into());
    for (name, set) in [("core", exit.core), ("oom", exit.oom)] {
        if set {
            detail.insert(name.to_owned(), true.into());
        }
    }
    Description::new(kind, false, "", detail)
}

pub(crate) fn oom(kind: &'static str, mut detail: Map<String, Value>, oom: Oom) -> Description {
    detail.insert("victim".to_owned(), oom.victim.into());
    Description::new(kind, true, "limit: mem", detail)
}

pub(crate) fn privileges(
    kind: &'static str,
    mut detail: Map<String, Value>,
    change: &PrivChange,
    name: SyscallName<'_>,
) -> Description {
    let source = match change.source {
        PrivSource::Exec => "exec".to_owned(),
        PrivSource::Syscall(nr) => name(nr).unwrap_or_else(|| format!("system call {nr}")),
        PrivSource::SetUid => "setuid".to_owned(),
        PrivSource::CapSet => "capset".to_owned(),
    };
    detail.insert("source".to_owned(), source.into());
    detail.insert("comm".to_owned(), text(change.comm.as_bytes()));
    if change.old != change.new {
        detail.insert("old".to_owned(), credentials(&change.old));
    }
    detail.insert("new".to_owned(), credentials(&change.new));
    Description::new(kind, false, "", detail)
}

fn credentials(cred: &Credentials) -> Value {
    json!({
        "uid": cred.uid, "euid": cred.euid, "gid": cred.gid, "egid": cred.egid,
        "cap_effective": format!("{:#x}", cred.cap_effective),
    })
}
