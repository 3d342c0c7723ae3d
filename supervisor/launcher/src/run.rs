//! From options to a running launcher, and to its end. Order matters: the audit log is the first to begin and the
//! last to stop, and nobody is answered before what an earlier launcher left has been taken over.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{Builder, JoinHandle};

use aion_cgroup::{Hierarchy, Parent};
use aion_probes::{Adoption, EventRing, Object, Opened, Probes};
use aion_sandbox::{InitImage, Spawner};
use aion_volumes::Volumes;
use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::audit::{AuditLog, Settings, WriterThread};
use crate::ceilings::Ceilings;
use crate::drain::Drain;
use crate::exits::{Exits, Work};
use crate::failure::chain;
use crate::hub::Hub;
use crate::launcher::{Launcher, ProbesState};
use crate::options::RunOptions;
use crate::profiles::Profiles;
use crate::server::{Peers, Server};
use crate::slots::Slots;
use crate::state::{Folder, Instance, StoredAgents, replace};
use crate::{adopt, clock, drain, egress, exits, grams, purge, service};

/// Size of the volume that an agent gets whose manifest says nothing.
const USUAL_VOLUME: u64 = 1 << 30;
/// Threads that work on ends.
const WORKERS: usize = 2;

/// A launcher that has taken over its state folder and listens.
#[derive(Debug)]
pub struct Running {
    launcher: Arc<Launcher>,
    server: Server,
    socket: PathBuf,
    writer: WriterThread,
    threads: Vec<JoinHandle<()>>,
    cgroup: String,
    stop_agents: bool,
    _instance: Instance,
}

/// Starts a launcher.
///
/// # Errors
/// Without root, with another launcher on the same folder, or when something it cannot do without is missing.
pub fn start(options: &RunOptions) -> Result<Running> {
    if !nix::unistd::geteuid().is_root() {
        bail!("aion-launcher makes namespaces, control groups and probes: start it as root");
    }
    // Inherited by aion-init it would say that an agent's set-up is over, and the BPF LSM programs would refuse its mounts.
    if rustix::thread::no_new_privs().unwrap_or(false) {
        bail!(
            "aion-launcher was started with no_new_privs, which agents would inherit: take NoNewPrivileges= out of its unit"
        );
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    raise_open_files();
    let group = options.gid()?;
    let user = options.uid()?;
    if user.is_none() {
        tracing::warn!(user = options.user, "no such user: only root can connect");
    }
    let folder = Folder::open(&options.state, group)?;
    let cgroup = options.cgroup.clone().unwrap_or_else(|| purge::default_cgroup(&folder));
    let instance = Instance::take(&folder, &cgroup)?;

    let hub = Arc::new(Hub::default());
    let settings = Settings {
        dir: folder.audit(),
        key: folder.audit_key(),
        gid: group.as_raw(),
        max_bytes: options.audit_max_mib.saturating_mul(1 << 20),
    };
    let (audit, writer) = AuditLog::start(settings, Arc::clone(&hub)).context("cannot open the audit log")?;
    let hierarchy = Hierarchy::detect().context("cannot find control groups")?;
    let ceilings = Ceilings::new(options, &hierarchy);
    tracing::debug!(?ceilings, "no agent gets more");
    let parent = Parent::open(hierarchy, &cgroup).context("cannot make the parent control group")?;
    let init = options.init_path();
    let image = InitImage::load(&init).with_context(|| format!("cannot use {}", init.display()))?;
    // After the image, which is large: loading the probes ends with giving memory back.
    let (probes, ring) = load_probes(options, &folder, &parent);
    let spawner =
        Spawner::start(image, aion_sandbox::Options::default()).context("cannot start the spawner")?;
    let (exits, work) = Exits::new()?;
    let launcher = Arc::new(Launcher {
        table: StoredAgents::new(folder.table()),
        group,
        user: user.map_or(0, nix::unistd::Uid::as_raw),
        boot_id: clock::boot_id(),
        epoch: instance.epoch,
        agents: RwLock::new(HashMap::new()),
        owners: RwLock::new(HashMap::new()),
        slots: Slots::new(parent, spawner, usize::from(options.pool), instance.epoch),
        volumes: open_volumes(&folder, usize::from(options.pool)),
        profiles: Profiles::new(&options.profiles),
        probes,
        audit,
        ceilings,
        network: egress::network(options, &folder).context("cannot use --egress-pool")?,
        wasm_runner: RunOptions::wasm_runner(),
        append_rate: (options.audit_append_rate, crate::audit::Shared::default()),
        hub,
        exits,
        drain: Drain::new()?,
        grams: grams::Grams::new(),
        births: Mutex::default(),
        folder,
    });
    // Before anything is drained: whose records are waiting must be known.
    let all_known = adopt::adopt(&launcher).context("cannot take over the agents of the last launcher")?;
    let mut threads = start_threads(&launcher, ring, work)?;
    if let ProbesState::Loaded { probes, report } = &launcher.probes
        && report.adoption == Adoption::Replaced
    {
        if !all_known {
            tracing::error!(
                "the probes of an earlier version stay attached for agents that the new ones do not know"
            );
        } else if let Err(e) = probes.retire_previous() {
            tracing::error!(error = chain(&e), "the probes of an earlier version stay attached");
        }
    }
    threads.push(start_refill(&launcher)?);
    let socket = options.socket.clone().unwrap_or_else(|| launcher.folder.socket());
    let server = Server::listen(&socket, group, Peers { user })?;
    let pid_file = launcher.folder.pid_file();
    if let Err(e) = replace(&pid_file, format!("{}\n", std::process::id()).as_bytes()) {
        tracing::warn!(error = %e, file = %pid_file.display(), "no pid file");
    }
    tracing::info!(socket = %socket.display(), cgroup, epoch = launcher.epoch, "ready");
    let stop_agents = options.stop_agents_on_exit;
    Ok(Running { launcher, server, socket, writer, threads, cgroup, stop_agents, _instance: instance })
}

impl Running {
    /// What ends [`Self::serve`]; call it from another thread.
    pub fn stopper(&self) -> impl Fn() + Send + 'static + use<> {
        self.server.stopper(&self.socket)
    }

    /// Serves until stopped, then leaves in order. Agents run on, unless asked otherwise.
    ///
    /// # Errors
    /// Something that was to be removed is left.
    pub fn serve(self) -> Result<()> {
        service::ready(&self.socket);
        self.server.run(&self.launcher);
        let launcher = &self.launcher;
        service::stopping();
        tracing::info!("stopping");
        let _ = std::fs::remove_file(&self.socket);
        launcher.hub.close();
        if self.stop_agents {
            for agent in launcher.all() {
                if let Err(failure) = launcher.kill(&agent.id, "the launcher stops") {
                    tracing::error!(agent = %agent.id, tenant = agent.tenant(), code = failure.code.as_str(), %failure, "an agent cannot be stopped");
                }
            }
        }
        launcher.audit.lift_limit();
        launcher.slots.stop();
        launcher.exits.stop();
        launcher.drain.stop();
        launcher.grams.stop();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        }
        self.writer.stop();
        let _ = std::fs::remove_file(launcher.folder.pid_file());
        if self.stop_agents {
            purge::remove_all(&launcher.folder, &self.cgroup)?;
        }
        Ok(())
    }
}

