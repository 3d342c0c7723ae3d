//! Removes whatever a launcher made in the kernel, while none runs: processes, control groups, volumes, pinned
//! probes. What agents left on disk (output, exits, the audit log) stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aion_cgroup::{Hierarchy, Parent};
use aion_launcher_proto::v1;
use aion_network::Network;
use aion_probes::Probes;
use aion_types::ExitReason;
use anyhow::Context;

use crate::clock;
use crate::state::{Folder, Instance, Phase, StoredAgents};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the probes of a state folder are pinned.
pub(crate) fn pin_dir(folder: &Folder) -> PathBuf {
    Path::new("/sys/fs/bpf/aion").join(folder.hash())
}

/// The name of a state folder's control group, when nothing else is asked.
pub(crate) fn default_cgroup(folder: &Folder) -> String {
    format!("aion-{}", folder.hash())
}

/// Purges a state folder. Takes its lock, so a launcher that runs is safe from it.
///
/// # Errors
/// A launcher runs, or something cannot be removed; everything else was removed then.
pub fn purge(state: &Path) -> anyhow::Result<()> {
    if !state.join("launcher").is_dir() {
        return Ok(());
    }
    let folder = Folder::existing(state)?;
    let _instance = Instance::lock(&folder)?;
    let cgroup = Instance::noted_cgroup(&folder).unwrap_or_else(|| default_cgroup(&folder));
    remove_all(&folder, &cgroup)
}

/// The same for a launcher that has the lock and has stopped its threads.
pub(crate) fn remove_all(folder: &Folder, cgroup: &str) -> anyhow::Result<()> {
    let groups = Hierarchy::detect()
        .and_then(|hierarchy| Parent::at(hierarchy, cgroup))
        .and_then(|parent| parent.remove_all(PATIENCE))
        .context("control groups are left");
    let probes = Probes::unpin_all(&pin_dir(folder)).context("pinned probes are left");
    // The folder of all instances goes with the last of them.
    let _ = std::fs::remove_dir("/sys/fs/bpf/aion");
    // After the processes: nothing of theirs is to find a way out while it is taken down.
    let network = Network::purge(&folder.hash(), &folder.network()).context("agents' networks are left");
    let volumes = remove_volumes(&folder.volumes()).context("volumes are left");
    mark_killed(folder)?;
    for file in [folder.socket(), folder.pid_file()] {
        let _ = std::fs::remove_file(file);
    }
    groups.and(probes).and(network).and(volumes)
}

fn remove_volumes(dir: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        // Templates hold nothing of anybody and take long to make.
        if entry.file_type()?.is_file() && !entry.file_name().to_string_lossy().starts_with("template-") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The table says of everything that ran that it was killed.
fn mark_killed(folder: &Folder) -> anyhow::Result<()> {
    let table = StoredAgents::new(folder.table());
    for stored in table.all()? {
        let Some(mut record) = stored.record else { continue };
        match record.phase() {
            Phase::Running => {}
            Phase::Launching => {
                table.remove(&stored.id)?;
                continue;
            }
            Phase::Exited | Phase::Unknown => continue,
        }
        record.agent.exit = Some(v1::Exit {
            code: 0,
            signal: 9,
            reason: ExitReason::Killed.as_str().to_owned(),
            time_ns: clock::wall_ns(),
        });
        record.volume.clear();
        record.set_phase(Phase::Exited);
        table.write_record(&stored.id, &record)?;
    }
    Ok(())
}
