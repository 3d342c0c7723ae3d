//! The manifest of `run`: the one of -f, or the shortest there is, with the command line's flags put in.
//!
//! A file is checked as it is before anything is put in, so that messages name its own lines and columns.

use std::collections::BTreeMap;
use std::path::Path;

use aion_manifest::Overrides;
use aion_types::ErrorCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::{NetworkMode, RunArgs};
use crate::failure::{Failure, Outcome, USAGE};
use crate::source::{Source, check};

/// The file name of a manifest that nobody wrote.
pub(crate) const COMMAND_LINE: &str = "command line";

/// What is sent to the daemon.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) bytes: Vec<u8>,
    /// For messages.
    pub(crate) name: String,
    /// Of the file as it is; empty when there is none, or flags change what it says.
    pub(crate) signature: String,
}

/// The manifest for this command line.
pub(crate) fn manifest(args: &RunArgs) -> Outcome<Manifest> {
    let overrides = overrides(args);
    let Some(path) = &args.file else {
        let mut whole = json!({
            "apiVersion": "aion.os/v1",
            "kind": "Agent",
            // The name and the command are the overrides' matter, also when there is a file.
            "metadata": { "name": "agent" },
            // A command that a person typed may start others: a shell would be of no use else.
            "spec": { "capabilities": { "filesystem": true, "subprocess": true } },
        });
        put(&mut whole, args)?;
        let source = Source::of(yaml(&whole)?, COMMAND_LINE);
        // Lines of a manifest that nobody wrote would help nobody.
        check(&source, overrides).map_err(|failure| failure.without_places(COMMAND_LINE))?;
        return Ok(Manifest::of(source));
    };
    let source = Source::read(path)?;
    check(&source, overrides)?;
    if !changes(args) {
        return Ok(Manifest::of(source));
    }
    let mut value = read(&source).map_err(|error| unreadable(path, &error))?;
    put(&mut value, args)?;
    Ok(Manifest::of(Source::of(yaml(&value)?, format!("{} with the command line", source.name))))
}

impl Manifest {
    fn of(source: Source) -> Self {
        Self { bytes: source.bytes, name: source.name, signature: source.signature }
    }
}

/// A checked file as a tree. YAML's numbers are texts where the manifest wants texts: `version: 1.10` keeps its zero.
fn read(source: &Source) -> Result<Value, serde_yaml::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Texts {
        metadata: Metadata,
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Metadata {
        version: Option<String>,
        labels: BTreeMap<String, String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        env: BTreeMap<String, String>,
    }
    let mut value: Value = serde_yaml::from_slice(&source.bytes)?;
    let texts: Texts = serde_yaml::from_slice(&source.bytes)?;
    let metadata = mapping(&mut value, "metadata");
    if let Some(version) = texts.metadata.version {
        metadata.insert("version".to_owned(), json!(version));
    }
    for (label, text) in texts.metadata.labels {
        child(metadata, "labels").insert(label, json!(text));
    }
    for (name, text) in texts.spec.env {
        child(mapping(&mut value, "spec"), "env").insert(name, json!(text));
    }
    Ok(value)
}

/// What the daemon will be told beside the manifest, for the check here.
fn overrides(args: &RunArgs) -> Overrides {
    let set = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Overrides {
        name: args.name.clone(),
        argv: args.command.clone(),
        workspace: args
            .workspace
            .as_ref()
            .and_then(|dir| dir.canonicalize().ok()?.to_str().map(str::to_owned)),
        env: args.env.iter().filter_map(set).collect(),
        tty: args.tty,
        labels: args.labels.iter().cloned().collect(),
        ..Overrides::default()
    }
}

/// Whether a flag has to be put into the manifest.
fn changes(args: &RunArgs) -> bool {
    args.read_only_workspace
        || !args.secrets.is_empty()
        || !args.allow.is_empty()
        || !args.allow_degraded.is_empty()
        || args.rootfs.is_some()
        || args.restart.is_some()
        || args.cpus.is_some()
        || args.memory.is_some()
        || args.pids.is_some()
        || args.disk.is_some()
        || args.file_size.is_some()
        || args.open_files.is_some()
        || args.timeout.is_some()
        || args.network.is_some()
        || !args.audit.is_empty()
        || args.seccomp_profile.is_some()
        || args.cgroup_profile.is_some()
}

