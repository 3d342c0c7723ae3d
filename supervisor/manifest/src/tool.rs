//! `tool.yml`: a tool that agents invoke, checked.

mod entry;

use std::collections::BTreeMap;

use aion_types::ErrorCode;
use serde_json::{Map, Value, json};

pub use self::entry::{McpEntry, ToolEntry, WasmLimits};
use crate::capability::{Capability, check_path, parse_rule};
use crate::check::is_version;
use crate::classes::Classes;
use crate::error::{Error, quote};
use crate::problems::Problems;
use crate::raw;
use crate::spec::Network;
use crate::yaml;

/// How long a call may take when the tool does not say.
const TIMEOUT_MS: u64 = 30_000;
/// The longest that it may say.
const MAX_TIMEOUT_MS: u64 = 600_000;
const MAX_FILES: usize = 256;
const MAX_DESCRIPTION: usize = 4096;

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolFile {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// What runs.
    pub entry: ToolEntry,
    /// What a call may use, for [`ToolEntry::Wasm`].
    pub wasm: WasmLimits,
    /// Its name at the server, for [`ToolEntry::Mcp`]; the tool's own unless the manifest says otherwise.
    pub mcp_tool: String,
    /// Form of its arguments: a JSON Schema of an object.
    pub input: Value,
    /// Form of its result: a JSON Schema.
    pub output: Value,
    /// What whoever invokes it must have: the word, and what it stands for.
    pub requires: Vec<(String, Vec<Capability>)>,
    /// The seccomp profile.
    pub seccomp_profile: String,
    /// The class in cgroup_profiles.yaml.
    pub class: String,
    /// The network that it sees.
    pub network: Network,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: u64,
    /// Files and folders beside tool.yml, relative.
    pub files: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Millionths of a US dollar for one call.
    pub usd_micros: u64,
}

impl ToolFile {
    /// Reads the file's content; `file` is its name for messages.
    ///
    /// # Errors
    /// `MANIFEST_INVALID` (or `TOO_LARGE`) with every problem, its line, column and field.
    pub fn parse(bytes: &[u8], file: &str, classes: &Classes) -> Result<Self, Error> {
        let failed = |problems| Error::new(ErrorCode::ManifestInvalid, problems);
        let tree = yaml::parse(bytes, file).map_err(|m| {
            let code = if m.too_large { ErrorCode::TooLarge } else { ErrorCode::ManifestInvalid };
            Error::new(code, vec![*m.problem])
        })?;
        crate::header(&tree, file, "Tool", "this is the manifest of a tool").map_err(|p| failed(vec![p]))?;
        let raw: raw::Tool = yaml::from_node(&tree, file).map_err(|p| failed(vec![p]))?;
        let mut c = Problems::of(&tree, file);
        let tool = c.tool(raw, classes);
        c.or(ErrorCode::ManifestInvalid, tool)
    }

    /// The tool's own files: the program or module when it is one, then `files`.
    #[must_use]
    pub fn own_files(&self) -> Vec<&str> {
        let program = self.entry.own_file();
        program.into_iter().chain(self.files.iter().map(String::as_str)).collect()
    }
}

/// Whether a program is a file of the tool's own.
#[must_use]
fn is_own(program: &str) -> bool {
    program.contains('/') && !program.starts_with('/')
}

/// A relative path that stays where it begins.
fn check_path_inside(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("it is empty".to_owned());
    }
    if path.starts_with('/') {
        return Err("it is not relative".to_owned());
    }
    check_path(&format!("/{path}"))
}

