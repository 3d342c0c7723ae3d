//! `cargo xtask check-layers`: the rules of this repository that no compiler checks.
//!
//! Dependencies point downwards; the privileged half links no YAML, no database and no network stack;
//! `unsafe` stays where it belongs; every error code has a page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{note, read};
use crate::project::Project;

/// The levels of docs/architecture.md. A crate depends on crates of its own level or lower ones; binaries
/// depend on no other binary.
const LEVELS: &[(u8, &[&str])] = &[
    (5, &["aiond", "aion-launcher", "aion-init", "aion-wasm", "aionctl"]),
    (4, &["aion-api", "aion-http", "aion-kernel", "aion-tasks"]),
    (
        3,
        &[
            "aion-sandbox",
            "aion-network",
            "aion-probes",
            "aion-cgroup",
            "aion-host-checks",
            "aion-volumes",
            "aion-launcher-client",
            "aion-store",
            "aion-task-journal",
            "aion-client",
            "aion-fetch",
            "aion-mcp",
            "aion-models",
            "aion-resolver",
            "aion-telemetry",
            "aion-tenants",
            "aion-webhook",
        ],
    ),
    (
        2,
        &[
            "aion-manifest",
            "aion-seccomp",
            "aion-audit",
            "aion-backup",
            "aion-egress",
            "aion-detect",
            "aion-agent-journal",
            "aion-scheduler",
            "aion-signing",
            "aion-syscall",
        ],
    ),
    (1, &["aion-types", "aion-probe-types", "aion-launcher-proto", "aion-api-proto", "aion-sys"]),
];

/// What a crate must not link, however far down.
const NEVER: &[(&str, &[&str])] = &[
    (
        "aion-launcher",
        &[
            "rocksdb",
            "serde-saphyr",
            "yaml_serde",
            "serde_yaml",
            "tonic",
            "hyper",
            "axum",
            "reqwest",
            "wasmtime",
        ],
    ),
    ("aion-init", &["rocksdb", "serde-saphyr", "yaml_serde", "serde_yaml", "tonic", "hyper", "aya", "tokio"]),
    ("aiond", &["aya", "aion-sandbox", "aion-cgroup", "aion-probes", "libseccomp", "wasmtime"]),
    (
        "aion-wasm",
        &["rocksdb", "serde-saphyr", "tonic", "axum", "aya", "aion-sandbox", "aion-store", "libseccomp"],
    ),
    ("aionctl", &["rocksdb", "aya", "aion-sandbox", "aion-probes", "libseccomp"]),
];

/// Where `unsafe` may be written. Tests attack a kernel, so they need its raw calls; the probes' loader maps the
/// ring buffer.
const UNSAFE: &[&str] = &["supervisor/sys/", "supervisor/probes/", "ebpf-probes/", "tests/"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// Checks all of it and names every breach.
pub(crate) fn check(project: &Project) -> Result<()> {
    let text = read(project.cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata makes no sense")?;
    let members: Vec<&Package> =
        metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id)).collect();
    let mut breaches = Vec::new();
    for package in &members {
        edges(project, package, &mut breaches);
        lints(project, package, &mut breaches)?;
    }
    links(&metadata, &members, &mut breaches);
    error_pages(project, &mut breaches)?;
    if breaches.is_empty() {
        note(&format!("check-layers: {} crates, no breach", members.len()));
        return Ok(());
    }
    for breach in &breaches {
        println!("check-layers: {breach}");
    }
    bail!("{} breaches of the rules in docs/architecture.md", breaches.len());
}

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(_, names)| names.contains(&name)).map(|(level, _)| *level)
}

/// Dependencies within the workspace. Those of tests alone may point anywhere.
fn edges(project: &Project, package: &Package, breaches: &mut Vec<String>) {
    let place = relative(project, &package.manifest_path);
    let inside = package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.as_deref() != Some("dev"));
    if place.starts_with("tests/") {
        return;
    }
    if place.starts_with("xtask/") {
        for dependency in inside {
            breaches
                .push(format!("xtask depends on {}: it must compile before anything else", dependency.name));
        }
        return;
    }
    let Some(own) = level(&package.name) else {
        breaches.push(format!("{} ({place}) has no level in docs/architecture.md", package.name));
        return;
    };
    for dependency in inside {
        match level(&dependency.name) {
            None => {
                breaches.push(format!("{} depends on {}, which has no level", package.name, dependency.name))
            }
            Some(theirs) if theirs > own || (own == 5 && theirs == 5) => breaches.push(format!(
                "{} (level {own}) depends on {} (level {theirs}): dependencies point downwards",
                package.name, dependency.name
            )),
            Some(_) => {}
        }
    }
}

