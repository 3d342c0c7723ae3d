//! Keeps a delegated control group while no launcher runs: systemd removes one that is empty, and turns controllers on and off below a
//! slice as its own units need them, so agents' groups must lie in a unit that has a process (docs/adr/0015-systemd-units.md).
//!
//! The process moves to a group of its own, because a group that gives its children controllers may hold none itself.

use std::path::{Path, PathBuf};

use aion_cgroup::Hierarchy;
use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::service;

/// The group of the process itself, beside the launcher's.
const OWN: &str = "holder";

/// Moves out of the way, says that the group is ready, and stays until SIGTERM.
///
/// # Errors
/// Without unified control groups, or when the group is not this process's to divide.
pub fn hold() -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let hierarchy = Hierarchy::detect().context("cannot find control groups")?;
    let root = hierarchy.unified_root().context("cgroup v2 is not mounted")?;
    let text = std::fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let group = own_group(root, &text).context("this process is in no group of cgroup v2")?;
    ensure!(group != root, "this process is in the root group: start it as a unit with Delegate=yes");
    let own = if group.ends_with(OWN) { group } else { group.join(OWN) };
    if let Err(error) = std::fs::create_dir(&own)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot make {}", own.display()));
    }
    let procs = own.join("cgroup.procs");
    std::fs::write(&procs, std::process::id().to_string())
        .with_context(|| format!("cannot write {}", procs.display()))?;
    service::say_ready();
    tracing::info!(group = %own.display(), "holding");
    signals.forever().next();
    Ok(())
}

/// The folder of the v2 group that `/proc/self/cgroup` names.
fn own_group(root: &Path, text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(if path.is_empty() { root.to_owned() } else { root.join(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_one_of_v2() {
        let root = Path::new("/sys/fs/cgroup");
        let text = "4:cpu:/x\n0::/aion.slice/aion-agents.service\n";
        assert_eq!(own_group(root, text).unwrap(), root.join("aion.slice/aion-agents.service"));
        assert_eq!(own_group(root, "0::/\n").unwrap(), root);
        assert_eq!(own_group(root, "4:cpu:/x\n"), None);
    }
}
