//! The OOM killer's choice.

use aion_probe_types::layout::{OomRecord, kind};
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::agent;
use crate::emit::{self, Hold, Urgency};
use crate::shim::{self, Task};

/// Above every pid (PID_MAX_LIMIT), below every kernel address.
const PID_LIMIT: u64 = 4 << 20;

/// Older kernels give the victim's pid, newer ones (6.9, and stable ones before it) its task. A pid cannot
/// be looked up here; then the agent is that of the task whose allocation failed, which under a memory
/// cgroup's limit is in the same cgroup. The exit record tells of OOM victims in any case.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    let arg: u64 = ctx.arg(0);
    let (who, victim) = if arg <= PID_LIMIT {
        (agent::current(), arg as u32)
    } else {
        let task = arg as *const Task;
        // SAFETY: a task of the tracepoint, read with probe_read.
        unsafe { (agent::by_cgroup(shim::shim_probe_task_cgroup(task)), shim::shim_probe_task_tgid(task)) }
    };
    let Some(who) = who else { return 0 };
    if !who.records() {
        return 0;
    }
    let now = emit::now();
    emit::emit::<OomRecord>(&who, now, Hold::No, Urgency::Violation, |to| {
        // SAFETY: `to` is a reserved record.
        unsafe {
            (*to).head = emit::head(&who, now, kind::OOM, 0, 0);
            (*to).victim = victim;
            (*to).zero = 0;
        }
    });
    0
}
