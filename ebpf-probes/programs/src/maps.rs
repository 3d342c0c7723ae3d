//! The maps. All are pinned by the loader and outlive both daemons.

use aion_probe_types::device::{DeviceKey, MAX_DEVICES};
use aion_probe_types::layout::{
    self, Agent, Count, Egress, EgressKey, Flow, Hist, Limit, LimitKey, Process, Spent, SpentKey, Start,
    State, Stats, Throttled,
};
use aion_probe_types::ngram::{self, Window};
use aion_probe_types::withheld::{MAX_WITHHELD, Withheld, WithheldKey};
use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};

const EGRESS_COUNT: usize = layout::MAX_EGRESS as usize;
const LIMIT_COUNT: usize = layout::MAX_LIMITS as usize;
const SPENT_COUNT: usize = layout::MAX_SPENT as usize;
const FLOW_COUNT: usize = layout::MAX_FLOWS as usize;
const WITHHELD_COUNT: usize = MAX_WITHHELD as usize;
const DEVICE_COUNT: usize = MAX_DEVICES as usize;
const AGENT_COUNT: usize = layout::MAX_AGENTS as usize;
const SYSCALL_COUNT: usize = layout::SYSCALLS as usize;
const START_COUNT: usize = layout::STARTS as usize;
const EXITED_COUNT: usize = layout::MAX_EXITED as usize;
const THROTTLED_COUNT: usize = layout::MAX_THROTTLED as usize;
const WINDOW_COUNT: usize = ngram::WINDOWS as usize;
const GRAM_COUNT: usize = ngram::ENTRIES as usize;
/// The words of [`Count`] and [`Hist`]. Not the structures themselves: kernels before 6.2 take a map without
/// BTF, as the loader makes them, for another kind than one whose value is a structure.
const COUNT_WORDS: usize = size_of::<Count>() / 8;
const HIST_WORDS: usize = size_of::<Hist>() / 8;
/// Bytes of the scratch buffer: an exec record with the longest file name and argv.
pub const SCRATCH: usize = 1024;

/// Agents by cgroup id. Whoever is not in it costs one failed look-up.
#[btf_map]
pub static AGENTS: HashMap<u64, Agent, AGENT_COUNT> = HashMap::new();

/// Whom agents with flag `NET_EGRESS` reach, and (as cgroup 0) what an entry must name. A trie of all agents: it grows with
/// what is in it, and an agent's part is found by its first 64 bits.
#[btf_map]
pub static EGRESS: LpmTrie<EgressKey, Egress, EGRESS_COUNT> = LpmTrie::new();

/// What agents with flag `LIMITED` may use of the network. What is not there takes no memory, here and in the next.
#[btf_map]
pub static LIMITS: HashMap<LimitKey, Limit, LIMIT_COUNT, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What they have used. Entries are made by user space, and outlive the agent's cgroup.
#[btf_map]
pub static SPENT: HashMap<SpentKey, Spent, SPENT_COUNT, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Where datagrams went that a rate of connections counts for, and when last. An agent gets an entry by what its rate lets through, so that
/// it pushes out others' no faster than that; without a rate it gets none.
#[btf_map]
pub static FLOWS: LruHashMap<Flow, u64, FLOW_COUNT> = LruHashMap::new();

/// Files and programs that are taken from agents with flag `FILES`, by device and inode.
#[btf_map]
pub static WITHHELD: HashMap<WithheldKey, Withheld, WITHHELD_COUNT, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Devices that agents may open beside what everybody has: bits of what may be done.
#[btf_map]
pub static DEVICES: HashMap<DeviceKey, u64, DEVICE_COUNT, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// What all programs share, one element.
#[btf_map]
pub static STATE: Array<State, 1> = Array::new();

/// Records. The loader sets the size.
#[btf_map]
pub static EVENTS: RingBuf<u64, { 8 << 20 }> = RingBuf::new();

/// Per slot and CPU.
#[btf_map]
pub static STATS: PerCpuArray<Stats, AGENT_COUNT> = PerCpuArray::new();

/// Per slot: counters by system call, made by the loader for agents that ask.
#[btf_map]
pub static COUNTS: ArrayOfMaps<PerCpuArray<[u64; COUNT_WORDS], SYSCALL_COUNT>, AGENT_COUNT> =
    ArrayOfMaps::new();

/// Per slot: histograms by system call, made by the loader for agents that ask.
#[btf_map]
pub static HISTS: ArrayOfMaps<PerCpuArray<[u64; HIST_WORDS], SYSCALL_COUNT>, AGENT_COUNT> =
    ArrayOfMaps::new();

/// When threads entered their system calls, by thread id modulo the size. A collision loses one sample.
#[btf_map]
pub static STARTS: Array<Start, START_COUNT> = Array::new();

/// The last calls of threads whose sequences are looked at, by thread id modulo the size. Of two that share one neither makes a gram while
/// both run, but for the rare moment in which one takes the other's calls for its own.
#[btf_map]
pub static WINDOWS: Array<Window, WINDOW_COUNT> = Array::new();

/// Per slot: the sequences that an agent's threads have made, made by the loader while somebody asks. A table of its own for each agent:
/// none pushes out another's, and what it takes is bounded.
#[btf_map]
pub static GRAMS: ArrayOfMaps<Array<[u64; ngram::WAYS], GRAM_COUNT>, AGENT_COUNT> = ArrayOfMaps::new();

/// Per slot and CPU: sequences that were looked at.
#[btf_map]
pub static GRAM_CALLS: PerCpuArray<u64, AGENT_COUNT> = PerCpuArray::new();

/// Processes of strict agents that are stopped until the reader has caught up.
#[btf_map]
pub static THROTTLED: HashMap<u32, Throttled, THROTTLED_COUNT> = HashMap::new();

/// Processes that ended a moment ago, see `process::first_to_tell`.
#[btf_map]
pub static EXITED: LruHashMap<Process, u8, EXITED_COUNT> = LruHashMap::new();

/// Where records of variable length are put together. Used only with preemption off.
#[btf_map]
pub static SCRATCH_BUF: PerCpuArray<[u8; SCRATCH], 1> = PerCpuArray::new();

/// The generation of these programs, see [`State::generation`].
#[unsafe(no_mangle)]
pub static GENERATION: Global<u32> = Global::new(0);
