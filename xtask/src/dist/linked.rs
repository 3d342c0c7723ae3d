//! Which crates are linked into what is shipped, as cargo itself resolves features for it.
//!
//! `cargo metadata` knows all that the workspace could need, tests and other systems included; `cargo tree` with the packages of a build
//! knows what that build links.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::process::read;
use crate::project::{Project, STATIC_TARGET};

/// Name and version.
pub(crate) type Id = (String, String);

/// Each crate with those that it is linked with.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) crates: BTreeMap<Id, BTreeSet<Id>>,
    /// What nothing else of the graph links: the programs.
    pub(crate) programs: Vec<Id>,
}

/// The packages of the programs, in the sets in which they are built.
const BUILDS: [&[&str]; 2] = [&["aiond", "aion-launcher", "aion-wasm", "aionctl"], &["aion-init"]];

/// Everything that is linked into the programs and the probes.
pub(crate) fn graph(project: &Project) -> Result<Graph> {
    let mut graph = Graph::default();
    for packages in BUILDS {
        let mut cargo = project.cargo();
        cargo.args(TREE).args(["--target", STATIC_TARGET]);
        graph.add(&read(cargo.args(packages.iter().flat_map(|name| ["-p", name])))?)?;
    }
    let mut cargo = project.cargo();
    // Which of its crates are for another processor is no matter: none is.
    cargo.args(TREE).args(["--target", "all", "--manifest-path", "ebpf-probes/programs/Cargo.toml"]);
    graph.add(&read(&mut cargo)?)?;
    Ok(graph)
}

/// What runs in the compiler (procedural macros, build scripts) is linked into nothing.
const TREE: [&str; 8] =
    ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "{p}"];

impl Graph {
    /// Lines `2libc v0.2.191`: the depth, the name, the version; then a folder, or `(*)` where its own crates were told before.
    fn add(&mut self, text: &str) -> Result<()> {
        let mut path: Vec<Id> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (depth, id) = parse(line).with_context(|| format!("cargo tree says {line:?}"))?;
            if depth > path.len() {
                bail!("cargo tree says {line:?} where a depth of at most {} is meant", path.len());
            }
            path.truncate(depth);
            match path.last() {
                Some(parent) => {
                    self.crates.entry(parent.clone()).or_default().insert(id.clone());
                }
                None => self.programs.push(id.clone()),
            }
            self.crates.entry(id.clone()).or_default();
            path.push(id);
        }
        Ok(())
    }
}

fn parse(line: &str) -> Option<(usize, Id)> {
    let name = line.find(|c: char| !c.is_ascii_digit())?;
    let (depth, rest) = line.split_at_checked(name)?;
    let mut words = rest.split(' ');
    let id = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
    Some((depth.parse().ok()?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: &str) -> Id {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn a_tree_becomes_a_graph() {
        let mut graph = Graph::default();
        graph.add("0a v0.1.0 (/x/a)\n1b v1.0.0\n2c v2.0.0+zstd.1\n1c v2.0.0+zstd.1 (*)\n\n0d v0.1.0 (/x/d)\n1b v1.0.0 (*)\n").unwrap();
        assert_eq!(graph.programs, [id("a", "0.1.0"), id("d", "0.1.0")]);
        let of = |name, version| graph.crates[&id(name, version)].iter().cloned().collect::<Vec<_>>();
        assert_eq!(of("a", "0.1.0"), [id("b", "1.0.0"), id("c", "2.0.0+zstd.1")]);
        assert_eq!(of("b", "1.0.0"), [id("c", "2.0.0+zstd.1")]);
        assert_eq!(of("d", "0.1.0"), [id("b", "1.0.0")]);
        assert_eq!(of("c", "2.0.0+zstd.1"), []);
        assert!(Graph::default().add("1b v1.0.0\n").is_err());
    }
}
