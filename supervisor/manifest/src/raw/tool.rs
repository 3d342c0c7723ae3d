//! `tool.yml` as it is written. The comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;

use aion_types::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::manifest::ApiVersion;
use super::shapes::{Scalar, TextOrList, Usd};
use super::span::Span;

/// A tool that agents invoke through the kernel.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "AION tool")]
pub(crate) struct Tool {
    /// The version of this format.
    #[serde(rename = "apiVersion")]
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: ToolKind,
    /// Which tool it is.
    pub(crate) metadata: ToolMetadata,
    /// What it is.
    pub(crate) spec: ToolSpec,
}

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum ToolKind {
    /// A tool.
    Tool,
}

/// Which tool it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolMetadata {
    /// 1 to 64 letters, digits, '_', '-' and '.'.
    pub(crate) name: String,
    /// Its own version, as 1.2.0.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// What it does, for agents and models.
    #[serde(default)]
    pub(crate) description: Option<String>,
}

/// What a tool is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolSpec {
    /// `exec:` or `rust:` and a command: one process for each call, arguments as JSON on its standard input, its result as JSON on
    /// its standard output. `wasm:` and a file beside tool.yml: a WebAssembly component (WASI preview 2) or module (preview 1), an
    /// instance for each call, with the same standard input and output. `mcp:` and a command, or the address of a server: a server
    /// of the Model Context Protocol. A program with a '/' in its name and no '/' in front is a file beside tool.yml.
    pub(crate) entry: TextOrList,
    /// Limits of a `wasm:` tool.
    #[serde(default)]
    pub(crate) wasm: Option<ToolWasm>,
    /// What an `mcp:` tool is at its server.
    #[serde(default)]
    pub(crate) mcp: Option<ToolMcp>,
    /// What goes in and comes out.
    #[serde(default)]
    #[expect(dead_code, reason = "its form is checked here, its schemas are read from the tree")]
    pub(crate) io: Option<ToolIo>,
    /// Capabilities that whoever invokes it must have.
    #[serde(default)]
    pub(crate) capabilities_required: Vec<String>,
    /// Its sandbox.
    #[serde(default)]
    pub(crate) security: Option<ToolSecurity>,
    /// Signatures of it.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    #[expect(dead_code, reason = "read from the tree")]
    pub(crate) signatures: Option<IgnoredAny>,
    /// How long one call may take; 30s when absent.
    #[serde(default)]
    pub(crate) timeout: Option<Span>,
    /// Files and folders beside tool.yml that it needs, apart from its program.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    /// Its environment.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) env: BTreeMap<String, String>,
    /// US dollars for one call; free when absent.
    #[serde(default)]
    pub(crate) price: Option<Usd>,
}

/// What one call of a WebAssembly tool may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolWasm {
    /// Units of computation, about one for each instruction; the runner's default when absent.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) fuel: Option<u64>,
    /// Memory, from 64Ki to 4Gi; 64Mi when absent. It counts towards that of the tool's class.
    #[serde(default)]
    pub(crate) max_memory: Option<ByteSize>,
}

/// What a tool is at its MCP server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolMcp {
    /// Its name there; the tool's own when absent.
    #[serde(default)]
    pub(crate) tool: Option<String>,
}

/// What goes in and comes out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolIo {
    /// Its arguments.
    #[serde(default)]
    #[expect(dead_code, reason = "read from the tree, where numbers are not yet texts")]
    pub(crate) input: Option<SchemaOf>,
    /// Its result.
    #[serde(default)]
    #[expect(dead_code, reason = "read from the tree, where numbers are not yet texts")]
    pub(crate) output: Option<SchemaOf>,
}

/// The form of a value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaOf {
    /// In short, as "query:string, limit:int?"; or a JSON Schema.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    #[expect(dead_code, reason = "read from the tree")]
    pub(crate) schema: Option<IgnoredAny>,
}

/// A tool's sandbox.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolSecurity {
    /// Its seccomp profile; tool-strict when absent.
    #[serde(default)]
    pub(crate) seccomp_profile: Option<String>,
    /// Its class in cgroup_profiles.yaml; tool-low when absent.
    #[serde(default)]
    pub(crate) cgroup: Option<String>,
    /// Which network it sees; none when absent.
    #[serde(default)]
    pub(crate) network: Option<super::manifest::NetworkMode>,
}
