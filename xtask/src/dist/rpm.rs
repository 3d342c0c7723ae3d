//! The RPM package, by `xtask/pack`; what its programs need, by objdump.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Order, VERSION, elf};
use crate::process::{head, run};
use crate::project::Project;

/// Makes `aion-VERSION-REVISION.x86_64.rpm` of the tree.
pub(crate) fn make(project: &Project, root: &Path, order: &Order<'_>) -> Result<PathBuf> {
    let program = packer(project)?;
    let path = order.out.join(format!("aion-{}.x86_64.rpm", order.version()));
    let mut command = Command::new(program);
    command.arg("rpm").arg("--from").arg(project.root.join("packaging/rpm"));
    command.arg("--licence").arg(project.root.join("LICENSE"));
    command.arg("--root").arg(root).arg("--out").arg(&path);
    command.args(["--package-version", VERSION, "--release", &order.revision.to_string()]);
    command.args(["--epoch", &order.epoch.to_string()]);
    for need in elf::needs(root)? {
        command.arg("--requires").arg(need);
    }
    run(&mut command)?;
    Ok(path)
}

/// The manifest of the packer, which is in no workspace, so that only this compiles it.
pub(crate) const MANIFEST: &str = "xtask/pack/Cargo.toml";

/// Cargo for the packer, with a target folder of its own.
pub(crate) fn cargo(project: &Project, command: &str) -> Command {
    let mut cargo = project.cargo();
    cargo.args([command, "--locked", "--manifest-path", MANIFEST]);
    cargo.env("CARGO_TARGET_DIR", target(project));
    cargo
}

/// Throws the packer away: its tests know where the clone is that they were built from.
pub(crate) fn forget(project: &Project) -> Result<()> {
    if !target(project).is_dir() {
        return Ok(());
    }
    run(cargo(project, "clean").args(["--quiet", "--package", "aion-pack"]))
}

fn target(project: &Project) -> PathBuf {
    project.target.join("pack")
}

fn packer(project: &Project) -> Result<PathBuf> {
    head("building the packer");
    run(cargo(project, "build").arg("--quiet"))?;
    Ok(target(project).join("debug/aion-pack"))
}
