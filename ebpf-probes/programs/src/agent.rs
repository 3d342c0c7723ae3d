//! Who is it? From a cgroup id to the agent's entry, its counters and the shared state.

use aion_probe_types::layout::{Agent, State, Stats, flag};
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;

use crate::maps::{AGENTS, GENERATION, STATE, STATS};
use crate::shim;

/// An agent that was found.
#[derive(Clone, Copy)]
pub struct Found {
    pub cgroup: u64,
    pub agent: Agent,
    pub state: *mut State,
    pub stats: *mut Stats,
}

/// Looks up an agent by its cgroup.
#[inline(always)]
pub fn by_cgroup(cgroup: u64) -> Option<Found> {
    // SAFETY: entries are only replaced whole by user space; a copy is taken at once.
    let agent = unsafe { *AGENTS.get(cgroup)? };
    let state = STATE.get_ptr_mut(0)?;
    let stats = STATS.get_ptr_mut(agent.slot)?;
    Some(Found { cgroup, agent, state, stats })
}

/// The current task's agent.
#[inline(always)]
pub fn current() -> Option<Found> {
    // SAFETY: the helper has no precondition.
    by_cgroup(unsafe { bpf_get_current_cgroup_id() })
}

impl Found {
    #[inline(always)]
    pub fn has(&self, bits: u32) -> bool {
        self.agent.flags & bits != 0
    }

    #[inline(always)]
    pub fn strict(&self) -> bool {
        self.has(flag::STRICT)
    }

    /// Whether the set-up is over for the current task: the launcher said so, or the task has given up
    /// gaining privileges, which is the last step before the agent's program. Only for tracing and LSM
    /// programs.
    #[inline(always)]
    pub fn settled(&self) -> bool {
        // SAFETY: the shim reads the current task through a BTF pointer.
        self.has(flag::ARMED) || unsafe { shim::shim_task_no_new_privs(shim::shim_current()) } != 0
    }

    /// Whether programs of this generation record. While programs are replaced, old and new ones are both
    /// attached; only one generation writes records and counters, both enforce.
    #[inline(always)]
    pub fn records(&self) -> bool {
        // SAFETY: `state` points into a map; a word is read at once.
        unsafe { (*self.state).generation == GENERATION.load() }
    }
}

/// Adds to a counter in a per-CPU map. Atomic, because cgroup and LSM programs can be preempted by another
/// program on the same CPU and an exact count is promised.
#[inline(always)]
pub fn add(counter: *mut u64, n: u64) {
    // SAFETY: the pointer comes from a map value, is aligned, and stays valid for the program's run.
    unsafe { shim::shim_add(counter, n) };
}

macro_rules! count {
    ($found:expr, $field:ident) => {
        $crate::agent::count!($found, $field, 1)
    };
    ($found:expr, $field:ident, $n:expr) => {
        // SAFETY: `stats` points at a value of STATS; the projection stays inside it.
        $crate::agent::add(unsafe { &raw mut (*$found.stats).$field }, $n)
    };
}
pub(crate) use count;