impl Problems<'_> {
    fn tool(&mut self, raw: raw::Tool, classes: &Classes) -> ToolFile {
        let raw::ToolMetadata { name, version, description } = raw.metadata;
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(good) {
            let message = format!("{} is not a tool's name", quote(&name));
            self.wrong(
                "metadata.name",
                message,
                "use 1 to 64 letters, digits and _-., not beginning with '.'",
            );
        }
        let version = version.unwrap_or_else(|| "0.0.0".to_owned());
        if !is_version(&version) {
            let message = format!("{} is not a version", quote(&version));
            self.wrong("metadata.version", message, "write up to three numbers, as 1.4.2");
        }
        let description = description.unwrap_or_default();
        if description.len() > MAX_DESCRIPTION {
            self.wrong("metadata.description", "it is too long", "use at most 4096 bytes");
        }
        let spec = raw.spec;
        let entry = self.entry(spec.entry);
        let wasm = self.wasm(&entry, spec.wasm);
        let mcp_tool = self.mcp(&entry, &name, spec.mcp);
        let security = spec.security.unwrap_or_default();
        let class = security.cgroup.unwrap_or_else(|| "tool-low".to_owned());
        if classes.get(&class).is_none() {
            let known: Vec<_> = classes.names().collect();
            let message = format!("there is no class {}", quote(&class));
            self.wrong("spec.security.cgroup", message, format!("use one of {}", known.join(", ")));
        }
        let seccomp_profile = security.seccomp_profile.unwrap_or_else(|| "tool-strict".to_owned());
        if seccomp_profile.is_empty() || seccomp_profile.len() > 64 || !seccomp_profile.bytes().all(good) {
            let message = format!("{} is not a profile's name", quote(&seccomp_profile));
            self.wrong("spec.security.seccomp_profile", message, "name a profile, as tool-strict");
        }
        if security.network == Some(raw::NetworkMode::Egress) {
            let message = "egress is a network mode of agents, not of tools".to_owned();
            self.wrong("spec.security.network", message, "use none or host");
        }
        let timeout_ms = spec.timeout.map_or(TIMEOUT_MS, |span| span.0);
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            self.wrong("spec.timeout", "it is out of range", "use 1ms to 10m");
        }
        if spec.files.len() > MAX_FILES {
            let message = format!("there are {} files, at most {MAX_FILES} are taken", spec.files.len());
            self.wrong("spec.files", message, "name a folder instead");
        }
        for (i, path) in spec.files.iter().enumerate() {
            if let Err(why) = check_path_inside(path) {
                let message = format!("{}: {why}", quote(path));
                self.wrong(&format!("spec.files[{i}]"), message, "name a file or folder beside tool.yml");
            }
        }
        for name in spec.env.keys() {
            let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !start
                || name.len() > 128
                || name.starts_with("AION_")
                || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            {
                let message = format!("{} is not a variable's name", quote(name));
                self.wrong(
                    "spec.env",
                    message,
                    "use letters, digits and '_', not beginning with a digit or AION_",
                );
            }
        }
        let requires = self.requires(&spec.capabilities_required);
        let input = self.schema("spec.io.input.schema", true);
        let output = self.schema("spec.io.output.schema", false);
        ToolFile {
            name,
            version,
            description,
            entry,
            wasm,
            mcp_tool,
            input,
            output,
            requires,
            seccomp_profile,
            class,
            network: match security.network {
                Some(raw::NetworkMode::Host) => Network::Host,
                _ => Network::None,
            },
            timeout_ms,
            files: spec.files,
            env: spec.env,
            usd_micros: spec.price.map_or(0, |usd| usd.micros),
        }
    }

    fn requires(&mut self, given: &[String]) -> Vec<(String, Vec<Capability>)> {
        let mut requires = Vec::new();
        for (i, text) in given.iter().enumerate() {
            match parse_rule(text) {
                Ok((_, capabilities)) => requires.push((text.clone(), capabilities)),
                Err(text) => {
                    let (message, fix) = text.split_once("; ").unwrap_or((&text, ""));
                    self.wrong(&format!("spec.capabilities_required[{i}]"), message, fix);
                }
            }
        }
        requires
    }

    /// A JSON Schema, from one or from the short form.
    fn schema(&mut self, field: &str, input: bool) -> Value {
        let open = || if input { json!({"type": "object"}) } else { Value::Bool(true) };
        let Some(node) = self.tree().find(field) else { return open() };
        match &node.kind {
            yaml::Kind::Null => open(),
            yaml::Kind::Scalar { text, .. } => match short_schema(text) {
                Ok(schema) => schema,
                Err(message) => {
                    self.wrong(
                        field,
                        message,
                        "write name:type, …; types are string, int, number, bool, list, object, any",
                    );
                    open()
                }
            },
            yaml::Kind::Map(_) => {
                let schema = crate::task::json(node);
                // A reference could lead out of the file.
                if mentions_reference(&schema) {
                    self.wrong(
                        field,
                        "a reference to another document is not followed",
                        "write the schema out, or refer to #/…",
                    );
                }
                schema
            }
            yaml::Kind::Seq(_) => {
                self.wrong(field, "it is a list", "write name:type, or a JSON Schema");
                open()
            }
        }
    }
}

fn mentions_reference(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let outside = ["$ref", "$dynamicRef"].contains(&key.as_str())
                && !value.as_str().is_some_and(|target| target.starts_with('#'));
            outside || key == "$id" || mentions_reference(value)
        }),
        Value::Array(list) => list.iter().any(mentions_reference),
        _ => false,
    }
}

