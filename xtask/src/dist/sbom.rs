//! The bill of materials: CycloneDX 1.5, JSON, of the programs that are shipped and the crates that are linked into them.
//!
//! C sources that a crate carries (RocksDB, zstd, lz4) are that crate's; libraries of the host are named by the packages' dependencies.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::linked::{self, Graph, Id};
use super::{Order, tree};
use crate::ebpf;
use crate::process::{read, write_whole};
use crate::project::Project;

/// What cargo knows of a package.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    /// None: it is part of a workspace.
    source: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// Of each crate: what cargo knows, and the SHA-256 of its archive.
#[derive(Debug, Default)]
struct Known {
    packages: BTreeMap<Id, Package>,
    sums: BTreeMap<Id, String>,
}

/// Writes the bill of the programs in the tree.
pub(crate) fn write(project: &Project, root: &Path, order: &Order<'_>, path: &Path) -> Result<()> {
    let graph = linked::graph(project)?;
    let known = known(project)?;
    let mut sums = BTreeMap::new();
    for (package, file) in tree::programs() {
        sums.insert(package, sum(&root.join(file))?);
    }
    sums.insert("aion-probe-programs", sum(&root.join(format!("usr/lib/aion/{}", ebpf::OBJECT)))?);
    let rustc = read(project.command("rustc").arg("--version"))?;
    let rust = rustc.split_whitespace().nth(1).context("rustc does not tell its version")?;
    let mut bill = bill(&graph, &known, &sums, rust, &order.version(), order.epoch);
    // The number must differ where the content does, and be the same where it does not.
    write_whole(path, serde_json::to_string_pretty(&bill)?.as_bytes())?;
    if let Some(fields) = bill.as_object_mut() {
        fields.insert("serialNumber".to_owned(), json!(serial(&sum(path)?)));
    }
    write_whole(path, (serde_json::to_string_pretty(&bill)? + "\n").as_bytes())
}

fn known(project: &Project) -> Result<Known> {
    let mut known = Known::default();
    for folder in ["", "ebpf-probes/programs/"] {
        let mut cargo = project.cargo();
        cargo.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
        let text = read(cargo.arg(format!("{folder}Cargo.toml")))?;
        let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata makes no sense")?;
        for package in metadata.packages {
            known.packages.insert((package.name.clone(), package.version.clone()), package);
        }
        known.sums.extend(checksums(&fs::read_to_string(project.root.join(format!("{folder}Cargo.lock")))?));
    }
    Ok(known)
}

/// The checksums of a lock file. It has one field a line, and the name first.
fn checksums(lock: &str) -> BTreeMap<Id, String> {
    let mut found = BTreeMap::new();
    for block in lock.split("[[package]]") {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.and_then(|value| value.strip_suffix('"')).map(str::to_owned)
        };
        if let (Some(name), Some(version), Some(sum)) = (field("name"), field("version"), field("checksum")) {
            found.insert((name, version), sum);
        }
    }
    found
}

fn sum(path: &Path) -> Result<String> {
    let text = read(Command::new("sha256sum").arg("--").arg(path))?;
    Ok(text.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

/// A UUID of version 8 (RFC 9562), made of a hash.
fn serial(sum: &str) -> String {
    let digits = |range: std::ops::Range<usize>| sum.get(range).unwrap_or("0");
    format!(
        "urn:uuid:{}-{}-8{}-a{}-{}",
        digits(0..8),
        digits(8..12),
        digits(12..15),
        digits(15..18),
        digits(18..30)
    )
}

/// The bill, but for its number.
fn bill(
    graph: &Graph,
    known: &Known,
    sums: &BTreeMap<&str, String>,
    rust: &str,
    version: &str,
    epoch: u64,
) -> Value {
    let top = json!({
        "type": "application", "bom-ref": "aion", "name": "aion", "version": version,
        "description": "Supervised, kernel-isolated AI agents", "licenses": [{"expression": "Apache-2.0"}],
    });
    let std = format!("pkg:generic/rust-std@{rust}");
    let mut components: Vec<Value> = graph
        .crates
        .keys()
        .map(|id| {
            component(id, known, graph.programs.contains(id).then(|| sums.get(id.0.as_str())).flatten())
        })
        .collect();
    components.push(json!({
        "type": "library", "bom-ref": std, "name": "rust-std", "version": rust, "purl": std,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }));
    let mut dependencies = vec![json!({
        "ref": "aion", "dependsOn": graph.programs.iter().map(|id| reference(id, known)).collect::<Vec<_>>(),
    })];
    for (id, linked) in &graph.crates {
        let mut on: Vec<String> = linked.iter().map(|other| reference(other, known)).collect();
        if graph.programs.contains(id) {
            on.push(std.clone());
        }
        dependencies.push(json!({"ref": reference(id, known), "dependsOn": on}));
    }
    dependencies.push(json!({"ref": std, "dependsOn": []}));
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": time(epoch),
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "cargo xtask dist", "version": super::VERSION}]},
            "component": top,
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn component(id: &Id, known: &Known, program: Option<&String>) -> Value {
    let reference = reference(id, known);
    let package = known.packages.get(id);
    let mut value = json!({
        "type": if program.is_some() { "application" } else { "library" },
        "bom-ref": reference, "name": id.0, "version": id.1, "purl": reference,
    });
    let Some(fields) = value.as_object_mut() else { return value };
    if let Some(sum) = program.or_else(|| known.sums.get(id)) {
        fields.insert("hashes".to_owned(), json!([{"alg": "SHA-256", "content": sum}]));
    }
    let Some(package) = package else { return value };
    if let Some(license) = &package.license {
        fields.insert("licenses".to_owned(), json!([{"expression": expression(license)}]));
    }
    if let Some(text) = &package.description {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        fields.insert("description".to_owned(), json!(text));
    }
    if let Some(url) = &package.repository {
        fields.insert("externalReferences".to_owned(), json!([{"type": "vcs", "url": url}]));
    }
    value
}

/// The package's URL: crates of this repository are in no registry.
fn reference(id: &Id, known: &Known) -> String {
    let foreign = known.packages.get(id).is_none_or(|package| package.source.is_some());
    let version = id.1.replace('+', "%2B");
    format!("pkg:{}/{}@{version}", if foreign { "cargo" } else { "generic" }, id.0)
}

/// Old manifests write `MIT/Apache-2.0` for a choice.
fn expression(license: &str) -> String {
    license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// `2026-01-31T12:00:00Z`, of seconds since 1970.
fn time(epoch: u64) -> String {
    let (days, seconds) = (epoch / 86400, epoch % 86400);
    // Howard Hinnant's days_from_civil, backwards; eras of 400 years begin in March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
#[path = "sbom_tests.rs"]
mod tests;
