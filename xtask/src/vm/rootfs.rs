//! The VMs' root file system: Debian 12 with a few packages, as an ext4 image.
//!
//! `mke2fs -d` fills the image from a folder, so that no loop device is needed. The image's name carries a
//! hash of the recipe; an old recipe's image is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::process::{as_root, head, read, run};
use crate::project::Project;

/// Goes into the hash: change it when the steps below change.
const STEPS: &str = "1: minbase, no documentation, ext4 6G with project quotas";

/// The image, and the busybox that came with it.
pub(crate) struct Root {
    pub(crate) disk: PathBuf,
    pub(crate) busybox: PathBuf,
}

/// A list of packages below tests/vm, and what its images are called.
pub(crate) struct Recipe {
    packages: &'static str,
    name: &'static str,
    /// Whether its file system has a journal: not where every machine is thrown away, but where the power is cut and it boots again.
    journal: bool,
}

/// What the suites run in: no systemd, guest-init is PID 1.
pub(crate) const SUITES: Recipe = Recipe { packages: "tests/vm/packages", name: "root", journal: false };
/// A Debian as an operator has it, with systemd, and without what AION's package must bring or ask for.
pub(crate) const BARE: Recipe = Recipe { packages: "tests/vm/packages-ship", name: "bare", journal: true };

/// The root image, made when the recipe is new.
pub(crate) fn image(project: &Project, folder: &Path, recipe: &Recipe) -> Result<Root> {
    let Recipe { name, journal, .. } = *recipe;
    let recipe = project.root.join(recipe.packages);
    let text = fs::read_to_string(&recipe).with_context(|| format!("cannot read {}", recipe.display()))?;
    let packages: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let key = fnv(&format!("{STEPS}\n{}", packages.join("\n")));
    let root = Root {
        disk: folder.join(format!("{name}-{key:016x}.ext4")),
        busybox: folder.join(format!("{name}-{key:016x}.busybox")),
    };
    if root.disk.exists() && root.busybox.exists() {
        return Ok(root);
    }
    head("making the VMs' root file system");
    forget_old(folder, name)?;
    let tree = folder.join(format!("{name}.part"));
    let _leftover = remove_tree(&tree);
    bootstrap(&tree, &packages)?;
    fs::copy(tree.join("bin/busybox"), &root.busybox).context("busybox-static holds no bin/busybox")?;
    let part = folder.join(format!("{name}.ext4.part"));
    make_ext4(&tree, &part, 6 << 30, journal)?;
    remove_tree(&tree)?;
    fs::rename(&part, &root.disk)?;
    Ok(root)
}

/// Unpacks and configures Debian 12 below `tree`.
fn bootstrap(tree: &Path, packages: &[&str]) -> Result<()> {
    let mut command = as_root("mmdebstrap");
    command.args(["--mode=root", "--variant=minbase", "--quiet"]);
    command.arg(format!("--include={}", packages.join(",")));
    for folder in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    for option in apt::acquire_options()? {
        command.arg(format!("--aptopt={option}"));
    }
    command.arg("--customize-hook=mkdir -p \"$1\"/payload");
    command.arg("bookworm").arg(tree).args(apt::bookworm_lines()?);
    run(&mut command)
}

/// Makes an ext4 image of `bytes` that holds what lies below `tree`. The file is sparse.
pub(crate) fn make_ext4(tree: &Path, image: &Path, bytes: u64, journal: bool) -> Result<()> {
    let file = fs::File::create(image).with_context(|| format!("cannot make {}", image.display()))?;
    file.set_len(bytes)?;
    drop(file);
    let mut command = as_root("/sbin/mke2fs");
    let features = if journal { "has_journal,project,quota" } else { "^has_journal,project,quota" };
    command.args(["-q", "-F", "-t", "ext4", "-O", features, "-m", "0", "-d"]);
    run(command.arg(tree).arg(image))
}

fn remove_tree(tree: &Path) -> Result<()> {
    if tree.exists() { run(as_root("rm").args(["-rf", "--one-file-system"]).arg(tree)) } else { Ok(()) }
}

fn forget_old(folder: &Path, name: &str) -> Result<()> {
    let prefix = format!("{name}-");
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)) {
            fs::remove_file(path)?;
        }
    }
    let free = read(Command::new("df").args(["--output=avail", "-B1"]).arg(folder))?;
    let free: u64 = free.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or(u64::MAX);
    if free < 3 << 30 {
        bail!("the VMs' images need 3 GiB below {}: {} MiB are free", folder.display(), free >> 20);
    }
    Ok(())
}

/// FNV-1a: the same on every machine and with every compiler.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(super::fnv(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::fnv("a"), 0xaf63_dc4c_8601_ec8c);
    }
}