/// `query:string, limit:int?` as a JSON Schema.
fn short_schema(text: &str) -> Result<Value, String> {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, kind) = part.split_once(':').unwrap_or((part, "any"));
        let (name, kind) = (name.trim(), kind.trim());
        let (kind, optional) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(good) {
            return Err(format!("{} is not the name of a field", quote(name)));
        }
        let schema = match kind {
            "string" | "str" | "text" => json!({"type": "string"}),
            "int" | "integer" => json!({"type": "integer"}),
            "number" | "float" => json!({"type": "number"}),
            "bool" | "boolean" => json!({"type": "boolean"}),
            "list" | "array" => json!({"type": "array"}),
            "object" | "map" => json!({"type": "object"}),
            "any" => Value::Bool(true),
            _ => return Err(format!("{} is not a type", quote(kind))),
        };
        if properties.insert(name.to_owned(), schema).is_some() {
            return Err(format!("{} is there twice", quote(name)));
        }
        if !optional {
            required.push(Value::String(name.to_owned()));
        }
    }
    Ok(json!({"type": "object", "properties": properties, "required": required}))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse(spec: &str) -> Result<ToolFile, Error> {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {{name: web_search, version: \"1.2.0\"}}\nspec:\n{spec}"
        );
        ToolFile::parse(text.as_bytes(), "tool.yml", &Classes::builtin())
    }

    #[test]
    fn the_contract_s_tool_is_read() {
        let tool = parse(
            "  entry: \"rust:bin/web_search\"\n  io: {input: {schema: \"query:string\"}, output: {schema: \"items:list\"}}\n  \
             capabilities_required: [network]\n  security: {seccomp_profile: default-restrictive, cgroup: tool-low}\n  \
             signatures: {cosign: \"sigstore://x\"}\n",
        )
        .unwrap();
        assert_eq!((tool.name.as_str(), tool.version.as_str()), ("web_search", "1.2.0"));
        assert_eq!(tool.entry, ToolEntry::Exec(vec!["bin/web_search".to_owned()]));
        assert_eq!(tool.own_files(), ["bin/web_search"]);
        assert_eq!(tool.input["required"], json!(["query"]));
        assert_eq!(tool.requires.first().unwrap().0, "network");
        assert_eq!((tool.timeout_ms, tool.network), (30_000, Network::None));
    }

    #[test]
    fn commands_have_words_and_files_stay_inside() {
        let tool =
            parse("  entry: exec:python3 search.py\n  files: [search.py, data]\n  price: 0.002\n").unwrap();
        assert_eq!(tool.entry, ToolEntry::Exec(vec!["python3".to_owned(), "search.py".to_owned()]));
        assert_eq!(tool.own_files(), ["search.py", "data"]);
        assert_eq!(tool.usd_micros, 2000);
        let tool = parse("  entry: [\"exec:\", /usr/bin/jq, \".\"]\n").unwrap();
        assert_eq!(tool.own_files(), [""; 0]);
        assert_eq!(tool.output, json!(true));
    }

    #[test]
    fn schemas_are_short_or_in_full() {
        let tool = parse("  entry: exec:x\n  io: {input: {schema: {type: object, properties: {n: {type: integer, minimum: 3}}}}}\n").unwrap();
        assert_eq!(tool.input["properties"]["n"]["minimum"], json!(3));
        let short = short_schema("a:string, b:int?, c").unwrap();
        assert_eq!(short["required"], json!(["a", "c"]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (spec, field) in [
            ("  entry: search\n", "spec.entry"),
            ("  entry: \"exec:\"\n", "spec.entry"),
            ("  entry: exec:../x\n", "spec.entry"),
            ("  entry: exec:a/../../x\n", "spec.entry"),
            ("  entry: exec:x\n  files: [/etc/passwd]\n", "spec.files[0]"),
            ("  entry: exec:x\n  files: [a/../../b]\n", "spec.files[0]"),
            ("  entry: exec:x\n  io: {input: {schema: \"q:strnig\"}}\n", "spec.io.input.schema"),
            ("  entry: exec:x\n  io: {input: {schema: {$ref: \"http://x/y\"}}}\n", "spec.io.input.schema"),
            ("  entry: exec:x\n  capabilities_required: [netwrok]\n", "spec.capabilities_required[0]"),
            ("  entry: exec:x\n  security: {cgroup: none-such}\n", "spec.security.cgroup"),
            ("  entry: exec:x\n  timeout: 11m\n", "spec.timeout"),
            ("  entry: exec:x\n  env: {AION_X: a}\n", "spec.env"),
        ] {
            let error = parse(spec).expect_err(spec);
            let problem = error.problems().first().unwrap();
            assert_eq!(problem.field, field, "{spec}: {problem}");
            assert!(problem.place.is_some());
        }
        assert!(parse("  entry: exec:x\n  entyr: y\n").is_err());
    }

    #[test]
    fn a_file_without_a_name_is_told_as_that() {
        for files in ["[\"\"]", "[a, \"\"]"] {
            let told = parse(&format!("  entry: exec:x\n  files: {files}\n")).expect_err(files).to_string();
            assert!(told.contains("\"\": it is empty") && told.contains("beside tool.yml"), "{told}");
        }
    }
}
