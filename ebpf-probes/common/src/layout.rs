//! The bytes that kernel and user space exchange: values of maps, and records of the ring buffer.
//!
//! Every structure is `#[repr(C)]`, has no padding (checked below) and little-endian host integers; the
//! programs run on the machine that decodes.

mod records;
mod words;

pub use records::*;

/// Version of these layouts. Pinned maps of another version are not adopted.
pub const ABI: u32 = 1;
/// Agents at the same time: the size of the per-slot maps.
pub const MAX_AGENTS: u32 = 4096;
/// System calls with a counter of their own; those above share the last entry.
pub const SYSCALLS: u32 = 512;
/// Buckets of a latency histogram: bucket `i` counts calls of `2^i..2^(i+1)` ns, the last all longer ones.
pub const BUCKETS: usize = 32;
/// Bytes of argv in an exec record, at most.
pub const ARGV_MAX: usize = 512;
/// Bytes of a path in a record, at most.
pub const PATH_MAX: usize = 256;
/// Bytes of a task's name.
pub const COMM: usize = 16;
/// Threads whose system call can be timed at once (an index by thread id, collisions are skipped).
pub const STARTS: u32 = 65536;
/// Processes whose end is remembered, so that it is recorded once.
pub const MAX_EXITED: u32 = 4096;
/// Processes that the back-pressure of strict agents can hold stopped at once.
pub const MAX_THROTTLED: u32 = 16384;

/// Entries of `EGRESS`, of all agents together. Entries that are not there take no memory.
pub const MAX_EGRESS: u32 = 1 << 20;
/// How long a connection may be silent until it counts as closed, once the name's answer has run out: TCP.
pub const IDLE_TCP_NS: u64 = 3600 * 1_000_000_000;
/// The same for UDP.
pub const IDLE_UDP_NS: u64 = 120 * 1_000_000_000;

/// Destinations of one agent with limits or counters of their own: bits of [`Egress::counted`].
pub const MAX_DESTINATIONS: u32 = 8;
/// Entries of `LIMITS`: of each agent one for itself, and one for each such destination.
pub const MAX_LIMITS: u32 = MAX_AGENTS * (MAX_DESTINATIONS + 1);
/// Entries of `SPENT`: more, for agents that ended within the hour.
pub const MAX_SPENT: u32 = 2 * MAX_LIMITS;
/// Datagrams' destinations that are remembered, of all agents with a rate of connections.
pub const MAX_FLOWS: u32 = 16384;

/// Bits of [`Agent::flags`].
pub mod flag {
    /// Count system calls.
    pub const COUNT: u32 = 1;
    /// Keep latency histograms.
    pub const LATENCY: u32 = 1 << 1;
    /// One record for each system call.
    pub const TRACE: u32 = 1 << 2;
    /// No record may be lost: wake the reader early, stop the agent before the buffer is full.
    pub const STRICT: u32 = 1 << 3;
    /// Refuse every connect, bind and send.
    pub const NET_DENY: u32 = 1 << 4;
    /// Refuse all but loopback (the agent has a network namespace of its own).
    pub const NET_LOOPBACK: u32 = 1 << 5;
    /// The set-up is over: LSM hooks deny from now on, whatever the task's state.
    pub const ARMED: u32 = 1 << 6;
    /// There are no LSM hooks: opens for writing and changes of privileges are seen in system calls instead.
    pub const NO_LSM: u32 = 1 << 7;
    /// Beyond its own loopback it reaches what `EGRESS` says (the agent has a network namespace of its own).
    pub const NET_EGRESS: u32 = 1 << 8;
    /// Its network was taken away: as [`NET_DENY`], beside the policy that it has otherwise.
    pub const ISOLATED: u32 = 1 << 9;
    /// It has entries in `LIMITS`.
    pub const LIMITED: u32 = 1 << 10;
    /// Some of them are of destinations.
    pub const DESTINATIONS: u32 = 1 << 11;
    /// Files or programs are withheld from it: `WITHHELD` says which.
    pub const FILES: u32 = 1 << 16;
    /// The sequences of its system calls are looked at, see [`crate::ngram`]: it has one of [`SYSCALLS`] and a table in `GRAMS`.
    pub const GRAMS: u32 = 1 << 17;
    /// Any of the modes that need a system-call probe.
    pub const SYSCALLS: u32 = COUNT | LATENCY | TRACE;
}

/// Value of `AGENTS`, by cgroup id.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// Index into the per-slot maps.
    pub slot: u32,
    /// Bits of [`flag`].
    pub flags: u32,
}

/// Key of `EGRESS`, after its length in bits. The kernel finds the entry with the longest address that matches.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EgressKey {
    /// The agent's cgroup; 0 for the blocks that an entry must name to reach them.
    pub cgroup: u64,
    /// The port in network order; 0 for all of them.
    pub port: [u8; 2],
    /// 0.
    pub zero: [u8; 6],
    /// The address; IPv4 is mapped.
    pub addr: [u8; 16],
}

impl EgressKey {
    /// Bits before the address.
    pub const HEAD_BITS: u32 = 128;
}

/// Value of `EGRESS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Egress {
    /// Until when connections are begun, monotonic ns.
    pub expires_ns: u64,
    /// When a packet last went by it, roughly, monotonic ns: keeps open connections alive.
    pub used_ns: u64,
    /// How narrow a special block it names, or [`Egress::JUDGED`]; of an entry of cgroup 0, how narrow it must be.
    pub named: u32,
    /// For which destinations of the agent it counts, a bit each.
    pub counted: u32,
}

