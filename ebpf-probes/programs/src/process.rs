//! The life of processes: fork, exec, exit, with lineage.

use core::mem::size_of;

use aion_probe_types::layout::{
    ARGV_MAX, Cred, ExecRecord, ExitRecord, ForkRecord, Head, PATH_MAX, PrivRecord, Process, head_flag, kind,
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::agent::{self, Found};
use crate::emit::{self, Hold, Urgency};
use crate::maps::{EXITED, SCRATCH, SCRATCH_BUF};
use crate::shim::{self, Binprm, Task};

const EEXIST: i32 = 17;

/// A new process (threads are not recorded). The agent is the child's: a process that the launcher clones
/// into an agent's cgroup has a parent outside.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child): (*const Task, *const Task) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: both are trusted pointers of the tracepoint; the verifier checks each read.
    let who = unsafe { agent::by_cgroup(shim::shim_task_cgroup(child)) };
    let Some(who) = who else { return 0 };
    // SAFETY: as above.
    let (pid, tgid) = unsafe { (shim::shim_task_pid(child), shim::shim_task_tgid(child)) };
    if pid != tgid || !who.records() {
        return 0;
    }
    let now = emit::now();
    emit::emit::<ForkRecord>(&who, now, Hold::Stop, Urgency::Timed, |to| {
        // SAFETY: `to` is a reserved record; the task pointers are as above.
        unsafe {
            (*to).head = Head {
                kind: kind::FORK,
                flags: 0,
                tgid: shim::shim_task_tgid(parent),
                tid: shim::shim_task_pid(parent),
                ppid: shim::shim_task_ppid(parent),
                cgroup: who.cgroup,
                time_ns: now,
            };
            (*to).child = tgid;
            (*to).child_ns_pid = shim::shim_task_ns_pid(child);
            (*to).child_start_ns = shim::shim_task_start(child);
            shim::shim_task_comm(child, (&raw mut (*to).comm).cast());
        }
    });
    0
}

/// A program begins. The arguments are read from the new program's memory, where the kernel has just put
/// them.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    if !who.records() {
        return 0;
    }
    let (task, bprm): (*const Task, *const Binprm) = (ctx.arg(0), ctx.arg(2));
    exec(&who, task, bprm);
    crate::trace_log!(&ctx, "exec in cgroup {}", who.cgroup);
    0
}

#[inline(always)]
fn exec(who: &Found, task: *const Task, bprm: *const Binprm) -> Option<()> {
    const HEAD: usize = size_of::<ExecRecord>();
    const _: () = assert!(HEAD + PATH_MAX + ARGV_MAX <= SCRATCH);
    let now = emit::now();
    let buf = SCRATCH_BUF.get_ptr_mut(0)?.cast::<u8>();
    let mut flags = 0;
    // SAFETY: the buffer has room for the head, PATH_MAX and ARGV_MAX; all lengths are bounded by those.
    unsafe {
        let name = buf.add(HEAD);
        let got = bpf_probe_read_kernel_str(
            name.cast(),
            PATH_MAX as u32,
            shim::shim_bprm_filename(bprm) as *const _,
        );
        let name_len = if got < 0 { 0 } else { got as usize & (2 * PATH_MAX - 1) };
        let name_len = if name_len > PATH_MAX { PATH_MAX } else { name_len };
        if name_len == PATH_MAX {
            flags |= head_flag::TRUNCATED;
        }
        let (start, end) = (shim::shim_arg_start(task), shim::shim_arg_end(task));
        let mut argv_len = end.wrapping_sub(start);
        if argv_len > ARGV_MAX as u64 {
            argv_len = ARGV_MAX as u64;
            flags |= head_flag::TRUNCATED;
        }
        let argv = name.add(name_len);
        if bpf_probe_read_user(argv.cast(), argv_len as u32, start as *const _) != 0 {
            argv_len = 0;
            flags |= head_flag::UNREADABLE;
        }
        let mut cred = Cred { uid: 0, euid: 0, gid: 0, egid: 0, cap_effective: 0 };
        shim::shim_task_cred(task, &raw mut cred);
        let gained = cred.uid != cred.euid || cred.gid != cred.egid;
        if gained {
            flags |= head_flag::SECURE_EXEC;
        }
        flags |= shim::shim_exec_origin(task, bprm) as u16;
        let record = buf.cast::<ExecRecord>();
        (*record).head = emit::head(who, now, kind::EXEC, flags, shim::shim_task_ppid(task));
        (*record).cred = cred;
        (*record).start_ns = shim::shim_task_start(task);
        (*record).ns_pid = shim::shim_task_ns_pid(task);
        (*record).filename_len = name_len as u16;
        (*record).argv_len = argv_len as u16;
        shim::shim_task_comm(task, (&raw mut (*record).comm).cast());
        let len = (HEAD + name_len) as u64 + argv_len;
        emit::emit_bytes(who, now, Hold::Stop, Urgency::Timed, buf, len);
        // Capabilities are only worth a record once the set-up, which has some, is over.
        if gained || (cred.cap_effective != 0 && who.settled()) {
            emit::emit::<PrivRecord>(who, now, Hold::Stop, Urgency::Violation, |to| {
                (*to).head = emit::head(who, now, kind::PRIV, 0, 0);
                (*to).source = 1;
                (*to).nr = 0;
                (*to).old = cred;
                (*to).new = cred;
                shim::shim_task_comm(task, (&raw mut (*to).comm).cast());
            });
        }
    }
    Some(())
}

/// Threads that end together may all find that no thread is left: whoever comes first tells. (Newer kernels
/// say which one was the last, in an argument that 6.1 does not have.)
#[inline(always)]
fn first_to_tell(task: *const Task) -> bool {
    // SAFETY: a trusted pointer of the tracepoint; the verifier checks each read.
    let process = unsafe {
        Process { tgid: u64::from(shim::shim_task_tgid(task)), start_ns: shim::shim_task_start(task) }
    };
    EXITED.insert(process, 1, u64::from(BPF_NOEXIST)) != Err(-EEXIST)
}

/// The last thread of a process ends. Never held back: it cannot run on, and a pid limit bounds how many
/// there are.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(who) = agent::current() else { return 0 };
    let task: *const Task = ctx.arg(0);
    // SAFETY: a trusted pointer of the tracepoint; the verifier checks each read.
    if unsafe { shim::shim_group_dead(task) } == 0 || !who.records() || !first_to_tell(task) {
        return 0;
    }
    let now = emit::now();
    emit::emit::<ExitRecord>(&who, now, Hold::No, Urgency::Timed, |to| {
        // SAFETY: `to` is a reserved record; the task pointer is as above.
        unsafe {
            let flags = if shim::shim_oom_victim(task) != 0 { head_flag::OOM_VICTIM } else { 0 };
            (*to).head = emit::head(&who, now, kind::EXIT, flags, shim::shim_task_ppid(task));
            (*to).head.tid = (*to).head.tgid;
            (*to).status = shim::shim_exit_status(task);
            (*to).uid = shim::shim_task_uid(task);
            (*to).start_ns = shim::shim_task_start(task);
            shim::shim_task_comm(task, (&raw mut (*to).comm).cast());
        }
    });
    0
}
