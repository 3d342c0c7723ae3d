//! System calls: counts, latencies, sequences, single records. Attached only while an agent asks for them, because a
//! system-call tracepoint costs every process on the host.
//!
//! Everything but the time of entry is seen at the return, where the number, the arguments and the result
//! are all known and calls that seccomp refused show too. Calls that do not return (exit) are not counted.

use core::mem::size_of;

use aion_probe_types::layout::{
    self, BUCKETS, Count, Cred, FileRecord, PATH_MAX, PrivRecord, Start, SyscallRecord, flag, head_flag, kind,
};
use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_probe_read_user, bpf_probe_read_user_str},
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::agent::{self, Found};
use crate::emit::{self, Hold, Urgency};
use crate::maps::{COUNTS, HISTS, SCRATCH_BUF, STARTS};
use crate::ngrams;
use crate::shim::{self, Regs};

const EPERM: i64 = -1;
const EACCES: i64 = -13;
const ENOSYS: i64 = -38;
const MAX_ERRNO: i64 = 4095;
const O_ACCMODE: u64 = 3;
const O_CREAT_WRITE: u64 = 0o1101;

/// x86-64 system calls that are looked at by number.
mod nr {
    pub const OPEN: u32 = 2;
    pub const CONNECT: u32 = 42;
    pub const BIND: u32 = 49;
    pub const CLONE: u32 = 56;
    pub const VFORK: u32 = 58;
    pub const EXECVE: u32 = 59;
    pub const TRUNCATE: u32 = 76;
    pub const RENAME: u32 = 82;
    pub const MKDIR: u32 = 83;
    pub const RMDIR: u32 = 84;
    pub const CREAT: u32 = 85;
    pub const LINK: u32 = 86;
    pub const UNLINK: u32 = 87;
    pub const SYMLINK: u32 = 88;
    pub const CHMOD: u32 = 90;
    pub const LCHOWN: u32 = 94;
    pub const SETUID: u32 = 105;
    pub const SETGID: u32 = 106;
    pub const SETREUID: u32 = 113;
    pub const SETREGID: u32 = 114;
    pub const SETGROUPS: u32 = 116;
    pub const SETRESUID: u32 = 117;
    pub const SETRESGID: u32 = 119;
    pub const CAPSET: u32 = 126;
    pub const MKNOD: u32 = 133;
    pub const OPENAT: u32 = 257;
    pub const MKDIRAT: u32 = 258;
    pub const FCHMODAT: u32 = 268;
    pub const UNSHARE: u32 = 272;
    pub const SETNS: u32 = 308;
    pub const RENAMEAT2: u32 = 316;
    pub const EXECVEAT: u32 = 322;
    pub const CLONE3: u32 = 435;
    pub const OPENAT2: u32 = 437;
}

#[inline(always)]
fn start_slot(tid: u32) -> Option<*mut Start> {
    STARTS.get_ptr_mut(tid & (layout::STARTS - 1))
}

/// The time of entry, for agents with histograms.
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(_ctx: BtfTracePointContext) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    if !who.has(flag::LATENCY) || !who.records() {
        return 0;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    let Some(slot) = start_slot(tid) else { return 0 };
    // SAFETY: an element of STARTS. Two threads that share it overwrite each other; the tid tells.
    unsafe {
        (*slot).tid = u64::from(tid);
        (*slot).ns = emit::now();
    }
    0
}

/// A system call returns.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    if !who.has(flag::SYSCALLS) || !who.records() {
        return 0;
    }
    let (regs, ret): (*const Regs, i64) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: the tracepoint's own registers, a BTF pointer.
    let number = unsafe { shim::shim_regs_nr(regs) };
    let last = u64::from(layout::SYSCALLS - 1);
    let index = if number > last { last as u32 } else { number as u32 };
    let failed = (-MAX_ERRNO..0).contains(&ret);
    if let Some(count) = COUNTS.get_value_ptr_mut(who.agent.slot, &index) {
        let count = count.cast::<Count>();
        // SAFETY: a per-CPU element that only this program writes, with preemption off.
        unsafe {
            (*count).calls += 1;
            (*count).errors += u64::from(failed);
        }
    }
    if who.has(flag::LATENCY) {
        measure(&who, index);
    }
    let number = number as u32;
    let refused = failed && denied(number, ret);
    if refused || who.has(flag::TRACE) {
        trace(&who, regs, number, ret, refused);
    }
    if who.has(flag::NO_LSM) && ret >= 0 {
        notable(&who, regs, number);
    }
    if who.has(flag::GRAMS) {
        // What a new thread or process returns from first is the call that made it: clone, fork and vfork, in a row, or clone3.
        let begins = ret == 0 && matches!(number, nr::CLONE..=nr::VFORK | nr::CLONE3);
        ngrams::called(&who, index, begins);
    }
    0
}

#[inline(always)]
fn measure(who: &Found, index: u32) {
    let tid = bpf_get_current_pid_tgid() as u32;
    let Some(slot) = start_slot(tid) else { return };
    // SAFETY: an element of STARTS, as in sys_enter.
    let start = unsafe {
        let start = *slot;
        (*slot).tid = 0;
        start
    };
    if start.tid != u64::from(tid) {
        return;
    }
    let took = emit::now().wrapping_sub(start.ns);
    let bucket = log2(took) & (BUCKETS - 1);
    if let Some(hist) = HISTS.get_value_ptr_mut(who.agent.slot, &index) {
        // SAFETY: a per-CPU element that only this program writes, with preemption off; the index is masked.
        unsafe { (*hist)[bucket] += 1 };
    }
}

