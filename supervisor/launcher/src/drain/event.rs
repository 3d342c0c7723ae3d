//! A kernel record as a record of the audit log. Bytes that the agent chose become text, lossily.

use aion_probes::{Credentials, DeniedDevice, DeniedHook, Event, Kind, Origin, PrivSource, Verdict};
use serde_json::{Value, json};

use crate::audit::Entry;
use crate::denials::syscall_name;
use crate::launcher::Owner;
use crate::request::Device;
use crate::state::GivenDevice;

pub(crate) fn entry(event: &Event<'_>, owner: &Owner, wall_offset: u64) -> Entry {
    let (verdict, rule) = judge(&event.kind, owner);
    let mut detail = detail(&event.kind, owner);
    if let Value::Object(map) = &mut detail {
        map.insert("pid".to_owned(), event.pid.into());
        if event.tid != event.pid {
            map.insert("tid".to_owned(), event.tid.into());
        }
        if event.ppid != 0 {
            map.insert("ppid".to_owned(), event.ppid.into());
        }
    }
    Entry::new(event.kind.as_str(), verdict, &detail)
        .of(&owner.tenant, &owner.id)
        .at(event.time_ns.saturating_add(wall_offset))
        .rule(rule)
}

fn judge(kind: &Kind<'_>, owner: &Owner) -> (&'static str, String) {
    match kind {
        Kind::Net(net) if net.verdict == Verdict::Denied => {
            ("denied", net.limit.map_or_else(|| "network".to_owned(), |limit| limit.to_string()))
        }
        Kind::SyscallDenied(_) => ("denied", format!("seccomp:{}", owner.profile)),
        Kind::LsmDenied(hook) => {
            let rule = withheld(hook, owner)
                .map_or_else(|| format!("lsm:{}", hook.hook), |rule| format!("withheld:{rule}"));
            ("denied", rule)
        }
        Kind::DeviceDenied(denied) => ("denied", device_rule(denied, owner)),
        Kind::Oom(_) => ("denied", "limits.mem_bytes".to_owned()),
        _ => ("allowed", String::new()),
    }
}

/// The rule of the agent's launch that was taken from it.
fn withheld<'a>(hook: &DeniedHook, owner: &'a Owner) -> Option<&'a str> {
    if !hook.is_of_withheld() {
        return None;
    }
    // 0: how deep a file may lie to be told apart from what is withheld.
    let Some(at) = hook.detail.checked_sub(1) else { return Some("depth") };
    let known = usize::try_from(at).ok().and_then(|at| owner.files.get(at));
    Some(known.map_or("?", String::as_str))
}

/// The device that the agent was given with this number.
fn device<'a>(denied: &DeniedDevice, owner: &'a Owner) -> Option<&'a GivenDevice> {
    let mut given = owner.devices.iter().filter(|_| !denied.block);
    given.find(|device| (device.major, device.minor) == (denied.major, denied.minor))
}

/// The rule of the agent's launch that was taken from it: it was given what it asked for.
fn withheld_device(denied: &DeniedDevice, owner: &Owner) -> Option<String> {
    let device = device(denied, owner).filter(|_| !denied.mknod)?;
    match (denied.write, device.writable) {
        (false, _) => Some(Device::read_rule(&device.path)),
        (true, true) => Some(Device::write_rule(&device.path)),
        (true, false) => None,
    }
}

/// The rule that refused, or the one that would have allowed.
fn device_rule(denied: &DeniedDevice, owner: &Owner) -> String {
    match (withheld_device(denied, owner), device(denied, owner)) {
        (Some(rule), _) => format!("withheld:{rule}"),
        (None, Some(device)) if !denied.mknod => Device::write_rule(&device.path),
        _ => "devices".to_owned(),
    }
}

