//! Counters of an agent, summed over all CPUs.

use crate::grams::GramModel;

/// What the programs counted for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentCounters {
    /// Records that were written to the ring buffer.
    pub events: u64,
    /// Records that were lost because it was full.
    pub dropped: u64,
    /// Calls that a cgroup or LSM program refused.
    pub denied: u64,
    /// Times a process of a strict agent was stopped because the buffer was nearly full.
    pub throttled: u64,
    /// Traffic.
    pub net: NetBytes,
}

/// Traffic of an agent's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetBytes {
    /// Bytes received, from the network header on.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes sent, from the network header on.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
}

/// One system call's counters (modes `Count`, `Latency` and `Full`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallCounter {
    /// Its number; the last one stands for all numbers above it.
    pub nr: u32,
    /// Calls that returned.
    pub count: u64,
    /// Of these, calls that returned an error.
    pub errors: u64,
    /// Bucket `i` counts calls that took `2^i..2^(i+1)` ns; empty unless the mode is `Latency`. Trailing
    /// zero buckets are left out.
    pub latency_log2_ns: Vec<u64>,
}

/// The last word on an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FinalCounters {
    /// Events, drops, traffic.
    pub counters: AgentCounters,
    /// System calls that were made at least once.
    pub syscalls: Vec<SyscallCounter>,
    /// What its system calls are known for, when that was looked at.
    pub grams: Option<GramModel>,
}