impl Egress {
    /// It is of one address, which it may reach: no block has to be looked for. More than any entry of cgroup 0 asks for.
    pub const JUDGED: u32 = u32::MAX;
}

/// Key of `LIMITS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// 0 the agent as a whole, else a destination, from 1.
    pub destination: u64,
}

/// Value of `LIMITS`: what an agent, or what one destination of it, may use. Written by user space alone; 0 is no limit.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Whose use it is, see [`SpentKey`].
    pub account: [u64; 2],
    /// Bytes sent in an hour.
    pub bytes_out: u64,
    /// Bytes received in an hour.
    pub bytes_in: u64,
    /// Time between two connections.
    pub interval_ns: u64,
    /// How many intervals may be taken ahead, in ns.
    pub burst_ns: u64,
    /// What a connection that comes too early is told to have met: [`limit::PER_SECOND`] or [`limit::PER_MINUTE`].
    pub rate: u64,
}

/// Key of `SPENT`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpentKey {
    /// Whose: outlives cgroups, as an agent that starts anew has not used less.
    pub account: [u64; 2],
    /// As [`LimitKey::destination`].
    pub destination: u64,
}

/// Value of `SPENT`: what was used. Written by the programs alone.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Bytes sent within the hour, see [`crate::hour`].
    pub sent: [u64; crate::hour::WORDS],
    /// Bytes received within the hour.
    pub received: [u64; crate::hour::WORDS],
    /// When the next connection is due, monotonic ns; a burst comes before.
    pub due_ns: u64,
    /// Bytes sent in all.
    pub sent_total: u64,
    /// Bytes received in all.
    pub received_total: u64,
    /// Connections, and first datagrams to somewhere.
    pub connections: u64,
    /// Those that came too early.
    pub refused_rate: u64,
    /// Those for which no bytes were left.
    pub refused_bytes: u64,
    /// Packets that were not sent for want of bytes.
    pub dropped_out: u64,
    /// Packets that were not received for want of bytes.
    pub dropped_in: u64,
}

/// Key of `FLOWS`: where an agent's datagrams go.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// The address; IPv4 is mapped.
    pub addr: [u8; 16],
    /// The port, in network order.
    pub port: u64,
}

/// Which limit refused: [`NetRecord::limit`].
pub mod limit {
    /// None: something else did.
    pub const NONE: u8 = 0;
    /// Connections in a second.
    pub const PER_SECOND: u8 = 1;
    /// Connections in a minute.
    pub const PER_MINUTE: u8 = 2;
    /// Bytes sent in an hour.
    pub const BYTES_OUT: u8 = 3;
    /// Bytes received in an hour.
    pub const BYTES_IN: u8 = 4;
}

/// Value of `STATS`, by slot, one for each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records that reached the ring buffer.
    pub events: u64,
    /// Records that did not.
    pub dropped: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Calls that a hook refused.
    pub denied: u64,
    /// Times a process was stopped because the buffer was nearly full.
    pub throttled: u64,
}

/// Element of an agent's `COUNTS` array, by system call, one for each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Calls that returned.
    pub calls: u64,
    /// Of these, calls that returned an error.
    pub errors: u64,
}

/// Element of an agent's `HISTS` array, by system call, one for each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hist {
    /// Counts by log2 of the duration in ns.
    pub buckets: [u64; BUCKETS],
}

/// Element of `STARTS`: when a thread entered the system call that it is in.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// The thread, 0 when none.
    pub tid: u64,
    /// Monotonic time.
    pub ns: u64,
}

/// Value of `THROTTLED`, by thread group.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttled {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// The process's start (boot time), so that a reused pid is told apart.
    pub start_ns: u64,
}

/// Key of `EXITED`: a process for good.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// The thread group.
    pub tgid: u64,
    /// Its start (boot time).
    pub start_ns: u64,
}

/// The only element of `STATE`: what all programs share.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// [`ABI`] of the programs that made the maps.
    pub abi: u32,
    /// Programs of this generation record; those of another only enforce (they are being replaced).
    pub generation: u32,
    /// SHA-256 of the object.
    pub object: [u8; 32],
    /// Size of the ring buffer.
    pub ring_bytes: u64,
    /// When the reader was last woken because of fill, monotonic ns.
    pub woken_ns: u64,
    /// Fill from which the reader is woken.
    pub wake_at: u64,
    /// Fill from which records of agents that are not strict are dropped: the rest is for strict ones.
    pub admit_below: u64,
    /// Fill from which strict agents are stopped.
    pub stop_at: u64,
}

macro_rules! no_padding {
    ($($type:ty = $size:expr),* $(,)?) => { $(const _: () = assert!(core::mem::size_of::<$type>() == $size);)* };
}
no_padding! {
    Agent = 8, EgressKey = 32, Egress = 24, LimitKey = 16, Limit = 56, SpentKey = 24, Spent = 320, Flow = 32, Stats = 64, Count = 16, Hist = 256, Start = 16, Throttled = 16, Process = 16, State = 80,
    Head = 32, Cred = 24, ForkRecord = 64, ExecRecord = 88, ExitRecord = 64, NetRecord = 72, OomRecord = 40,
    PrivRecord = 104, FileRecord = 56, SyscallRecord = 80, LsmRecord = 64,
    DeviceRecord = 64,
}
