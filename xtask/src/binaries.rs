//! Builds what runs: four dynamic binaries, one static, one BPF object; and the programs of the kernel
//! tests, which run on the host and in the VMs alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::ebpf;
use crate::process::{head, note, run, show};
use crate::project::{Project, STATIC_TARGET};

/// What is linked to the host's libc.
const DYNAMIC: [&str; 4] = ["aiond", "aion-launcher", "aion-wasm", "aionctl"];

/// Builds all of it and puts it together in the stage.
pub(crate) fn build(project: &Project) -> Result<()> {
    head("building the daemons");
    run(project.cargo().arg("build").args(DYNAMIC.iter().flat_map(|name| ["-p", name])))?;
    for name in DYNAMIC {
        stage(&project.target.join("debug").join(name), &project.binary(name))?;
    }
    build_for_kernel(project)
}

/// Builds all of it with the release profile, and gives a project whose stage is beside the usual one: what tests and `up` run stays.
pub(crate) fn build_release(project: &Project) -> Result<Project> {
    head("building the daemons for release");
    let release = released(project);
    run(release_build(project).args(DYNAMIC.iter().flat_map(|name| ["-p", name])))?;
    for name in DYNAMIC {
        stage(&project.target.join("release").join(name), &release.binary(name))?;
    }
    let mut cargo = static_build(project);
    run(flags(cargo.arg("--release"), [&STATIC.map(str::to_owned)[..], &remapped(project)].concat()))?;
    stage(&project.target.join(STATIC_TARGET).join("release/aion-init"), &release.binary("aion-init"))?;
    let probes = ebpf::build(project)?;
    stage(&probes, &release.stage().join(ebpf::OBJECT))?;
    Ok(release)
}

/// The project with the stage of [`build_release`].
pub(crate) fn released(project: &Project) -> Project {
    Project { staged: PathBuf::from("aion-release"), ..project.clone() }
}

/// `cargo build` with the flags and the profile of what is released: another one with the same shares what is compiled.
pub(crate) fn release_build(project: &Project) -> Command {
    let mut cargo = project.cargo();
    flags(cargo.args(["build", "--release"]), remapped(project));
    cargo
}

/// Builds what the tests of single crates want of the rest: aion-init and the probes.
pub(crate) fn build_for_kernel(project: &Project) -> Result<()> {
    run(&mut static_build(project))?;
    stage(&project.target.join(STATIC_TARGET).join("debug/aion-init"), &project.binary("aion-init"))?;
    ebpf::build(project)?;
    Ok(())
}

/// Static: it must start in roots that have no libc, and as fast as a program can. Built for a named target, so that build scripts and
/// procedural macros, which must be dynamic, are not touched by the flags.
fn static_build(project: &Project) -> Command {
    let mut cargo = project.cargo();
    cargo.args(["build", "-p", "aion-init", "--target", STATIC_TARGET]);
    cargo.env("RUSTFLAGS", STATIC.join(" "));
    cargo
}

const STATIC: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];

/// The folders of this build under names that every build gives them: panics carry paths of sources.
fn remapped(project: &Project) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME")
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo").into()));
    let folders = [
        (home.map(PathBuf::from), "/usr/src/cargo"),
        (Some(project.root.clone()), "/usr/src/aion"),
        // The last one that fits counts, and the target folder may lie in the clone.
        (Some(project.target.clone()), "/usr/src/target"),
    ];
    folders
        .into_iter()
        .filter_map(|(folder, name)| Some(format!("--remap-path-prefix={}={name}", folder?.display())))
        .collect()
}

/// In the form that takes folders with spaces; it goes before RUSTFLAGS.
fn flags(cargo: &mut Command, flags: Vec<String>) -> &mut Command {
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
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
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

impl Message {
    /// `path+file:///clone/folder#0.1.0` when the folder has the package's name, else `…/folder#name@0.1.0`.
    fn is_of(&self, packages: &[&str]) -> bool {
        let Some((path, name)) = self.package_id.as_deref().and_then(|id| id.rsplit_once('#')) else {
            return false;
        };
        let name = match name.split_once('@') {
            Some((name, _)) => name,
            None => path.rsplit('/').next().unwrap_or_default(),
        };
        packages.contains(&name)
    }
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// A test program, and the folder of its package, which cargo would run it in.
#[derive(Debug)]
pub(crate) struct TestProgram {
    pub(crate) folder: PathBuf,
    pub(crate) file: PathBuf,
    /// False for a program that the suite starts by itself.
    pub(crate) runs: bool,
}

/// Compiles the test programs of these packages and says where they are. `selection` is what cargo is asked for, which may
/// be more: libraries are compiled once for each set of packages that they are asked for with.
pub(crate) fn test_programs(
    project: &Project,
    selection: &[&str],
    packages: &[&str],
) -> Result<Vec<TestProgram>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = project.cargo();
    command.args(["test", "--no-run", "--locked", "--message-format", "json-render-diagnostics"]);
    command.args(selection);
    note(&format!("$ {}", show(&command)));
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests of {} do not compile", packages.join(", "));
    }
    let programs: Vec<TestProgram> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && message.is_of(packages))
        .filter_map(|message| {
            let folder = message.manifest_path?.parent()?.to_owned();
            let runs = message.profile.is_some_and(|profile| profile.test);
            Some(TestProgram { folder, file: message.executable?, runs })
        })
        .collect();
    if !programs.iter().any(|program| program.runs) {
        bail!("{} hold no test program", packages.join(", "));
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_known_by_their_ids() {
        let message = |id: &str| -> Message {
            serde_json::from_str(&format!(r#"{{"reason":"compiler-artifact","package_id":"{id}"}}"#)).unwrap()
        };
        let of = |id: &str, name: &str| message(id).is_of(&[name]);
        assert!(of("path+file:///clone/supervisor/init#aion-init@0.1.0", "aion-init"));
        assert!(of("path+file:///clone/supervisor/aiond#0.1.0", "aiond"));
        assert!(!of("path+file:///clone/supervisor/init#aion-init@0.1.0", "init"));
        assert!(!of("registry+https://example.org/index#aya@0.14.0", "aion-init"));
    }
}