fn put(whole: &mut Value, args: &RunArgs) -> Outcome<()> {
    let spec = mapping(whole, "spec");
    let mut set = |path: &[&str], value: Option<Value>| {
        if let (Some(value), Some((last, parents))) = (value, path.split_last()) {
            let mut at = &mut *spec;
            for parent in parents {
                at = child(at, parent);
            }
            at.insert((*last).to_owned(), value);
        }
    };
    set(&["resources", "cpu"], args.cpus.map(|cpu| json!(cpu.to_string())));
    set(&["resources", "mem"], args.memory.map(|size| json!(size.to_string())));
    set(&["resources", "pids"], args.pids.map(|count| json!(count)));
    set(&["resources", "disk"], args.disk.map(|size| json!(size.to_string())));
    set(&["resources", "file_size"], args.file_size.map(|size| json!(size.to_string())));
    set(&["resources", "open_files"], args.open_files.map(|count| json!(count)));
    set(&["resources", "class"], args.cgroup_profile.as_ref().map(|class| json!(class)));
    let millis = args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    set(&["timeout_ms"], millis.map(|ms| json!(ms)));
    set(&["network"], args.network.map(|mode| json!(mode.as_str())));
    set(&["seccomp_profile"], args.seccomp_profile.as_ref().map(|name| json!(name)));
    set(&["rootfs"], args.rootfs.as_ref().map(|dir| absolute(dir)).transpose()?.map(|dir| json!(dir)));
    set(&["restart"], args.restart.as_deref().map(restart).transpose()?);
    if !args.audit.is_empty() {
        let audit = word_or_mapping(spec, "audit", audit_in_full);
        for mode in &args.audit {
            match mode.mode() {
                Some(mode) => audit.insert("mode".to_owned(), json!(mode)),
                None => audit.insert("strict".to_owned(), json!(true)),
            };
        }
    }
    if args.read_only_workspace {
        let in_full = |path: &str| Map::from_iter([("path".to_owned(), json!(path))]);
        word_or_mapping(spec, "workspace", in_full).insert("read_only".to_owned(), json!(true));
    }
    append(spec, "secrets", &args.secrets);
    let layers: Vec<String> = args.allow_degraded.iter().map(|layer| layer.as_str().to_owned()).collect();
    append(spec, "allow_degraded", &layers);
    // Whoever gives the host's network on the command line means it: the manifest's word for it comes along.
    let network: &[String] =
        if args.network == Some(NetworkMode::Host) { &["network".to_owned()] } else { &[] };
    // Capabilities are a list of words and rules, or a mapping that has such a list.
    if matches!(spec.get("capabilities"), Some(Value::Array(_))) {
        append(spec, "capabilities", &args.allow);
        append(spec, "capabilities", network);
    } else {
        if !args.allow.is_empty() {
            append(child(spec, "capabilities"), "allow", &args.allow);
        }
        if !network.is_empty() {
            child(spec, "capabilities").insert("network".to_owned(), json!(true));
        }
    }
    Ok(())
}

/// `on-failure`, or `on-failure:3` with the most restarts in a row.
fn restart(text: &str) -> Outcome<Value> {
    let (policy, most) = match text.split_once(':') {
        Some((policy, most)) => (policy, Some(most)),
        None => (text, None),
    };
    let most = most.map(str::parse::<u32>).transpose();
    match (policy, most) {
        ("never" | "on-failure" | "always", Ok(None)) => Ok(json!({ "policy": policy })),
        ("on-failure" | "always", Ok(Some(most))) => Ok(json!({ "policy": policy, "max_restarts": most })),
        _ => Err(Failure::new(
            USAGE,
            format!("--restart {text:?}: write never, on-failure, always, or on-failure:3"),
        )),
    }
}

/// `strict` is short for events of which none may be lost.
fn audit_in_full(word: &str) -> Map<String, Value> {
    match word {
        "strict" => Map::from_iter([("strict".to_owned(), json!(true))]),
        mode => Map::from_iter([("mode".to_owned(), json!(mode))]),
    }
}

