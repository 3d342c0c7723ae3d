//! Where things are: the clone, the cache, the build's target folder, and the environment of a build.
//!
//! This is the one place that sets PATH, LIBCLANG_PATH and CARGO_TARGET_DIR. Everything else asks here, so
//! that `up`, `test`, the VMs and the benchmarks share one build of RocksDB.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::dist;
use crate::process::{note, read, run};

/// The target that aion-init is built for: named, so that its static libc is not asked of build scripts and
/// procedural macros.
pub(crate) const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The folders of this clone and of its builds.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The clone.
    pub(crate) root: PathBuf,
    /// `~/.cache/aion`: what outlives a clone.
    pub(crate) cache: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// The stage: below the target folder unless it is absolute.
    pub(crate) staged: PathBuf,
}

impl Project {
    /// Finds the clone that this xtask belongs to.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask lies in no folder")?.to_owned();
        if !root.join("Cargo.lock").is_file() {
            bail!("{} is not a clone of AION", root.display());
        }
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let caches = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
        let cache = caches.join("aion");
        let target = ["CARGO_TARGET_DIR", "AION_TARGET_DIR"]
            .iter()
            .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
            .map_or_else(|| cache.join("target"), PathBuf::from);
        let target = if target.is_absolute() { target } else { root.join(target) };
        Ok(Self { root, cache, target, staged: PathBuf::from("aion") })
    }

    /// Takes the target folder for this clone. Cargo goes by times of files below a workspace, wherever that lies: after another
    /// clone has built here, it would call that clone's programs ours. Only the workspace's own crates are thrown away.
    pub(crate) fn claim_target(&self) -> Result<()> {
        let marker = self.target.join("clone");
        let own = self.root.as_os_str().as_encoded_bytes();
        let last = std::fs::read(&marker).unwrap_or_default();
        if last == own {
            return Ok(());
        }
        if !last.is_empty() {
            note(&format!("the last build was that of {}", String::from_utf8_lossy(&last)));
            for profile in ["dev", "release"] {
                let mut clean = self.cargo();
                clean.args(["clean", "--quiet", "--workspace", "--profile", profile]);
                run(&mut clean)?;
                run(clean.args(["--target", STATIC_TARGET]))?;
            }
            dist::forget_packer(self)?;
        }
        std::fs::create_dir_all(&self.target)
            .with_context(|| format!("cannot make {}", self.target.display()))?;
        std::fs::write(&marker, own).with_context(|| format!("cannot write {}", marker.display()))
    }

    /// Where a build is put together: `bin/` with the five binaries, and the probes' object beside them.
    /// Cargo's own folder will not do: it holds aion-init twice, and only the static one must ever run.
    pub(crate) fn stage(&self) -> PathBuf {
        self.target.join(&self.staged)
    }

    /// The folder of the binaries.
    pub(crate) fn bin(&self) -> PathBuf {
        self.stage().join("bin")
    }

    /// One binary.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// A command in the clone with the build's environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).envs(self.environment());
        command
    }

    /// Cargo, with the build's environment.
    pub(crate) fn cargo(&self) -> Command {
        self.command("cargo")
    }

    /// The variables of a build.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![
            ("PATH", path_with_ccache()),
            ("CARGO_TARGET_DIR", self.target.clone().into_os_string()),
            // One set of paths in debug info and cache keys, so that two clones share ccache's entries.
            ("CCACHE_NOHASHDIR", "1".into()),
        ];
        if std::env::var_os("LIBCLANG_PATH").is_none() {
            variables.push(("LIBCLANG_PATH", "/usr/lib/llvm-22/lib".into()));
        }
        variables
    }

    /// A folder below the cache, made when it is not there.
    pub(crate) fn cache_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.cache.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// PATH with Debian's ccache links first: the `cc` crate and RocksDB's build then hit the cache with no more
/// set-up.
fn path_with_ccache() -> OsString {
    let ccache = Path::new("/usr/lib/ccache");
    let path = std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let rest = std::env::split_paths(&path).filter(|folder| folder != ccache);
    let all = std::iter::once(ccache.to_owned()).filter(|folder| folder.is_dir()).chain(rest);
    std::env::join_paths(all).unwrap_or(path)
}

/// The names below a folder that git knows of, or would.
pub(crate) fn tracked(folder: &Path) -> Result<Vec<String>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let text = read(Command::new("git").arg("-C").arg(folder).args(list))?;
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_clone() {
        let project = Project::locate().unwrap();
        assert!(project.root.join("xtask/Cargo.toml").is_file());
        assert!(project.target.is_absolute());
    }
}
