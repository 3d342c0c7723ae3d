//! The files of the operator: global capability rules and cgroup classes.

use std::collections::BTreeMap;

use aion_types::{ByteSize, CpuMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::manifest::{ApiVersion, Io};
use super::shapes::Gpu;

/// `policies/agent.capabilities.yaml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "AION global capability rules")]
pub(crate) struct CapabilityPolicy {
    /// The version of this format.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: CapabilityPolicyKind,
    /// What agents may have: capabilities or coarse names. An agent gets what it asks for and one of these covers.
    pub(crate) allow: Vec<String>,
    /// What no agent may have, whatever `allow` says.
    #[serde(default)]
    pub(crate) deny: Vec<String>,
    /// What a person must agree to each time: system calls (`net.fetch`, `tool.*`) or capabilities (`tool:deploy`).
    #[serde(default)]
    pub(crate) approval: Vec<String>,
    /// What agents may ask for in `spec.resources` at most. One that asks for more is refused; one that does not name a limit has this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Ceilings>,
}

/// What agents may ask for at most.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ceilings {
    /// Of the network, with `network: egress` or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<NetworkCeiling>,
}

/// What an agent may use of its network at most.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkCeiling {
    /// Bytes sent within any hour, such as "10Gi".
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

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum CapabilityPolicyKind {
    /// Global capability rules.
    CapabilityPolicy,
}

/// `profiles/cgroup_profiles.yaml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "AION cgroup classes")]
pub(crate) struct CgroupProfiles {
    /// The version of this format.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: CgroupProfilesKind,
    /// The classes by name.
    pub(crate) profiles: BTreeMap<String, CgroupProfile>,
}

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum CgroupProfilesKind {
    /// Cgroup classes.
    CgroupProfiles,
}

/// What an agent of a class has, unless its manifest says otherwise.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CgroupProfile {
    /// What the class is for.
    pub(crate) description: String,
    /// CPU time.
    pub(crate) cpu: CpuMillis,
    /// Share of the CPU when it is scarce, 1 to 10000; 100 is normal.
    #[schemars(range(min = 1, max = 10000))]
    pub(crate) cpu_weight: u32,
    /// Memory, swap included.
    pub(crate) mem: ByteSize,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) pids: u32,
    /// What may be stored in a managed workspace.
    pub(crate) disk: ByteSize,
    /// The largest file; the disk limit when absent.
    #[serde(default)]
    pub(crate) file_size: Option<ByteSize>,
    /// Descriptors for each process.
    #[schemars(range(min = 16, max = 1_048_576))]
    pub(crate) open_files: u32,
    /// GPUs.
    pub(crate) gpu: Gpu,
    /// Disk traffic.
    #[serde(default)]
    pub(crate) io: Option<Io>,
}