fn start_threads(
    launcher: &Arc<Launcher>,
    ring: Option<EventRing>,
    work: Receiver<Work>,
) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    let this = Arc::clone(launcher);
    launcher.drain.begins();
    threads.push(Builder::new().name("drain".into()).spawn(move || drain::run(&this, ring))?);
    let this = Arc::clone(launcher);
    threads.push(Builder::new().name("exits".into()).spawn(move || this.exits.run(&this))?);
    let this = Arc::clone(launcher);
    threads.push(Builder::new().name("grams".into()).spawn(move || grams::run(&this))?);
    let work = Arc::new(Mutex::new(work));
    for _ in 0..WORKERS {
        let (this, work) = (Arc::clone(launcher), Arc::clone(&work));
        threads.push(Builder::new().name("ends".into()).spawn(move || exits::work(&this, &work))?);
    }
    Ok(threads)
}

fn start_refill(launcher: &Arc<Launcher>) -> Result<JoinHandle<()>> {
    let this = Arc::clone(launcher);
    let more = move |launcher: &Launcher| {
        let Some(volumes) = &launcher.volumes else { return };
        loop {
            match volumes.refill() {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => {
                    return tracing::error!(error = chain(&e), "cannot make a volume ready, or remove one");
                }
            }
        }
    };
    Ok(Builder::new().name("refill".into()).spawn(move || this.slots.refill(|| more(&this)))?)
}

/// Without probes the launcher runs all the same: it can stop what runs, and says at each launch what is missing.
fn load_probes(options: &RunOptions, folder: &Folder, parent: &Parent) -> (ProbesState, Option<EventRing>) {
    let Some(cgroup) = parent.unified_path() else {
        let reason = "cgroup v2 is not mounted: mount it at /sys/fs/cgroup/unified".to_owned();
        return (ProbesState::Missing { reason }, None);
    };
    let options = aion_probes::Options {
        object: Object::Path(options.bpf_path()),
        pin_dir: purge::pin_dir(folder),
        cgroup,
        ring_bytes: options.ring_mib.next_power_of_two() << 20,
    };
    match Probes::open_or_load(&options) {
        Ok(Opened { probes, ring, report }) => {
            tracing::info!(adoption = ?report.adoption, "probes are loaded");
            (ProbesState::Loaded { probes: Arc::new(probes), report }, Some(ring))
        }
        Err(e) => {
            let reason = chain(&e);
            tracing::error!(error = reason, "no probes: agents are launched only if they allow it");
            (ProbesState::Missing { reason }, None)
        }
    }
}

fn open_volumes(folder: &Folder, ready: usize) -> Option<Arc<Volumes>> {
    let options = aion_volumes::Options { folder: folder.volumes(), ready, ready_bytes: USUAL_VOLUME };
    match Volumes::open(options) {
        Ok(volumes) => Some(Arc::new(volumes)),
        Err(e) => {
            tracing::error!(error = chain(&e), "no volumes for managed workspaces");
            None
        }
    }
}

/// Each agent takes about a dozen descriptors.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        tracing::warn!(error = %e, "the limit on open files stays as it is");
    }
}
