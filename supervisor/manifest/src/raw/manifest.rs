//! `agent.yml` as it is written. The comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;

use aion_types::{ByteSize, CpuMillis, LayerName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shapes::{Gpu, ListOr, Scalar, TextOrList, Usd, WordOr};

/// An agent for AION: what it runs, what it may do, and what it may use.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "AION agent manifest")]
pub(crate) struct Manifest {
    /// The version of this format.
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    pub(crate) kind: ManifestKind,
    /// Who the agent is.
    pub(crate) metadata: Metadata,
    /// What it runs and what it may do.
    pub(crate) spec: Spec,
}

/// The version of AION's files.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub(crate) enum ApiVersion {
    /// The only one so far.
    #[serde(rename = "aion.os/v1")]
    V1,
}

/// The kind of manifest.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub(crate) enum ManifestKind {
    /// An agent.
    Agent,
}

/// Who the agent is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    /// Unique in its tenant: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    pub(crate) name: String,
    /// The agent's own version, such as "1.0.0".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Scalar>")]
    pub(crate) version: Option<String>,
    /// Anything to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// What the agent runs and what it may do.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// The program and its arguments: a list, or a text that is split as a shell splits words. No shell runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entry: Option<TextOrList>,
    /// `job` ends, `service` stays. Default: job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Mode>,
    /// 0 (least) to 9 (most). Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub(crate) priority: Option<u32>,
    /// Wall-clock limit of a job, or of one task of a service, in milliseconds. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000_000_u64))]
    pub(crate) timeout_ms: Option<u64>,
    /// Whether it can be given tasks. Default: true for a job, false for a service, which must speak AION's runtime protocol for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tasks: Option<bool>,
    /// How many tasks at once: in one process of a service, in as many processes of a job. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) concurrency: Option<u64>,
    /// How a task makes room and goes on later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<Checkpoint>,
    /// How long memories are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    /// What the agent may do. What is not given it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<ListOr<Capabilities>>,
    /// System calls of AION's kernel API that it may make: names, or prefixes such as "memory.*".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) syscalls: Option<Vec<String>>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    /// The environment: these variables and AION's own, nothing else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) env: BTreeMap<String, String>,
    /// Names of stored secrets, shown as files /run/secrets/NAME.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<String>,
    /// The folder at /workspace: `managed` (its own, private) or an absolute host folder. Default: managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<WordOr<String, Workspace>>,
    /// The root: `host` (the host's /usr, read-only) or an absolute folder. Default: host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rootfs: Option<String>,
    /// `none` or `host`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkMode>,
    /// What happens when it ends. Default: never for a job, on-failure for a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restart: Option<WordOr<RestartPolicy, Restart>>,
    /// What is recorded: `events`, `count`, `latency`, `full`, or `strict` (events, and none may be lost). Default: events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<WordOr<AuditWord, Audit>>,
    /// The seccomp profile. Default: default-restrictive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,62}$"))]
    pub(crate) seccomp_profile: Option<String>,
    /// Layers without which it may start, where the kernel lacks them. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow_degraded: Vec<LayerName>,
    /// The host name inside. Default: the agent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hostname: Option<String>,
    /// Whether it has a terminal. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tty: Option<bool>,
    /// How long `stop` waits between asking and killing, in milliseconds. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 600_000))]
    pub(crate) stop_grace_ms: Option<u64>,
    /// How much output is kept. Default: the launcher's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log_max: Option<ByteSize>,
    /// Stricter or looser than the tenant's policy, where that lets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy_overrides: Option<PolicyOverrides>,
    /// What it does not exceed, whatever `scheduler.yaml` lets it have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<Quota>,
}

/// Whether an agent ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Runs until it is stopped.
    Service,
    /// Does its work and ends.
    Job,
}

/// How a task makes room and goes on later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    /// How often a running task is asked for a checkpoint, in milliseconds. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 86_400_000))]
    pub(crate) interval_ms: Option<u64>,
    /// How long a task that must make room has for its checkpoint, in milliseconds. Default: 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 600_000))]
    pub(crate) grace_ms: Option<u64>,
    /// The largest checkpoint of a task. Default: 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_bytes: Option<ByteSize>,
    /// Whether its processes may be frozen in place instead. Default: where one task at a time is in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) freeze: Option<bool>,
}

/// How long memories are kept, in seconds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// Short-term memory. Default: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub(crate) short_ttl_s: Option<u64>,
    /// Long-term memory. Default: 1209600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub(crate) long_ttl_s: Option<u64>,
    /// Episodic memory. Default: 259200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 315_360_000))]
    pub(crate) episodic_ttl_s: Option<u64>,
}

/// What the agent may do, in coarse and fine words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capabilities {
    /// Files of the workspace through the kernel API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filesystem: Option<bool>,
    /// Any host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<bool>,
    /// A GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<bool>,
    /// Any program. Without it, and without `exec:` rules, only the entry may be executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subprocess: Option<bool>,
    /// More: fs:read:PATH, fs:write:PATH, net:connect:HOST:PORT, exec:PATH, device:read:NODE, device:write:NODE, tool:NAME, model:NAME, memory:OP:KIND, secret:use:NAME, agent:send:NAME, gpu.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<String>,
    /// What it may not do all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) deny: Vec<String>,
}