/// What the privileged half must not link, in everything it links.
fn links(metadata: &Metadata, members: &[&Package], breaches: &mut Vec<String>) {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let nodes: BTreeMap<&str, &Node> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    for (binary, never) in NEVER {
        let Some(package) = members.iter().find(|package| package.name == *binary) else { continue };
        let mut seen = BTreeSet::new();
        let mut path = Vec::from([package.id.as_str()]);
        while let Some(id) = path.pop() {
            if !seen.insert(id) {
                continue;
            }
            let Some(node) = nodes.get(id) else { continue };
            // What only builds or tests need is not linked.
            let linked = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            path.extend(linked.map(|dep| dep.pkg.as_str()));
        }
        for name in seen.iter().filter_map(|id| names.get(id)).filter(|name| never.contains(name)) {
            breaches.push(format!("{binary} links {name}, which it must never do"));
        }
    }
}

/// The workspace's lints hold in every crate, and `unsafe` is written only where it may be.
fn lints(project: &Project, package: &Package, breaches: &mut Vec<String>) -> Result<()> {
    let place = relative(project, &package.manifest_path);
    if UNSAFE.iter().any(|folder| place.starts_with(folder)) {
        return Ok(());
    }
    let manifest = fs::read_to_string(&package.manifest_path)?;
    if !manifest.contains("[lints]\nworkspace = true") {
        breaches.push(format!("{place} does not take the workspace's lints"));
    }
    let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
    for file in sources(folder)? {
        for (number, line) in fs::read_to_string(&file)?.lines().enumerate() {
            if writes_unsafe(line) {
                breaches.push(format!(
                    "{}:{}: unsafe outside of aion-sys",
                    relative(project, &file),
                    number + 1
                ));
            }
        }
    }
    Ok(())
}

fn writes_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let quoted = code.find('"');
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "unsafe trait"]
        .iter()
        .any(|word| code.find(word).is_some_and(|at| quoted.is_none_or(|quote| at < quote)))
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                found.extend(sources(&path)?);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Each code has a page and each page a code.
fn error_pages(project: &Project, breaches: &mut Vec<String>) -> Result<()> {
    let source = fs::read_to_string(project.root.join("supervisor/types/src/code.rs"))?;
    let codes: BTreeSet<&str> = source
        .lines()
        .filter(|line| line.contains(", exit "))
        .filter_map(|line| line.split('"').nth(1))
        .filter(|code| code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect();
    let mut pages = BTreeSet::new();
    let folder = project.root.join("docs/errors");
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(code) = name.strip_suffix(".md").filter(|code| *code != "README") {
                pages.insert(code.to_owned());
            }
        }
    }
    for code in codes.iter().filter(|code| !pages.contains(**code)) {
        breaches.push(format!("the error code {code} has no page in docs/errors"));
    }
    for page in pages.iter().filter(|page| !codes.contains(page.as_str())) {
        breaches.push(format!("docs/errors/{page}.md describes no error code"));
    }
    Ok(())
}

fn relative(project: &Project, path: &Path) -> String {
    path.strip_prefix(&project.root).unwrap_or(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows `| 5 binaries | `aiond`, … |` of the architecture page.
    fn documented() -> Vec<(u8, BTreeSet<String>)> {
        let page = Project::locate().unwrap().root.join("docs/architecture.md");
        fs::read_to_string(page)
            .unwrap()
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split('|');
                let level = cells.next()?.split(' ').next()?.parse().ok()?;
                let names = cells.next()?.split('`').skip(1).step_by(2);
                Some((
                    level,
                    names.filter(|n| *n == "aiond" || n.starts_with("aion")).map(str::to_owned).collect(),
                ))
            })
            .collect()
    }

    #[test]
    fn the_table_is_the_one_in_the_docs() {
        let ours: Vec<(u8, BTreeSet<String>)> = LEVELS
            .iter()
            .map(|(level, names)| (*level, names.iter().map(|name| (*name).to_owned()).collect()))
            .collect();
        assert_eq!(ours, documented());
    }

    #[test]
    fn finds_unsafe_in_code_only() {
        assert!(writes_unsafe("    let x = unsafe { y() };"));
        assert!(writes_unsafe("pub unsafe fn f() {}"));
        assert!(!writes_unsafe("// unsafe { }"));
        assert!(!writes_unsafe(r#"["unsafe {"]"#));
        assert!(!writes_unsafe("unsafe_code = \"forbid\""));
    }

    #[test]
    fn an_upward_edge_is_a_breach() {
        let project = Project::locate().unwrap();
        let package = Package {
            id: String::new(),
            name: "aion-types".to_owned(),
            manifest_path: project.root.join("supervisor/types/Cargo.toml"),
            dependencies: vec![Dependency {
                name: "aion-api".to_owned(),
                kind: None,
                path: Some("x".into()),
            }],
        };
        let mut breaches = Vec::new();
        edges(&project, &package, &mut breaches);
        assert_eq!(breaches.len(), 1, "{breaches:?}");
        assert!(breaches[0].contains("downwards"), "{breaches:?}");
    }
}