/// The position of the highest bit, at most the last bucket. BPF has no instruction for it.
#[inline(always)]
fn log2(n: u64) -> usize {
    let mut n = if n > u64::from(u32::MAX) { u32::MAX } else { n as u32 };
    let mut bits = 0;
    if n >= 1 << 16 {
        n >>= 16;
        bits += 16;
    }
    if n >= 1 << 8 {
        n >>= 8;
        bits += 8;
    }
    if n >= 1 << 4 {
        n >>= 4;
        bits += 4;
    }
    if n >= 1 << 2 {
        n >>= 2;
        bits += 2;
    }
    if n >= 1 << 1 {
        bits += 1;
    }
    bits
}

/// Whether an error means that somebody forbade it. EACCES is common and harmless in look-ups, so it counts
/// only where something would have been changed, opened, executed or reached.
#[inline(always)]
fn denied(number: u32, ret: i64) -> bool {
    if ret == EPERM || ret == ENOSYS {
        return true;
    }
    ret == EACCES
        && matches!(
            number,
            nr::OPEN
                | nr::OPENAT
                | nr::OPENAT2
                | nr::CONNECT
                | nr::BIND
                | nr::EXECVE
                | nr::EXECVEAT
                | nr::TRUNCATE
                | nr::RENAME
                | nr::MKDIR
                | nr::RMDIR
                | nr::CREAT
                | nr::LINK
                | nr::UNLINK
                | nr::SYMLINK
                | nr::CHMOD..=nr::LCHOWN
                | nr::MKNOD
                | nr::MKDIRAT..=nr::FCHMODAT
                | nr::RENAMEAT2
        )
}

#[inline(always)]
fn trace(who: &Found, regs: *const Regs, number: u32, ret: i64, refused: bool) {
    let now = emit::now();
    let (kind, flags, urgency) = if refused {
        (kind::SYS_DENIED, head_flag::DENIED, Urgency::Violation)
    } else {
        (kind::SYSCALL, 0, Urgency::Timed)
    };
    emit::emit::<SyscallRecord>(who, now, Hold::Stop, urgency, |to| {
        // SAFETY: `to` is a reserved record; `regs` is a BTF pointer.
        unsafe {
            (*to).head = emit::head(who, now, kind, flags, 0);
            (*to).nr = number;
            (*to).zero = 0;
            (*to).ret = ret;
            shim::shim_regs_args(regs, (&raw mut (*to).args).cast());
        }
    });
}

/// Successful calls that deserve a record of their own where no LSM hook gives it.
#[inline(always)]
fn notable(who: &Found, regs: *const Regs, number: u32) {
    match number {
        nr::OPEN | nr::CREAT | nr::OPENAT | nr::OPENAT2 => opened(who, regs, number),
        nr::SETUID
        | nr::SETGID
        | nr::SETREUID
        | nr::SETREGID
        | nr::SETGROUPS
        | nr::SETRESUID
        | nr::SETRESGID
        | nr::CAPSET
        | nr::UNSHARE
        | nr::SETNS => changed(who, number),
        _ => {}
    }
}

#[inline(always)]
fn opened(who: &Found, regs: *const Regs, number: u32) {
    const HEAD: usize = size_of::<FileRecord>();
    let mut args = [0u64; 4];
    // SAFETY: `regs` is a BTF pointer.
    unsafe { shim::shim_regs_args(regs, args.as_mut_ptr()) };
    let (path, flags) = match number {
        nr::OPEN => (args[0], args[1]),
        nr::CREAT => (args[0], O_CREAT_WRITE),
        nr::OPENAT => (args[1], args[2]),
        _ => {
            let mut flags = 0u64;
            // SAFETY: reads struct open_how's first member from the caller's memory; a failure leaves 0.
            unsafe { bpf_probe_read_user((&raw mut flags).cast(), 8, args[2] as *const _) };
            (args[1], flags)
        }
    };
    if flags & O_ACCMODE == 0 {
        return;
    }
    let Some(buf) = SCRATCH_BUF.get_ptr_mut(0) else { return };
    let buf = buf.cast::<u8>();
    let now = emit::now();
    // SAFETY: the buffer has room for the head and PATH_MAX bytes; lengths are bounded by that.
    unsafe {
        let got = bpf_probe_read_user_str(buf.add(HEAD).cast(), PATH_MAX as u32, path as *const _);
        let len = if got < 0 { 0 } else { got as u64 & (2 * PATH_MAX as u64 - 1) };
        let len = if len > PATH_MAX as u64 { PATH_MAX as u64 } else { len };
        let truncated = if len == PATH_MAX as u64 { head_flag::TRUNCATED } else { 0 };
        let record = buf.cast::<FileRecord>();
        (*record).head = emit::head(who, now, kind::FILE, truncated, emit::ppid());
        (*record).inode = 0;
        (*record).dev = 0;
        (*record).open_flags = flags as u32;
        (*record).path_len = len as u32;
        (*record).raw = 1;
        emit::emit_bytes(who, now, Hold::Stop, Urgency::Timed, buf, HEAD as u64 + len);
    }
}

#[inline(always)]
fn changed(who: &Found, number: u32) {
    let now = emit::now();
    let mut cred = Cred { uid: 0, euid: 0, gid: 0, egid: 0, cap_effective: 0 };
    // SAFETY: the current task, a BTF pointer.
    unsafe { shim::shim_task_cred(shim::shim_current(), &raw mut cred) };
    emit::emit::<PrivRecord>(who, now, Hold::Stop, Urgency::Timed, |to| {
        // SAFETY: `to` is a reserved record.
        unsafe {
            (*to).head = emit::head(who, now, kind::PRIV, 0, emit::ppid());
            (*to).source = 2;
            (*to).nr = number;
            (*to).old = cred;
            (*to).new = cred;
            shim::shim_task_comm(shim::shim_current(), (&raw mut (*to).comm).cast());
        }
    });
}
