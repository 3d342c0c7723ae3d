//! A checked manifest. It can be read and cannot be changed; only `check` makes one.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use aion_types::{AgentName, ByteSize, CpuMillis, LayerName};

use crate::capability::{Capability, Rule};
use crate::raw::{AuditMode, Gpu, Mode, PolicyOverrides, Quota, RestartPolicy};

/// An agent, checked. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentSpec(pub(crate) Arc<Spec>);

impl Deref for AgentSpec {
    type Target = Spec;
    fn deref(&self) -> &Spec {
        &self.0
    }
}

/// What an [`AgentSpec`] holds.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub struct Spec {
    /// Unique in its tenant.
    pub name: AgentName,
    /// The agent's own version.
    pub version: String,
    /// Anything to find it by.
    pub labels: BTreeMap<String, String>,
    /// The program and its arguments; at least one.
    pub argv: Vec<String>,
    /// Whether it ends by itself.
    pub mode: Mode,
    /// 0 to 9.
    pub priority: u8,
    /// As given; see [`Spec::wall_ms`].
    pub timeout_ms: Option<u64>,
    /// How it serves tasks; none: it does not.
    pub tasks: Option<Tasks>,
    /// How long memories are kept.
    pub memory: MemoryTtl,
    /// What it asked to be allowed, with coarse words expanded.
    pub allow: Vec<Rule>,
    /// What it asked to be denied.
    pub deny: Vec<Rule>,
    /// System calls of the kernel API.
    pub syscalls: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// The environment that it asked for.
    pub env: BTreeMap<String, String>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// What is at /workspace.
    pub workspace: Workspace,
    /// What is at /.
    pub rootfs: Rootfs,
    /// Which network it sees.
    pub network: Network,
    /// What happens when it ends.
    pub restart: Restart,
    /// How much is recorded.
    pub audit: AuditMode,
    /// Whether it waits before a record would be lost.
    pub audit_strict: bool,
    /// The seccomp profile's name; that it exists is not known here.
    pub seccomp_profile: String,
    /// Layers without which it may start.
    pub allow_degraded: Vec<LayerName>,
    /// The host name inside.
    pub hostname: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Between asking and killing.
    pub stop_grace_ms: u64,
    /// How much output is kept; none: the launcher's default.
    pub log_max: Option<ByteSize>,
    /// Wishes to the policy.
    pub policy_overrides: PolicyOverrides,
    /// What it does not exceed; `tasks.concurrency` is within it.
    pub quota: Quota,
    /// Host files and folders that it sees at their own path, from `fs:` capabilities. Sorted; parents come first.
    pub binds: Vec<Bind>,
    /// What it may execute.
    pub exec: ExecPolicy,
    /// Character devices of the host that it sees at their own path, from `device:` capabilities. Sorted.
    pub devices: Vec<Device>,
    /// What is allowed and probably not meant, for people.
    pub warnings: Vec<String>,
}

impl Spec {
    /// The wall-clock limit of the process: that of a job. A service's timeout is for each task, not for the process.
    #[must_use]
    pub const fn wall_ms(&self) -> Option<u64> {
        match self.mode {
            Mode::Job => self.timeout_ms,
            Mode::Service => None,
        }
    }

    /// Whether it gets a socket to AION: a service that serves tasks, and whatever makes calls of the kernel API. The tasks of a
    /// job come by files.
    #[must_use]
    pub fn has_door(&self) -> bool {
        !self.syscalls.is_empty() || (self.mode == Mode::Service && self.tasks.is_some())
    }

    /// The share of the CPU on the scale of cgroup v2: the class's, moved by the priority (5 leaves it as it is).
    #[must_use]
    pub fn cpu_weight(&self) -> u32 {
        const PERCENT: [u32; 10] = [10, 20, 35, 50, 75, 100, 150, 225, 350, 500];
        let percent = PERCENT.get(usize::from(self.priority)).copied().unwrap_or(100);
        (self.resources.cpu_weight.saturating_mul(percent) / 100).clamp(1, 10_000)
    }

    /// Whom it reaches with network mode `egress`, as `HOST:PORT`.
    #[must_use]
    pub fn egress(&self) -> Vec<String> {
        if self.network != Network::Egress {
            return Vec::new();
        }
        let target = |rule: &Rule| match &rule.capability {
            Capability::Net { host, port } => Some(format!("{host}:{port}")),
            _ => None,
        };
        self.allow.iter().filter_map(target).collect()
    }

