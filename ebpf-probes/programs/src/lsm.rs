//! BPF LSM: refuses in the kernel what no agent may do, whatever seccomp let through, and records opens for
//! writing and changes of privileges.
//!
//! The sandbox is set up from inside the agent's cgroup, with mounts and namespaces; so refusals begin with
//! `Found::settled`. Bystanders pay one failed look-up at hooks that are rarely called.

use aion_probe_types::layout::{Cred, FileRecord, LsmRecord, PATH_MAX, PrivRecord, head_flag, hook, kind};
use aya_ebpf::{macros::lsm, programs::LsmContext};

use crate::agent::{self, Found, count};
use crate::emit::{self, Hold, Urgency};
use crate::shim::{self, File, KernelCred, Task};
use crate::withheld;

const EPERM: i32 = 1;
const EAGAIN: i32 = 11;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

/// Refuses, with a record.
#[inline(always)]
pub fn refuse(ctx: &LsmContext, who: &Found, hook: u32, errno: i32, detail: u64) -> i32 {
    if who.records() {
        count!(who, denied);
        let now = emit::now();
        let comm = emit::comm(ctx);
        emit::emit::<LsmRecord>(who, now, Hold::Stop, Urgency::Violation, |to| {
            // SAFETY: `to` is a reserved record.
            unsafe {
                (*to).head = emit::head(who, now, kind::LSM_DENIED, head_flag::DENIED, emit::ppid());
                (*to).hook = hook;
                (*to).errno = errno as u32;
                (*to).detail = detail;
                (*to).comm = comm;
            }
        });
    }
    -errno
}

/// Refuses an agent whose set-up is over.
#[inline(always)]
fn never(ctx: &LsmContext, hook: u32, detail: u64) -> i32 {
    match agent::current() {
        Some(who) if who.settled() => refuse(ctx, &who, hook, EPERM, detail),
        _ => 0,
    }
}

macro_rules! never {
    ($($name:ident, $at:literal, $hook:ident, $arg:expr;)*) => {
        $(
            #[lsm(hook = $at)]
            pub fn $name(ctx: LsmContext) -> i32 {
                let detail: fn(&LsmContext) -> u64 = $arg;
                never(&ctx, hook::$hook, detail(&ctx))
            }
        )*
    };
}

#[inline(always)]
fn none(_: &LsmContext) -> u64 {
    0
}

never! {
    lsm_bpf, "bpf", BPF, |ctx| u64::from(ctx.arg::<u32>(0));
    lsm_sb_mount, "sb_mount", SB_MOUNT, |ctx| ctx.arg(3);
    lsm_move_mount, "move_mount", MOVE_MOUNT, none;
    lsm_sb_umount, "sb_umount", SB_UMOUNT, |ctx| u64::from(ctx.arg::<u32>(1));
    lsm_sb_pivotroot, "sb_pivotroot", SB_PIVOTROOT, none;
    lsm_sb_remount, "sb_remount", SB_REMOUNT, none;
    lsm_kernel_module_request, "kernel_module_request", KERNEL_MODULE_REQUEST, none;
    lsm_kernel_read_file, "kernel_read_file", KERNEL_READ_FILE, |ctx| u64::from(ctx.arg::<u32>(1));
    lsm_kernel_load_data, "kernel_load_data", KERNEL_LOAD_DATA, |ctx| u64::from(ctx.arg::<u32>(0));
    lsm_userns_create, "userns_create", USERNS_CREATE, none;
    lsm_perf_event_open, "perf_event_open", PERF_EVENT_OPEN, none;
    lsm_settime, "settime", SETTIME, none;
    lsm_syslog, "syslog", SYSLOG, |ctx| u64::from(ctx.arg::<u32>(0));
    lsm_uring_override_creds, "uring_override_creds", URING_OVERRIDE_CREDS, none;
    lsm_uring_sqpoll, "uring_sqpoll", URING_SQPOLL, none;
}

/// Device nodes; other kinds of files may be made.
#[lsm(hook = "inode_mknod")]
pub fn lsm_inode_mknod(ctx: LsmContext) -> i32 {
    let mode: u32 = ctx.arg(2);
    let kind = mode & S_IFMT;
    if kind != S_IFCHR && kind != S_IFBLK {
        return 0;
    }
    never(&ctx, hook::INODE_MKNOD, u64::from(ctx.arg::<u32>(3)))
}

/// What an agent does to processes, it does to its own.
#[inline(always)]
fn only_own(ctx: &LsmContext, target: *const Task, hook: u32) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    // SAFETY: a trusted pointer of the hook; the verifier checks each read.
    let (cgroup, tgid) = unsafe { (shim::shim_task_cgroup(target), shim::shim_task_tgid(target)) };
    if cgroup == who.cgroup || !who.settled() {
        return 0;
    }
    refuse(ctx, &who, hook, EPERM, u64::from(tgid))
}