fn absolute(dir: &Path) -> Outcome<String> {
    let wrong = |why: String| {
        Failure::coded(ErrorCode::WorkspaceInvalid, format!("--rootfs {}: {why}", dir.display()))
    };
    let whole = dir.canonicalize().map_err(|error| wrong(error.to_string()))?;
    whole.into_os_string().into_string().map_err(|_| wrong("its path is not UTF-8".to_owned()))
}

fn mapping<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => child(map, key),
        _ => unreachable!("it was made an object above"),
    }
}

fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    word_or_mapping(map, key, |_| Map::new())
}

/// The mapping at `key`; a word there is written in full first.
fn word_or_mapping<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
    in_full: impl FnOnce(&str) -> Map<String, Value>,
) -> &'a mut Map<String, Value> {
    let value = map.entry(key.to_owned()).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(value.as_str().map(in_full).unwrap_or_default());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

fn append(map: &mut Map<String, Value>, key: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let value = map.entry(key.to_owned()).or_insert_with(|| json!([]));
    if let Value::Array(list) = value {
        for item in items {
            if !list.iter().any(|known| known == item) {
                list.push(json!(item));
            }
        }
    }
}

fn yaml(value: &Value) -> Outcome<Vec<u8>> {
    serde_yaml::to_string(value)
        .map(String::into_bytes)
        .map_err(|error| Failure::new(1, "the manifest cannot be written as YAML").cause(&error))
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::coded(ErrorCode::ManifestInvalid, format!("{} cannot be read as YAML", path.display()))
        .cause(error)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &[&str]) -> RunArgs {
        let line = ["aionctl", "run"].iter().chain(words).copied();
        match Cli::try_parse_from(line).expect("a valid command line").command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn made(words: &[&str]) -> String {
        String::from_utf8(manifest(&args(words)).expect("a manifest").bytes).expect("text")
    }

    #[test]
    fn no_flags_make_the_shortest_manifest() {
        insta::assert_snapshot!(made(&["--", "true"]));
    }

    #[test]
    fn every_flag_has_its_field() {
        let words = "--read-only-workspace --workspace /srv --rootfs /usr --secret a --secret b --allow fs:read:/data/** --restart on-failure:3 \
            --cpus 1.5 --memory 256Mi --pids 9 --disk 2Gi --file-size 1Mi --open-files 64 --timeout 90s --network host \
            --audit latency,strict --seccomp-profile tool-strict --cgroup-profile tool-low --allow-degraded disk -- x";
        insta::assert_snapshot!(made(&words.split_whitespace().collect::<Vec<_>>()));
    }

    #[test]
    fn flags_change_a_file_and_keep_the_rest() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.yml");
        let text = "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: x, version: 1.10}\nspec:\n  entry: [echo, hi]\n  \
            audit: strict\n  workspace: /srv/data\n  capabilities: [exec:/usr/bin/git]\n  resources: {cpu: 500m, mem: 1Gi}\n";
        std::fs::write(&path, text).expect("a file");
        let path = path.to_str().expect("text");
        assert_eq!(made(&["-f", path]), text, "unchanged without flags");
        let changed = made(&[
            "-f",
            path,
            "--memory",
            "64Mi",
            "--audit",
            "count",
            "--read-only-workspace",
            "--allow",
            "gpu",
        ]);
        let value: Value = serde_yaml::from_str(&changed).expect("YAML");
        let spec = &value["spec"];
        assert_eq!(spec["resources"]["mem"], "64Mi");
        assert_eq!(spec["resources"]["cpu"], "500m");
        assert_eq!(spec["audit"]["mode"], "count");
        assert_eq!(spec["audit"]["strict"], true);
        assert_eq!(spec["workspace"]["path"], "/srv/data");
        assert_eq!(spec["workspace"]["read_only"], true);
        assert_eq!(value["metadata"]["version"], "1.10");
    }

    #[test]
    fn restart_policies() {
        assert_eq!(restart("always").expect("valid"), json!({"policy": "always"}));
        for bad in ["", "sometimes", "never:3", "always:x", "always:-1"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }
}
