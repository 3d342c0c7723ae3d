//! The folder from which Python agents call AION and serve tasks: aion_sdk, aion_runtime, grpcio, the protocol's stubs. Made for the
//! host's own Python, because that is the one that a sandbox shows.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{note, run};
use crate::project::Project;

const PYTHON: &str = "/usr/bin/python3";

/// Makes it, unless it is there and current.
pub(crate) fn python(project: &Project) -> Result<PathBuf> {
    // No agent may read below /root, whatever its manifest says.
    let cache =
        if project.cache.starts_with("/root") { Path::new("/var/cache/aion") } else { &project.cache };
    let folder = cache.join("sdk/python");
    if !folder.join(".complete").is_file() {
        note("the Python SDK: grpcio and protobuf from pip");
    }
    std::fs::create_dir_all(cache.join("sdk"))?;
    // It decides by itself whether anything is to be done.
    run(Command::new(PYTHON).arg(project.root.join("sdk/python/build.py")).arg(&folder))?;
    Ok(folder)
}

/// The clients against a fake AION.
pub(crate) fn test(project: &Project) -> Result<()> {
    let folder = python(project)?;
    run(Command::new(PYTHON)
        .args(["-B", "-m", "unittest", "discover", "-q"])
        .current_dir(project.root.join("sdk/python/tests"))
        .env("PYTHONPATH", folder))
}