    /// Whether only the entry may be executed, and what [`Spec::exec_allow`] names.
    #[must_use]
    pub fn restrict_exec(&self) -> bool {
        self.exec != ExecPolicy::Any
    }

    /// Files and folders that may be executed, from `exec:` rules.
    #[must_use]
    pub fn exec_allow(&self) -> &[PathBuf] {
        match &self.exec {
            ExecPolicy::Listed(paths) => paths,
            _ => &[],
        }
    }
}

/// How an agent serves tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tasks {
    /// How many at once, 1 to 1024: in one process of a service, in as many processes of a job.
    pub concurrency: u32,
    /// How a task makes room and goes on later.
    pub checkpoint: Checkpoint,
}

/// How a task makes room and goes on later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// How often a running task is asked for one; none: only when it must make room.
    pub interval_ms: Option<u64>,
    /// How long it has for it when it must make room.
    pub grace_ms: u64,
    /// The largest.
    pub max_bytes: ByteSize,
    /// Whether its processes may be frozen in place instead. Never with several tasks in one process.
    pub freeze: bool,
}

/// How long memories are kept, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryTtl {
    /// Short-term.
    pub short_s: u64,
    /// Long-term.
    pub long_s: u64,
    /// Episodic.
    pub episodic_s: u64,
}

/// Limits, all of them decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// The class that the values not given came from.
    pub class: String,
    /// CPU time.
    pub cpu: CpuMillis,
    /// The class's share of the CPU.
    pub cpu_weight: u32,
    /// Memory.
    pub mem: ByteSize,
    /// Processes and threads.
    pub pids: u32,
    /// What may be stored in a managed workspace.
    pub disk: ByteSize,
    /// The largest file.
    pub file_size: ByteSize,
    /// Descriptors for each process.
    pub open_files: u32,
    /// GPUs.
    pub gpu: Gpu,
    /// Bytes read in a second.
    pub io_read_bps: Option<ByteSize>,
    /// Bytes written in a second.
    pub io_write_bps: Option<ByteSize>,
    /// Share of the disk.
    pub io_weight: u32,
    /// What it may use of its network.
    pub network: NetworkLimits,
}

/// What an agent may use of its network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkLimits {
    /// In all.
    pub whole: NetworkLimit,
    /// With single hosts: `HOST:PORT` as in [`Spec::egress`], and how much. None is there twice.
    pub destinations: Vec<(String, NetworkLimit)>,
}

impl NetworkLimits {
    /// Whether nothing is limited, and nothing counted by itself.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What may be used of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkLimit {
    /// Bytes sent within any hour.
    pub bytes_out_per_hour: Option<ByteSize>,
    /// Bytes received within any hour.
    pub bytes_in_per_hour: Option<ByteSize>,
    /// How often connections begin.
    pub connections: Option<ConnectionRate>,
}

/// How often connections begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionRate {
    /// So many in the time, 1 to 10000.
    pub count: u32,
    /// In a minute; else in a second.
    pub per_minute: bool,
    /// So many at once, 1 to 10000.
    pub burst: u32,
}

/// What is at /workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// A host folder; none: a private volume.
    pub directory: Option<PathBuf>,
    /// Whether it is only read.
    pub read_only: bool,
}

/// What is at /.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// The host's system, read-only.
    Host,
    /// A folder, read-only.
    Directory(PathBuf),
}

/// Which network it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// An empty one of its own.
    None,
    /// The host's.
    Host,
    /// One of its own, with a way out to what its capabilities `net:connect:` name.
    Egress,
}

/// What happens when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// How often in a row.
    pub max_restarts: u32,
    /// The first pause; it doubles with each.
    pub backoff_ms: u64,
}

/// A host file or folder that the agent sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The same outside and inside.
    pub path: PathBuf,
    /// Whether it may write there.
    pub writable: bool,
}

/// A character device of the host that the agent sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node, the same outside and inside.
    pub path: PathBuf,
    /// Whether it may open it for writing.
    pub writable: bool,
}

/// What may be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecPolicy {
    /// Anything.
    Any,
    /// These files, and what is in these folders.
    Listed(Vec<PathBuf>),
    /// The entry alone.
    EntryOnly,
}
