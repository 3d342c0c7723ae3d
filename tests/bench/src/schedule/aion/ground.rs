//! What a pair of daemons stands on: the clone's policies and the host's network, or a folder and a network of the benchmark's own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::schedule::process::inside;

/// Where a pair stands; what is not given is the host's, and the clone's.
#[derive(Debug, Default)]
pub(crate) struct Ground {
    /// The network namespace, by its file: the host as these daemons see it.
    pub(crate) netns: Option<PathBuf>,
    /// The folder of policies, with the detections in it.
    pub(crate) policies: Option<PathBuf>,
    /// Who is asked for agents' names.
    pub(crate) dns: Option<String>,
}

impl Ground {
    /// A program that stands there.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.netns {
            Some(netns) => inside(netns, program),
            None => Command::new(program),
        }
    }
}

/// The clone that profiles and policies are of.
pub(crate) fn clone_dir() -> Result<PathBuf> {
    match std::env::var_os("AION_CLONE").filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("a clone")?.to_owned()),
    }
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
