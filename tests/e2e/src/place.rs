//! Where the programs under test are, and whether they can run here at all.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder of the binaries.
    pub bin: PathBuf,
    /// The probes' object, when it is not where the launcher looks by itself.
    pub object: Option<PathBuf>,
    /// The clone: profiles and policies.
    pub clone: PathBuf,
}

impl Place {
    /// Finds them: `AION_BIN_DIR`, else where the build puts them together, beside the test program's own target folder.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn find() -> Result<Self> {
        let bin = match std::env::var_os("AION_BIN_DIR") {
            Some(dir) => PathBuf::from(dir),
            // TARGET/debug/deps/e2e-HASH
            None => std::env::current_exe()?
                .ancestors()
                .nth(3)
                .map(|target| target.join("aion/bin"))
                .unwrap_or_default(),
        };
        for name in ["aionctl", "aiond", "aion-launcher", "aion-init"] {
            if !bin.join(name).is_file() {
                bail!(
                    "no {name} in {}: run `cargo xtask build`, or name the folder in AION_BIN_DIR",
                    bin.display()
                );
            }
        }
        let object = ["AION_BPF_OBJECT", "AION_PROBES_OBJECT"]
            .iter()
            .find_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
            .map(PathBuf::from);
        let clone = clone();
        Ok(Self { bin, object, clone })
    }
}

/// The clone whose tests these are. Asked for at run time first: a target folder that two clones share gives both the same
/// program, with the paths of whichever compiled it.
fn clone() -> PathBuf {
    if let Some(path) = std::env::var_os("AION_CLONE").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    // tests/PACKAGE, whichever of them asks.
    package.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
}

/// Why the suite cannot run here: nothing to be ashamed of, but to be told.
#[must_use]
pub fn why_not() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the daemons' launcher must be root".to_owned());
    }
    // Whoever names the folder wants the suite to run: what is missing there is a failure, not a reason to skip.
    match Place::find() {
        Err(error) if std::env::var_os("AION_BIN_DIR").is_none() => Some(format!("{error:#}")),
        _ => None,
    }
}
