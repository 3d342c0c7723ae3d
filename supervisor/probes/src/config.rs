//! What the programs need to know of an agent.

use aion_probe_types::layout::flag;

/// How much is recorded of an agent's system calls. Exec, fork, exit, network and denials always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AuditMode {
    /// No system-call probe.
    #[default]
    Events,
    /// Counts for each system call.
    Count,
    /// Counts and log2 latency histograms.
    Latency,
    /// Counts and one record for each system call.
    Full,
}

impl AuditMode {
    /// Whether it needs a system-call probe.
    #[must_use]
    pub const fn traces_syscalls(self) -> bool {
        !matches!(self, Self::Events)
    }

    pub(crate) const fn flags(self) -> u32 {
        match self {
            Self::Events => 0,
            Self::Count => flag::COUNT,
            Self::Latency => flag::COUNT | flag::LATENCY,
            Self::Full => flag::COUNT | flag::TRACE,
        }
    }
}

/// What the cgroup programs let through. Each attempt is recorded with its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetPolicy {
    /// Everything (network mode `host`).
    AllowAll,
    /// Only loopback: for an agent in a network namespace of its own (network mode `none`).
    LoopbackOnly,
    /// Loopback, and what the agent's entries say (network mode `egress`); see [`crate::Probes::set_reach`].
    Egress,
    /// Nothing at all.
    DenyAll,
}

impl NetPolicy {
    pub(crate) const fn flags(self) -> u32 {
        match self {
            Self::AllowAll => 0,
            Self::LoopbackOnly => flag::NET_LOOPBACK,
            Self::Egress => flag::NET_EGRESS,
            Self::DenyAll => flag::NET_DENY,
        }
    }
}

/// An agent's entry in the probes' maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentConfig {
    /// What is recorded of its system calls.
    pub mode: AuditMode,
    /// No record may be lost: the agent is held back before one would be.
    pub strict: bool,
    /// What it may reach.
    pub net: NetPolicy,
}

impl AgentConfig {
    pub(crate) const fn flags(self) -> u32 {
        let strict = if self.strict { flag::STRICT } else { 0 };
        self.mode.flags() | self.net.flags() | strict
    }

    pub(crate) const fn from_flags(flags: u32) -> Self {
        let mode = if flags & flag::TRACE != 0 {
            AuditMode::Full
        } else if flags & flag::LATENCY != 0 {
            AuditMode::Latency
        } else if flags & flag::COUNT != 0 {
            AuditMode::Count
        } else {
            AuditMode::Events
        };
        let net = if flags & flag::NET_DENY != 0 {
            NetPolicy::DenyAll
        } else if flags & flag::NET_LOOPBACK != 0 {
            NetPolicy::LoopbackOnly
        } else if flags & flag::NET_EGRESS != 0 {
            NetPolicy::Egress
        } else {
            NetPolicy::AllowAll
        };
        Self { mode, strict: flags & flag::STRICT != 0, net }
    }
}