/// Limits. What is not given comes from the class.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resources {
    /// A class of profiles/cgroup_profiles.yaml: tool-low, agent-default or agent-large. Default: agent-default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
    /// CPU time: thousandths as "500m", or processors as "2".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<CpuMillis>,
    /// Memory, such as "512Mi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mem: Option<ByteSize>,
    /// none, optional, required, or how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<Gpu>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100_000))]
    pub(crate) pids: Option<u64>,
    /// What may be stored in a managed workspace, such as "1Gi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disk: Option<ByteSize>,
    /// The largest file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file_size: Option<ByteSize>,
    /// Descriptors for each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub(crate) open_files: Option<u64>,
    /// Disk traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) io: Option<Io>,
    /// What it may use of its network. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkLimits>,
}

/// What an agent may use of its network, with network mode `egress` or `host`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkLimits {
    /// Bytes sent within any hour, such as "500Mi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_out_per_hour: Option<ByteSize>,
    /// Bytes received within any hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_in_per_hour: Option<ByteSize>,
    /// Connections that begin in a second, and datagrams to somewhere new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) connections_per_second: Option<u64>,
    /// The same in a minute; one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) connections_per_minute: Option<u64>,
    /// How many of them at once. Default: as many as in the second, or minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) connections_burst: Option<u64>,
    /// Further limits for single hosts of network mode `egress`, at most 8. One without a limit is counted by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) destinations: Vec<DestinationLimits>,
}

/// What an agent may use with one host, within what it may use in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationLimits {
    /// The host, as HOST:PORT of one of its `net:connect:` capabilities.
    pub(crate) to: String,
    /// Bytes sent within any hour, such as "100Mi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_out_per_hour: Option<ByteSize>,
    /// Bytes received within any hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_in_per_hour: Option<ByteSize>,
    /// Connections that begin in a second, and datagrams to somewhere new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) connections_per_second: Option<u64>,
    /// The same in a minute; one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) connections_per_minute: Option<u64>,
    /// How many of them at once. Default: as many as in the second, or minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) connections_burst: Option<u64>,
}

/// Disk traffic.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Io {
    /// Bytes read in a second, such as "50Mi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_bps: Option<ByteSize>,
    /// Bytes written in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) write_bps: Option<ByteSize>,
    /// Share of the disk when it is busy, 1 to 10000; 100 is normal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub(crate) weight: Option<u64>,
}

/// The folder at /workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workspace {
    /// `managed` or an absolute host folder. Default: managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// Whether it is only read. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_only: Option<bool>,
}

/// Which network an agent sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkMode {
    /// An empty one of its own.
    None,
    /// The host's.
    Host,
    /// Its own, with a way out to what `net:connect:` capabilities name.
    Egress,
}

/// When an agent is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// When it ended with another code than 0, or by a signal, a limit or a crash of the host.
    OnFailure,
    /// Always, unless it was stopped.
    Always,
}

/// What happens when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restart {
    /// When it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<RestartPolicy>,
    /// How often in a row at most. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub(crate) max_restarts: Option<u64>,
    /// The pause before the first restart in milliseconds; it doubles with each. Default: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600_000))]
    pub(crate) backoff_ms: Option<u64>,
}

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditMode {
    /// Programs, connections, files opened for writing, denials.
    Events,
    /// And how often each system call was made.
    Count,
    /// And how long each took.
    Latency,
    /// And each single one.
    Full,
}

/// [`AuditMode`] or `strict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuditWord {
    /// Programs, connections, files opened for writing, denials.
    Events,
    /// And how often each system call was made.
    Count,
    /// And how long each took.
    Latency,
    /// And each single one.
    Full,
    /// Events; the agent waits before one would be lost.
    Strict,
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audit {
    /// How much. Default: events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<AuditMode>,
    /// Whether the agent waits before a record would be lost. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) strict: Option<bool>,
}

/// Wishes to the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyOverrides {
    /// Service levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sla: Option<Sla>,
    /// What it may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Where its data may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Privacy>,
}

/// What an agent does not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Tasks of it that run at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrency: Option<u64>,
    /// Tokens that its system calls use in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub token_rate: Option<u64>,
    /// US dollars that its system calls cost in an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_per_hour: Option<Usd>,
}

impl Quota {
    /// Of each the smaller one.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        fn least<T: Copy>(a: Option<T>, b: Option<T>, key: impl Fn(T) -> u64) -> Option<T> {
            a.into_iter().chain(b).min_by_key(|&value| key(value))
        }
        Self {
            max_concurrency: least(self.max_concurrency, other.max_concurrency, |n| n),
            token_rate: least(self.token_rate, other.token_rate, |n| n),
            usd_per_hour: least(self.usd_per_hour, other.usd_per_hour, |usd| usd.micros),
        }
    }
}

/// Service levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sla {
    /// 95 of 100 tasks are done in this time, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub p95_ms: u64,
}

/// What it may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// US dollars for one task.
    pub usd_max: Usd,
}

/// Where its data may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// Whether models in the cloud may see them.
    pub allow_cloud: bool,
}
