//! Builds what runs: three dynamic binaries, one static, one BPF object; and the programs of the kernel
//! tests, which run on the host and in the VMs alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process::{head, note, run, show};
use crate::project::{Project, STATIC_TARGET};
use crate::vm::Suite;

/// Builds all of it and puts it together in the stage.
pub(crate) fn build(project: &Project) -> Result<()> {
    head("building the daemons");
    run(project.cargo().args(["build", "-p", "aiond", "-p", "aion-launcher", "-p", "aionctl"]))?;
    // Static: it must start in roots that have no libc. Built for a named target, so that build scripts and
    // procedural macros, which must be dynamic, are not touched by the flag.
    run(project
        .cargo()
        .args(["build", "-p", "aion-init", "--target", STATIC_TARGET])
        .env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    for name in ["aiond", "aion-launcher", "aionctl"] {
        stage(&project.target.join("debug").join(name), &project.binary(name))?;
    }
    stage(&project.target.join(STATIC_TARGET).join("debug/aion-init"), &project.binary("aion-init"))?;
    Ok(())
}

/// Copies into the stage by rename, so that a daemon that runs from there keeps its file; one that is the
/// same already is left alone.
fn stage(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("the build left no {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    crate::process::write_whole(to, &bytes)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Compiles the test programs of a suite and says where they are.
pub(crate) fn test_programs(project: &Project, suite: Suite) -> Result<Vec<PathBuf>> {
    let Some(package) = package(suite) else { return Ok(Vec::new()) };
    let mut command = project.cargo();
    command.args(["test", "--no-run", "--message-format", "json-render-diagnostics", "-p", package]);
    note(&format!("$ {}", show(&command)));
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("{package} does not compile");
    }
    let programs: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.profile.as_ref().is_some_and(|profile| profile.test) || helper(message))
        .filter_map(|message| message.executable)
        .collect();
    if programs.is_empty() {
        bail!("{package} holds no test program");
    }
    Ok(programs)
}

/// Programs that the suites start inside agents.
fn helper(message: &Message) -> bool {
    message.target.as_ref().is_some_and(|target| target.name.starts_with("aion-"))
        && message.executable.is_some()
}

fn package(suite: Suite) -> Option<&'static str> {
    match suite {
        Suite::Smoke => None,
        Suite::E2e => Some("aion-e2e"),
        Suite::Escape => Some("aion-escape"),
    }
}