/// Reading or controlling another process.
#[lsm(hook = "ptrace_access_check")]
pub fn lsm_ptrace_access_check(ctx: LsmContext) -> i32 {
    only_own(&ctx, ctx.arg(0), hook::PTRACE_ACCESS_CHECK)
}

/// Signals.
#[lsm(hook = "task_kill")]
pub fn lsm_task_kill(ctx: LsmContext) -> i32 {
    only_own(&ctx, ctx.arg(0), hook::TASK_KILL)
}

#[inline(always)]
fn changed(ctx: &LsmContext, new: *const KernelCred, old: *const KernelCred, source: u32) {
    let Some(who) = agent::current() else { return };
    if !who.settled() || !who.records() {
        return;
    }
    let mut before = Cred { uid: 0, euid: 0, gid: 0, egid: 0, cap_effective: 0 };
    let mut after = before;
    // SAFETY: trusted pointers of the hook; the verifier checks each read.
    unsafe {
        shim::shim_cred(old, &raw mut before);
        shim::shim_cred(new, &raw mut after);
    }
    if before.uid == after.uid && before.euid == after.euid && before.cap_effective == after.cap_effective {
        return;
    }
    let now = emit::now();
    let comm = emit::comm(ctx);
    emit::emit::<PrivRecord>(&who, now, Hold::Stop, Urgency::Timed, |to| {
        // SAFETY: `to` is a reserved record.
        unsafe {
            (*to).head = emit::head(&who, now, kind::PRIV, 0, emit::ppid());
            (*to).source = source;
            (*to).nr = 0;
            (*to).old = before;
            (*to).new = after;
            (*to).comm = comm;
        }
    });
}

/// setuid and its kin: recorded.
#[lsm(hook = "task_fix_setuid")]
pub fn lsm_task_fix_setuid(ctx: LsmContext) -> i32 {
    changed(&ctx, ctx.arg(0), ctx.arg(1), 3);
    0
}

/// capset: recorded.
#[lsm(hook = "capset")]
pub fn lsm_capset(ctx: LsmContext) -> i32 {
    changed(&ctx, ctx.arg(0), ctx.arg(1), 4);
    0
}

/// Programs that are withheld are not started; a strict agent starts none while there is no room for the record.
#[lsm(hook = "bprm_check_security")]
pub fn lsm_bprm_check_security(ctx: LsmContext) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    let refused = withheld::executes(&ctx, &who, ctx.arg(0));
    if refused != 0 {
        return refused;
    }
    if who.strict() && who.records() && emit::full(&who) {
        count!(who, denied);
        return -EAGAIN;
    }
    0
}

/// A file record with room for the longest path.
#[repr(C)]
#[derive(Clone, Copy)]
struct FileWithPath {
    file: FileRecord,
    path: [u8; PATH_MAX],
}

/// Opens of what is withheld are refused, others for writing of regular files recorded, with the path as the kernel resolved it.
#[lsm(hook = "file_open")]
pub fn lsm_file_open(ctx: LsmContext) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    let file: *const File = ctx.arg(0);
    let refused = withheld::opens(&ctx, &who, file);
    if refused != 0 {
        return refused;
    }
    // SAFETY: a trusted pointer of the hook; the verifier checks each read.
    let (write, mode) = unsafe { (shim::shim_file_write(file), shim::shim_file_mode(file)) };
    if write == 0 || mode & S_IFMT != S_IFREG || !who.settled() || !who.records() {
        return 0;
    }
    let now = emit::now();
    let told = emit::emit::<FileWithPath>(&who, now, Hold::Refuse, Urgency::Timed, |to| {
        // SAFETY: `to` is a reserved record with PATH_MAX bytes for the path.
        unsafe {
            let got = shim::shim_file_path(file, (&raw mut (*to).path).cast(), PATH_MAX as u32);
            let (len, flags) =
                if got <= 0 || got > PATH_MAX as i64 { (0, head_flag::TRUNCATED) } else { (got as u32, 0) };
            let record = &raw mut (*to).file;
            (*record).head = emit::head(&who, now, kind::FILE, flags, emit::ppid());
            (*record).inode = shim::shim_file_ino(file);
            (*record).dev = shim::shim_file_dev(file);
            (*record).open_flags = shim::shim_file_flags(file);
            (*record).path_len = len;
            (*record).raw = 0;
        }
    });
    if !told && who.strict() {
        count!(who, denied);
        return -EAGAIN;
    }
    0
}
