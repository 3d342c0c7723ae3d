//! What the kernel told about an agent, as a record of the audit log: kind, verdict, rule and detail.
//!
//! Pure: an event in, a description out. Everything in an event is the agent's choice of bytes, so texts are made valid UTF-8
//! and kept short. Neighbours: `aion-probes` brings the events, `aion-launcher` adds agent and time and appends.

mod errno;
mod net;
mod process;
mod security;

use aion_audit::Detail;
use aion_probe_types::{Event, Kind};
use serde_json::{Map, Value};

/// A system call's name by its number, where it is known.
pub type SyscallName<'a> = &'a dyn Fn(u32) -> Option<String>;

/// One event in the words of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What happened, as `proc.exec`.
    pub kind: &'static str,
    /// `allowed` or `denied`.
    pub verdict: &'static str,
    /// What decided, as `network: none` or `lsm: file_open`; empty where nothing had to.
    pub rule: String,
    /// Everything else.
    pub detail: Value,
}

impl Description {
    fn new(kind: &'static str, denied: bool, rule: impl Into<String>, detail: Map<String, Value>) -> Self {
        let verdict = if denied { "denied" } else { "allowed" };
        Self { kind, verdict, rule: rule.into(), detail: Value::Object(detail) }
    }

    /// The detail as the log takes it.
    ///
    /// # Errors
    /// When it is longer than the log takes, which a probe's record cannot be.
    pub fn into_detail(self) -> aion_audit::Result<Detail> {
        Detail::from_value(&self.detail)
    }
}

/// Describes a record of the probes.
#[must_use]
pub fn describe(event: &Event<'_>, name: SyscallName<'_>) -> Description {
    let kind = event.kind.as_str();
    let mut detail = Map::new();
    detail.insert("pid".to_owned(), event.pid.into());
    if event.tid != event.pid {
        detail.insert("tid".to_owned(), event.tid.into());
    }
    if event.ppid != 0 {
        detail.insert("ppid".to_owned(), event.ppid.into());
    }
    match &event.kind {
        Kind::Fork(fork) => process::fork(kind, detail, fork),
        Kind::Exec(exec) => process::exec(kind, detail, exec),
        Kind::Exit(exit) => process::exit(kind, detail, exit),
        Kind::Oom(oom) => process::oom(kind, detail, *oom),
        Kind::PrivChange(change) => process::privileges(kind, detail, change, name),
        Kind::Net(net) => net::describe(kind, detail, net),
        Kind::OpenWrite(open) => security::open_write(kind, detail, open),
        Kind::Syscall(call) => security::syscall(kind, detail, call, false, name),
        Kind::SyscallDenied(call) => security::syscall(kind, detail, call, true, name),
        Kind::LsmDenied(denied) => security::hook(kind, detail, denied),
    }
}

/// Describes `count` calls of one system call that the agent's seccomp profile refused.
#[must_use]
pub fn describe_refused(nr: u32, pid: u32, count: u32, errno: i32, name: SyscallName<'_>) -> Description {
    let mut detail = Map::new();
    detail.insert("pid".to_owned(), pid.into());
    security::call_name(&mut detail, nr, name);
    detail.insert("count".to_owned(), count.into());
    detail.insert("errno".to_owned(), errno::name(errno.unsigned_abs()).into());
    Description::new("sys.denied", true, "seccomp", detail)
}

/// The agent's bytes as text.
fn text(bytes: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aion_probe_types::{DeniedHook, Exit, Oom, Syscall};

    fn names(nr: u32) -> Option<String> {
        (nr == 165).then(|| "mount".to_owned())
    }

    fn event(kind: Kind<'_>) -> Event<'_> {
        Event { cgroup_id: 1, time_ns: 2, pid: 10, tid: 11, ppid: 9, kind }
    }

    #[test]
    fn a_refused_call_is_named() {
        let told = describe_refused(165, 7, 3, 1, &names);
        assert_eq!((told.kind, told.verdict, told.rule.as_str()), ("sys.denied", "denied", "seccomp"));
        assert_eq!(told.detail["syscall"], "mount");
        assert_eq!(told.detail["errno"], "EPERM");
        assert_eq!(told.detail["count"], 3);
        assert!(describe_refused(9999, 7, 1, 38, &names).detail["syscall"].is_null());
    }

    #[test]
    fn verdict_and_rule_follow_the_event() {
        let denied = Syscall { nr: 165, ret: -1, args: [1, 2, 3, 4] };
        let told = describe(&event(Kind::SyscallDenied(denied)), &names);
        assert_eq!((told.kind, told.verdict), ("sys.denied", "denied"));
        assert_eq!(told.detail["errno"], "EPERM");
        assert_eq!(told.detail["tid"], 11);
        let oom = describe(&event(Kind::Oom(Oom { victim: 12 })), &names);
        assert_eq!(oom.detail["victim"], 12);
        assert!(oom.into_detail().is_ok());
    }

    #[test]
    fn hooks_are_named_in_the_rule() {
        let comm = aion_probe_types::Comm::from_bytes(b"evil\xff");
        let hook = DeniedHook { hook: "bpf", errno: 1, detail: 5, comm };
        let told = describe(&event(Kind::LsmDenied(hook)), &names);
        assert_eq!(told.rule, "lsm: bpf");
        assert_eq!(told.detail["comm"], "evil\u{fffd}");
        let exit = Exit { code: 0, signal: 9, core: false, oom: true, uid: 1, start_ns: 1, comm };
        let told = describe(&event(Kind::Exit(exit)), &names);
        assert_eq!(told.detail["signal"], 9);
        assert_eq!(told.detail["oom"], true);
    }
}
