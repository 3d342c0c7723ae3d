//! The files as they are written: serde types with a JSON Schema, before any check. Unknown fields are errors.

mod manifest;
mod policy;
mod shapes;

pub(crate) use manifest::{
    ApiVersion, Audit, AuditWord, Capabilities, Checkpoint, Io, Manifest, ManifestKind, Memory, Metadata,
    NetworkMode, Resources, Restart, Spec, Workspace,
};
pub use manifest::{AuditMode, Budget, Mode, PolicyOverrides, Privacy, RestartPolicy, Sla};
pub(crate) use policy::{CapabilityPolicy, CgroupProfiles};
pub use shapes::{Gpu, Usd};
pub(crate) use shapes::{ListOr, TextOrList, WordOr};
