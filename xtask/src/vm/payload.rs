//! The payload: the second disk, with what this clone holds and what was just built from it.
//!
//! Binaries are stripped of their line tables on the way: RocksDB's alone are larger than the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Suite, rootfs};
use crate::binaries::TestProgram;
use crate::ebpf;
use crate::process::{capture, read, run, succeeds};
use crate::project::{Project, tracked};

/// What goes in.
pub(crate) struct Contents<'a> {
    /// The suites in their order, each with its test programs.
    pub(crate) tests: &'a [(Suite, Vec<TestProgram>)],
    pub(crate) filter: Option<&'a str>,
    /// Parts of names of tests that run on the oldest kernel alone, with spaces between.
    pub(crate) once: &'a str,
    /// Parts of the names of tests that no kernel runs.
    pub(crate) never: &'a str,
    pub(crate) daemons: bool,
    /// Packages to install, into `packages/`.
    pub(crate) packages: &'a [PathBuf],
    /// Seconds of the work of tests/vm/pace.py on this host, where the suite holds lengths of time.
    pub(crate) pace: Option<f64>,
}

/// The image of this run.
pub(crate) fn image(project: &Project, folder: &Path, contents: &Contents<'_>) -> Result<PathBuf> {
    let tree = folder.join("payload.part");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let clone = tree.join("clone");
    let target = tree.join("target");
    fs::create_dir_all(&clone)?;
    fs::create_dir_all(&target)?;
    copy_clone(&project.root, &clone)?;
    run(Command::new("cp").arg("-r").arg(project.root.join("tests/vm")).arg(tree.join("vm")))?;
    // A machine that installs packages is to have nothing else of ours.
    if contents.packages.is_empty() {
        copy_stripped(&project.target, &project.stage(), &target)?;
    }
    fs::create_dir_all(tree.join("packages"))?;
    for package in contents.packages {
        let name = package.file_name().context("a package without a name")?;
        fs::copy(package, tree.join("packages").join(name))
            .with_context(|| format!("cannot copy {}", package.display()))?;
    }
    if contents.daemons {
        copy_file(&project.target, &std::env::current_exe()?, &target)?;
    }
    for test in contents.tests.iter().flat_map(|(_, programs)| programs) {
        copy_file(&project.target, &test.file, &target)?;
    }
    fs::write(tree.join("vm.env"), variables(project, contents))?;
    let used = read(Command::new("du").args(["-s", "-B1"]).arg(&tree))?;
    let used: u64 = used.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let image = folder.join("payload.ext4");
    rootfs::make_ext4(&tree, &image, (used + used / 4 + (512 << 20)).next_multiple_of(1 << 20), false)?;
    fs::remove_dir_all(&tree)?;
    Ok(image)
}

fn variables(project: &Project, contents: &Contents<'_>) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let suites: Vec<&str> = contents.tests.iter().map(|(suite, _)| suite.name()).collect();
    let xtask = std::env::current_exe().unwrap_or_default();
    let mut text = String::new();
    let mut set = |name: &str, value: &str| text.push_str(&format!("export {name}={}\n", quote(value)));
    set("AION_CLONE", &project.root.to_string_lossy());
    set("AION_TARGET", &project.target.to_string_lossy());
    set("CARGO_TARGET_DIR", &project.target.to_string_lossy());
    set("AION_SUITES", &suites.join(" "));
    for (suite, programs) in contents.tests {
        let programs: Vec<String> = programs
            .iter()
            .filter(|program| program.runs)
            .map(|program| format!("{}\t{}", program.folder.display(), program.file.display()))
            .collect();
        set(&format!("AION_TESTS_{}", suite.name()), &programs.join("\n"));
    }
    set("AION_TEST_FILTER", contents.filter.unwrap_or(""));
    set("AION_TEST_ONCE", contents.once);
    set("AION_TEST_NEVER", contents.never);
    if let Some(pace) = contents.pace {
        set("AION_HOST_PACE", &pace.to_string());
    }
    // Of an earlier build they would not be what is tested.
    if contents.daemons {
        set("AION_BIN_DIR", &project.bin().to_string_lossy());
    }
    set("AION_INIT", &project.binary("aion-init").to_string_lossy());
    set("AION_PROBES_OBJECT", &project.stage().join(ebpf::OBJECT).to_string_lossy());
    set("AION_XTASK", &landing(&project.target, &xtask).to_string_lossy());
    set("AION_NO_DAEMONS", if contents.daemons { "0" } else { "1" });
    set("AION_E2E_SCALE", &std::env::var("AION_E2E_SCALE").unwrap_or_else(|_| "small".to_owned()));
    text
}

/// Copies the files that git knows of or would, so that neither builds nor state travel along.
fn copy_clone(root: &Path, to: &Path) -> Result<()> {
    for name in &tracked(root)? {
        let source = root.join(name);
        let Ok(kind) = fs::symlink_metadata(&source) else { continue };
        if !kind.is_file() {
            continue;
        }
        let destination = to.join(name);
        if let Some(parent) = destination.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&source, &destination).with_context(|| format!("cannot copy {}", source.display()))?;
    }
    Ok(())
}

/// Where a file of the host is in the guest: the same path when it lies below the target folder, else
/// below the target folder's `elsewhere`.
fn landing(target: &Path, file: &Path) -> PathBuf {
    if file.starts_with(target) {
        file.to_owned()
    } else {
        target.join("elsewhere").join(file.file_name().unwrap_or_default())
    }
}

fn copy_stripped(target: &Path, folder: &Path, to: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_stripped(target, &entry.path(), to)?;
        } else {
            copy_file(target, &entry.path(), to)?;
        }
    }
    Ok(())
}

fn copy_file(target: &Path, file: &Path, to: &Path) -> Result<()> {
    let landed = landing(target, file);
    let destination = to.join(landed.strip_prefix(target)?);
    if let Some(parent) = destination.parent() {
        fs::create_dir_all(parent)?;
    }
    // A BPF object keeps its BTF and its relocations; only programs of this machine are stripped.
    let native = capture(Command::new("readelf").arg("-h").arg(file))
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("X86-64"));
    let stripped =
        native && succeeds(Command::new("strip").args(["--strip-debug", "-o"]).arg(&destination).arg(file));
    if !stripped {
        fs::copy(file, &destination).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_land_where_they_were_or_elsewhere() {
        let target = Path::new("/cache/target");
        assert_eq!(landing(target, Path::new("/cache/target/debug/x")), Path::new("/cache/target/debug/x"));
        assert_eq!(
            landing(target, Path::new("/clone/target/xtask")),
            Path::new("/cache/target/elsewhere/xtask")
        );
    }
}