fn detail(kind: &Kind<'_>, owner: &Owner) -> Value {
    match kind {
        Kind::Fork(fork) => json!({
            "child": fork.child, "child_inside": fork.child_ns_pid, "comm": text(fork.comm.as_bytes()),
        }),
        Kind::Exec(exec) => {
            let mut detail = json!({
                "file": text(exec.filename),
                "argv": exec.args().map(text).collect::<Vec<_>>(),
                "truncated": exec.truncated || exec.unreadable,
                "secure": exec.secure,
                "pid_inside": exec.ns_pid,
                "uid": exec.cred.uid,
                "comm": text(exec.comm.as_bytes()),
            });
            for (name, set) in origin(&exec.origin).into_iter().filter(|(_, set)| *set) {
                detail[name] = json!(set);
            }
            detail
        }
        Kind::Exit(exit) => json!({
            "code": exit.code, "signal": exit.signal, "oom": exit.oom, "comm": text(exit.comm.as_bytes()),
        }),
        Kind::Net(net) => {
            let mut detail = json!({
                "addr": net.addr.ip().to_string(), "port": net.addr.port(), "protocol": net.protocol,
                "comm": text(net.comm.as_bytes()),
            });
            if let Some(limit) = net.limit {
                detail["limit"] = json!(limit.kind.as_str());
            }
            detail
        }
        Kind::Oom(oom) => json!({ "victim": oom.victim }),
        Kind::PrivChange(change) => json!({
            "source": match change.source {
                PrivSource::Exec => "exec".to_owned(),
                PrivSource::SetUid => "setuid".to_owned(),
                PrivSource::CapSet => "capset".to_owned(),
                PrivSource::Syscall(nr) => syscall_name(nr),
            },
            "old": credentials(&change.old), "new": credentials(&change.new), "comm": text(change.comm.as_bytes()),
        }),
        Kind::OpenWrite(open) => json!({
            "path": text(open.path), "raw": open.raw, "truncated": open.truncated, "inode": open.inode,
            "dev": open.dev, "flags": open.flags,
        }),
        Kind::Syscall(call) | Kind::SyscallDenied(call) => json!({
            "nr": call.nr, "syscall": syscall_name(call.nr), "ret": call.ret, "args": call.args,
        }),
        Kind::LsmDenied(hook) => {
            let mut detail = json!({
                "hook": hook.hook, "errno": hook.errno, "detail": hook.detail, "comm": text(hook.comm.as_bytes()),
            });
            if let Some(rule) = withheld(hook, owner) {
                detail["withheld"] = rule.into();
            }
            detail
        }
        Kind::DeviceDenied(denied) => {
            let mut detail = json!({
                "major": denied.major, "minor": denied.minor, "block": denied.block, "access": access(denied),
                "comm": text(denied.comm.as_bytes()),
            });
            if let Some(device) = device(denied, owner) {
                detail["device"] = device.path.as_str().into();
            }
            if let Some(rule) = withheld_device(denied, owner) {
                detail["withheld"] = rule.into();
            }
            detail
        }
    }
}

/// What was to be done with a device.
fn access(denied: &DeniedDevice) -> &'static str {
    match (denied.mknod, denied.read, denied.write) {
        (true, _, _) => "mknod",
        (_, _, false) => "read",
        (_, false, true) => "write",
        (_, true, true) => "read and write",
    }
}

