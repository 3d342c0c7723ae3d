//! The files as they are written: serde types with a JSON Schema, before any check. Unknown fields are errors.

mod config;
mod detection;
mod manifest;
mod policy;
mod scheduler;
mod shapes;
mod span;
mod task;
mod tool;

pub(crate) use config::{AlertWebhook, Config};
pub(crate) use detection::{
    ActionWord, BeaconOf, Condition, Detection, DeviationOf, Exception, RateWord, SeverityWord, StepOf,
    TestOf,
};
pub(crate) use manifest::{
    ApiVersion, Audit, AuditWord, Capabilities, Checkpoint, DestinationLimits, Io, Manifest, ManifestKind,
    Memory, Metadata, NetworkLimits, NetworkMode, Resources, Restart, Spec, Workspace,
};
pub use manifest::{AuditMode, Budget, Mode, PolicyOverrides, Privacy, Quota, RestartPolicy, Sla};
pub(crate) use policy::{CapabilityPolicy, CgroupProfiles, NetworkCeiling};
pub(crate) use scheduler::{Quotas as SchedulerQuotas, Scheduler};
pub use shapes::{Gpu, Usd};
pub(crate) use shapes::{ListOr, TextOrList, WordOr};
pub use span::Span;
pub use task::QueueName;
pub(crate) use task::{Retry, Task};
pub(crate) use tool::{Tool, ToolMcp, ToolMetadata, ToolWasm};
