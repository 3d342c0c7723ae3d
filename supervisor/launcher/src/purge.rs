//! Removes whatever a launcher made in the kernel, while none runs: processes, control groups, volumes, pinned
//! probes. What agents left on disk (output, exits, the audit log) stays.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aion_cgroup::{AgentGroup, Hierarchy, Parent};
use aion_launcher_proto::v1;
use aion_network::Network;
use aion_probes::Probes;
use aion_sandbox::InitProcess;
use aion_types::ExitReason;
use anyhow::Context;
use nix::libc::SIGTERM;

use crate::clock;
use crate::process::is_in_group;
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

/// Purges a state folder. Takes its lock, so a launcher that runs is safe from it. With `grace` the agents are asked to end first, and
/// have so long for it.
///
/// # Errors
/// A launcher runs, or something cannot be removed; everything else was removed then.
pub fn purge(state: &Path, grace: Duration) -> anyhow::Result<()> {
    if !state.join("launcher").is_dir() {
        return Ok(());
    }
    let folder = Folder::existing(state)?;
    let _instance = Instance::lock(&folder)?;
    let cgroup = Instance::noted_cgroup(&folder).unwrap_or_else(|| default_cgroup(&folder));
    if !grace.is_zero()
        && let Err(e) = ask_to_end(&folder, &cgroup, grace)
    {
        tracing::warn!(error = %e, "not every agent could be asked to end: they are killed");
    }
    remove_all(&folder, &cgroup)
}

/// SIGTERM to every agent, and time to write its checkpoint and end. How it ends then is not asked: it was the host that ended it, and
/// the table will say `killed`, so that its task or its restart rule brings it back.
fn ask_to_end(folder: &Folder, cgroup: &str, grace: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + grace;
    let parent = Parent::at(Hierarchy::detect()?, cgroup)?;
    let boot_id = clock::boot_id();
    let mut asked = Vec::new();
    for stored in StoredAgents::new(folder.table()).all()? {
        let Some(record) = stored.record else { continue };
        if record.phase() != Phase::Running || record.boot_id != boot_id {
            continue;
        }
        let group = AgentGroup::open(&parent, &record.slot)?;
        // One that is paused hears nothing, and is not to go on only to end.
        if group.is_frozen() || !is_in_group(record.agent.init_pid, group.path()) {
            continue;
        }
        match InitProcess::adopt(record.agent.init_pid, record.init_start) {
            Ok(init) => {
                init.signal(SIGTERM).with_context(|| format!("agent {}", stored.id))?;
                asked.push(group);
            }
            Err(e) => tracing::debug!(agent = %stored.id, error = %e, "it has ended"),
        }
    }
    tracing::info!(agents = asked.len(), seconds = grace.as_secs(), "asked to end");
    while asked.iter().any(AgentGroup::is_populated) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
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
