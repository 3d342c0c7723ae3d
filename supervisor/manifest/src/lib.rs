//! `agent.yml`: parsed with the place of everything, checked, and turned into an [`AgentSpec`] that cannot be wrong.
//!
//! ```text
//! bytes ─yaml─▶ nodes with places ─raw─▶ serde types ─overrides─▶ ─check─▶ AgentSpec ─restrict─▶ Effective
//! ```
//! Everything here is pure: no file is opened, no clock is read. Neighbours: `aiond` and `aionctl validate` call it; the launcher
//! never does (it parses no YAML, and checks every field of its own protocol).

mod alerts;
mod bounds;
mod capability;
mod check;
mod classes;
mod config;
mod detection;
mod error;
mod normal;
mod overrides;
mod problems;
mod raw;
mod restrict;
mod scheduler;
mod spec;
mod task;
mod tool;
mod yaml;

pub use alerts::{AlertWebhook, AlertWebhooks, WebhookFile};
pub use bounds::NetworkBound;
pub use capability::{
    Access, ApprovalRule, Asked, Capability, CapabilityPolicy, Coarse, Effective, Exception, Family, Grant,
    HostPattern, MemoryKind, MemoryOp, NamePattern, PathPattern, PortPattern, Refusal, Rule, Verdict,
    effective, parse_capabilities,
};
pub use check::Context;
pub use classes::{Class, Classes, DEFAULT_CLASS};
pub use config::{ConfigFile, Setting};
pub use detection::{SHIPPED_DETECTIONS, parse_detection, parse_detections, shipped_detections};
pub use error::{Error, Place, Problem};
pub use overrides::Overrides;
pub use raw::{AuditMode, Budget, Gpu, Mode, PolicyOverrides, Privacy, Quota, RestartPolicy, Sla, Usd};
pub use raw::{QueueName, Span};
pub use restrict::{withheld_hosts, withheld_of_launch};
pub use scheduler::{Quotas, SchedulerFile, TenantShare};
pub use spec::{
    AgentSpec, Bind, Checkpoint, ConnectionRate, Device, ExecPolicy, MemoryTtl, Network, NetworkLimit,
    NetworkLimits, Resources, Restart, Rootfs, Spec, Tasks, Workspace,
};
pub use task::{TaskFile, TaskRetry};
pub use tool::{McpEntry, ToolEntry, ToolFile, WasmLimits};

use aion_types::ErrorCode;

impl AgentSpec {
    /// Reads a manifest. `file` is its name for messages.
    ///
    /// # Errors
    /// `MANIFEST_INVALID` (or `TOO_LARGE`) with every problem, its line, column and field.
    pub fn parse(bytes: &[u8], file: &str, overrides: Overrides, context: &Context) -> Result<Self, Error> {
        let invalid = |problem| Error::new(ErrorCode::ManifestInvalid, vec![problem]);
        let tree = yaml::parse(bytes, file).map_err(|m| {
            let code = if m.too_large { ErrorCode::TooLarge } else { ErrorCode::ManifestInvalid };
            Error::new(code, vec![*m.problem])
        })?;
        header(&tree, file, "Agent", "only an Agent can be run").map_err(invalid)?;
        let mut manifest: raw::Manifest = yaml::from_node(&tree, file).map_err(invalid)?;
        let overridden = overrides.apply(&mut manifest);
        check::check(manifest, context, file, Some(&tree), &overridden)
    }

    /// The agent of a bare command: no manifest, safe defaults. It may use its workspace and run programs; nothing else.
    ///
    /// # Errors
    /// As [`AgentSpec::parse`], about the command line.
    pub fn for_command(overrides: Overrides, context: &Context) -> Result<Self, Error> {
        let program = overrides.argv.first().map(String::as_str).unwrap_or_default();
        let mut manifest = raw::Manifest {
            api_version: raw::ApiVersion::V1,
            kind: raw::ManifestKind::Agent,
            metadata: raw::Metadata { name: name_for(program), version: None, labels: Default::default() },
            spec: raw::Spec {
                capabilities: Some(raw::ListOr::Full(raw::Capabilities {
                    filesystem: Some(true),
                    subprocess: Some(true),
                    ..Default::default()
                })),
                ..Default::default()
            },
        };
        let overridden = overrides.apply(&mut manifest);
        check::check(manifest, context, overrides::COMMAND_LINE, None, &overridden)
    }
}

/// A name from a program's: its last part, with what a name cannot have left out.
fn name_for(program: &str) -> String {
    let last = program.rsplit('/').next().unwrap_or_default().to_lowercase();
    let kept: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let kept = kept.trim_matches('-');
    if kept.is_empty() { "agent".to_owned() } else { kept.to_owned() }
}

/// What the file is comes first: the other fields of another kind would only confuse.
fn header(tree: &yaml::Node, file: &str, kind: &str, why: &str) -> Result<(), Problem> {
    let fault = |field: &str, message: String, fix: &str| {
        let place = if field.is_empty() { tree.place } else { tree.place_of(field) };
        Problem {
            file: file.to_owned(),
            place: Some(place),
            field: field.to_owned(),
            message,
            fix: fix.to_owned(),
        }
    };
    let yaml::Kind::Map(_) = tree.kind else {
        let message = format!("a manifest is a mapping, this is {}", tree.kind.describe());
        return Err(fault("", message, "begin with \"apiVersion: aion.os/v1\""));
    };
    for (field, expected, what) in
        [("apiVersion", "aion.os/v1", "this version reads aion.os/v1"), ("kind", kind, why)]
    {
        match tree.get(field).map(|n| &n.kind) {
            Some(yaml::Kind::Scalar { text, .. }) if text == expected => {}
            Some(other) => {
                return Err(fault(
                    field,
                    format!("{} is not known; {what}", other.describe()),
                    &format!("write {field}: {expected}"),
                ));
            }
            None => {
                return Err(fault("", format!("{field} is missing"), &format!("write {field}: {expected}")));
            }
        }
    }
    Ok(())
}

/// The JSON Schema of `agent.yml`, for editors.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(raw::Manifest).to_value()
}

/// The JSON Schemas of all files that this crate reads: name of the schema file, schema.
#[must_use]
pub fn json_schemas() -> Vec<(&'static str, serde_json::Value)> {
    vec![
        ("agent.schema.json", json_schema()),
        ("cgroup_profiles.schema.json", schemars::schema_for!(raw::CgroupProfiles).to_value()),
        ("capabilities.schema.json", schemars::schema_for!(raw::CapabilityPolicy).to_value()),
        ("config.schema.json", schemars::schema_for!(raw::Config).to_value()),
        ("detection.schema.json", schemars::schema_for!(raw::Detection).to_value()),
        ("scheduler.schema.json", schemars::schema_for!(raw::Scheduler).to_value()),
        ("task.schema.json", schemars::schema_for!(raw::Task).to_value()),
        ("tool.schema.json", schemars::schema_for!(raw::Tool).to_value()),
    ]
}
