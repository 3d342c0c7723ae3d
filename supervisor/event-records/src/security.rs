//! System calls, files and hooks.

use aion_probe_types::{DeniedHook, FileOpen, Syscall};
use serde_json::{Map, Value};

use crate::{Description, SyscallName, errno, text};

pub(crate) fn open_write(
    kind: &'static str,
    mut detail: Map<String, Value>,
    open: &FileOpen<'_>,
) -> Description {
    detail.insert("path".to_owned(), text(open.path));
    detail.insert("flags".to_owned(), format!("{:#o}", open.flags).into());
    for (name, set) in [("as_written", open.raw), ("truncated", open.truncated)] {
        if set {
            detail.insert(name.to_owned(), true.into());
        }
    }
    if open.inode != 0 {
        detail.insert("inode".to_owned(), open.inode.into());
        detail.insert("dev".to_owned(), open.dev.into());
    }
    Description::new(kind, false, "", detail)
}

pub(crate) fn syscall(
    kind: &'static str,
    mut detail: Map<String, Value>,
    call: &Syscall,
    denied: bool,
    name: SyscallName<'_>,
) -> Description {
    call_name(&mut detail, call.nr, name);
    detail.insert("ret".to_owned(), call.ret.into());
    if let Ok(number @ 1..=4095) = u32::try_from(-i128::from(call.ret)) {
        detail.insert("errno".to_owned(), errno::name(number).into());
    }
    // Arguments may be pointers into the agent's memory: numbers only, as hexadecimal text, since JSON readers lose
    // the low bits of large numbers.
    detail.insert("args".to_owned(), call.args.iter().map(|arg| Value::from(format!("{arg:#x}"))).collect());
    Description::new(kind, denied, if denied { "kernel" } else { "" }, detail)
}

pub(crate) fn call_name(detail: &mut Map<String, Value>, nr: u32, name: SyscallName<'_>) {
    detail.insert("nr".to_owned(), nr.into());
    if let Some(name) = name(nr) {
        detail.insert("syscall".to_owned(), name.into());
    }
}

pub(crate) fn hook(kind: &'static str, mut detail: Map<String, Value>, denied: &DeniedHook) -> Description {
    detail.insert("hook".to_owned(), denied.hook.into());
    detail.insert("errno".to_owned(), errno::name(denied.errno).into());
    detail.insert("what".to_owned(), denied.detail.into());
    detail.insert("comm".to_owned(), text(denied.comm.as_bytes()));
    Description::new(kind, true, format!("lsm: {}", denied.hook), detail)
}