/// What is told of where a program came from when it is so. Memory has no name either; it is told apart.
fn origin(origin: &Origin) -> [(&'static str, bool); 5] {
    [
        ("stdin_socket", origin.stdin_socket),
        ("stdout_socket", origin.stdout_socket),
        ("deleted", origin.unlinked && !origin.memfd),
        ("memfd", origin.memfd),
        ("writable", origin.writable),
    ]
}

fn credentials(cred: &Credentials) -> Value {
    json!({ "uid": cred.uid, "euid": cred.euid, "gid": cred.gid, "egid": cred.egid, "cap_effective": cred.cap_effective })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aion_detect::{FieldType, KindId};
    use aion_probes::{Comm, Exec, Exit, FileOpen, Fork, Net, NetOp, Oom, PrivChange, Syscall};
    use serde_json::Map;

    use super::*;

    fn owner() -> Owner {
        Owner {
            id: "a".to_owned(),
            tenant: "default".to_owned(),
            profile: "p".to_owned(),
            files: vec!["fs:read:/srv".to_owned(), "exec:/usr/bin/git".to_owned()],
            devices: vec![
                GivenDevice { path: "/dev/fuse".to_owned(), major: 10, minor: 229, writable: true },
                GivenDevice { path: "/dev/kvm".to_owned(), major: 10, minor: 232, writable: false },
            ],
        }
    }

    fn denied_device(minor: u32, write: bool) -> DeniedDevice {
        let comm = Comm::from_bytes(b"x");
        DeniedDevice { major: 10, minor, block: false, read: true, write, mknod: false, comm }
    }

    /// One of each kind; of programs two, as one that is memory is not told as deleted.
    fn all_kinds() -> Vec<Kind<'static>> {
        let comm = Comm::from_bytes(b"x");
        let cred = Credentials { uid: 1, euid: 1, gid: 1, egid: 1, cap_effective: 1 };
        let exec = |memfd| {
            let origin =
                Origin { stdin_socket: true, stdout_socket: true, unlinked: true, memfd, writable: true };
            Kind::Exec(Exec {
                filename: b"/bin/x",
                argv: b"x\0y\0",
                truncated: true,
                unreadable: false,
                secure: true,
                origin,
                cred,
                start_ns: 1,
                ns_pid: 1,
                comm,
            })
        };
        let net = |op| {
            let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 80));
            Kind::Net(Net { op, addr, protocol: 6, verdict: Verdict::Allowed, limit: None, comm })
        };
        let open = FileOpen { path: b"/x", raw: false, truncated: false, inode: 1, dev: 1, flags: 1 };
        vec![
            Kind::Fork(Fork { child: 2, child_ns_pid: 2, child_start_ns: 1, comm }),
            exec(true),
            exec(false),
            Kind::Exit(Exit { code: 0, signal: 9, core: false, oom: true, uid: 1, start_ns: 1, comm }),
            net(NetOp::Connect),
            net(NetOp::Bind),
            net(NetOp::Send),
            Kind::Oom(Oom { victim: 2 }),
            Kind::PrivChange(PrivChange { source: PrivSource::Exec, old: cred, new: cred, comm }),
            Kind::OpenWrite(open),
            Kind::SyscallDenied(Syscall { nr: 1, ret: -1, args: [0; 4] }),
            Kind::LsmDenied(DeniedHook { hook: "file_open", errno: 13, detail: 1, comm }),
            Kind::DeviceDenied(denied_device(229, true)),
        ]
    }

    #[test]
    fn what_rules_may_name_is_what_is_written() {
        let mut written: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for kind in all_kinds() {
            let event = Event { cgroup_id: 1, time_ns: 1, pid: 1, tid: 2, ppid: 3, kind };
            let told: Value = serde_json::from_str(entry(&event, &owner(), 0).detail.as_str()).unwrap();
            written.entry(kind.as_str()).or_default().extend(told.as_object().unwrap().clone());
        }
        assert_eq!(written.len(), 12);
        for (kind, detail) in written {
            // Of every event, and what the engine makes of an address.
            let own = aion_detect::fields_of(KindId::parse(kind).unwrap())
                .filter(|(field, _)| !["verdict", "times", "loopback"].contains(field));
            for (field, expected) in own {
                let value = detail.get(field);
                let fits = value.is_some_and(|value| match expected {
                    FieldType::Text => value.is_string() || value.is_array(),
                    FieldType::Number => value.is_u64() || value.is_i64(),
                    FieldType::Flag => value.is_boolean(),
                });
                assert!(fits, "{kind} {field}: {value:?} is no {expected:?}");
            }
        }
    }

    #[test]
    fn a_device_is_told_by_what_was_given_of_it() {
        let owner = owner();
        let of = |denied: DeniedDevice| {
            let told = self::detail(&Kind::DeviceDenied(denied), &owner);
            (judge(&Kind::DeviceDenied(denied), &owner).1, told["device"].clone(), told["access"].clone())
        };
        let told = |rule: &str, device: Value, access: &str| (rule.to_owned(), device, json!(access));
        let both = "read and write";
        let fuse = json!("/dev/fuse");
        assert_eq!(of(denied_device(229, true)), told("withheld:device:write:/dev/fuse", fuse.clone(), both));
        assert_eq!(
            of(denied_device(229, false)),
            told("withheld:device:read:/dev/fuse", fuse.clone(), "read")
        );
        assert_eq!(of(denied_device(232, true)), told("device:write:/dev/kvm", json!("/dev/kvm"), both));
        assert_eq!(of(denied_device(200, false)), told("devices", Value::Null, "read"));
        let made = DeniedDevice { mknod: true, read: false, ..denied_device(229, false) };
        assert_eq!(of(made), told("devices", fuse, "mknod"));
        let disk = DeniedDevice { block: true, ..denied_device(229, true) };
        assert_eq!(of(disk), told("devices", Value::Null, both));
    }

    #[test]
    fn a_withheld_file_is_told_by_its_rule() {
        let owner = owner();
        let of = |hook, detail| {
            let denied = DeniedHook { hook, errno: 13, detail, comm: Comm::from_bytes(b"x") };
            let told = self::detail(&Kind::LsmDenied(denied), &owner);
            (judge(&Kind::LsmDenied(denied), &owner).1, told["withheld"].clone())
        };
        assert_eq!(of("file_open", 1), ("withheld:fs:read:/srv".to_owned(), json!("fs:read:/srv")));
        assert_eq!(of("bprm_check_security", 2).0, "withheld:exec:/usr/bin/git");
        assert_eq!(of("path_rename", 0).0, "withheld:depth");
        assert_eq!(of("path_rename", 9).0, "withheld:?");
        assert_eq!(of("bpf", 1), ("lsm:bpf".to_owned(), Value::Null));
    }
}
