//! A launch, in order: slot and limits, workspace, probes, plan, answer. Whatever fails, everything made for it
//! is removed and the layer is named.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aion_cgroup::{BlockDevice, Limits, Missing};
use aion_launcher_proto::v1;
use aion_probes::AgentConfig;
use aion_sandbox::{LaunchFds, Launched, NetworkMode, mounts};
use aion_types::{ErrorCode, LayerName, LayerReport, LayerState};
use serde_json::json;

use crate::Failure;
use crate::agent::{Agent, Journal, Run, Told};
use crate::audit::Entry;
use crate::clock;
use crate::launcher::{END_PATIENCE, Launcher, Owner, ProbesState};
use crate::request::{Bind, Launch, Rootfs, WorkspaceKind};
use crate::slots::{Held, ReadySlot};
use crate::state::{GivenDevice, Phase, Record};
use crate::task::TaskFds;
use crate::{devices, egress, grams, network_limits, plan, restrain, withhold, workspace};

/// The answer of a launch: the agent, and the master of its terminal.
pub(crate) struct Answer {
    pub(crate) state: v1::AgentState,
    pub(crate) tty: Option<OwnedFd>,
}

impl Launcher {
    /// Launches an agent, or answers what the first launch of this incarnation did.
    pub(crate) fn launch(
        self: &Arc<Self>,
        raw: &v1::Launch,
        mut launch: Launch,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        self.refuse_own_state(&launch)?;
        self.ceilings.lower(&mut launch);
        let launch = Arc::new(launch);
        let agent_is_new = launch.incarnation == 0;
        let agent = self.agent_or(&launch.id, || Agent::new(launch.id.clone(), None, Record::default()));
        let _turn = crate::lock::lock(&agent.turn);
        let outcome = self.launch_in_turn(&agent, raw, &launch, fds, began);
        self.slots.refill_soon();
        if outcome.is_err() && agent.lock().record.phase() == Phase::Unknown {
            // It never was: nothing of it must stay. But for the output of incarnations that a restored state tells of.
            if agent_is_new {
                let _ = std::fs::remove_dir_all(self.folder.agent(&agent.id));
            }
            self.forget(&agent);
        }
        outcome
    }

    fn launch_in_turn(
        self: &Arc<Self>,
        agent: &Arc<Agent>,
        raw: &v1::Launch,
        launch: &Arc<Launch>,
        fds: Vec<OwnedFd>,
        began: Instant,
    ) -> Result<Answer, Failure> {
        let before = agent.lock().record.clone();
        match before.phase() {
            Phase::Unknown
                if crate::lock::read(&self.agents).get(&launch.id).is_none_or(|a| !Arc::ptr_eq(a, agent)) =>
            {
                return Err(Failure::new(ErrorCode::AgentNotFound, "the agent was removed meanwhile"));
            }
            Phase::Unknown => {}
            _ if before.agent.incarnation == launch.incarnation => {
                let run = agent.running();
                let tty = run.and_then(|run| crate::terminal::master(&run));
                return Ok(Answer { state: agent.view(), tty });
            }
            _ if before.agent.incarnation > launch.incarnation => {
                let message = format!("incarnation {} has been launched already", before.agent.incarnation);
                return Err(Failure::field("incarnation", message));
            }
            Phase::Running | Phase::Launching => {
                return Err(Failure::new(ErrorCode::AgentRunning, format!("agent {} runs", launch.id)));
            }
            Phase::Exited if !agent.wait_over(END_PATIENCE) => {
                return Err(Failure::new(
                    ErrorCode::AgentRunning,
                    "the last incarnation is still being cleaned up",
                ));
            }
            Phase::Exited => {}
        }
        self.audit.check()?;
        if let Err(failure) = self.ceilings.check(launch, crate::lock::read(&self.owners).len()) {
            self.tell_failure(launch, &failure);
            return Err(failure);
        }
        let seccomp = self.profiles.get(&launch.seccomp_profile)?;
        self.table.write_spec(&launch.id, raw)?;
        let journal = self.open_journal(launch)?;
        let task = TaskFds::open(self, launch, fds)?;
        let (ready, missing) = self.slots.take(
            launch.network,
            &limits(launch, &before),
            launch.may_degrade(LayerName::Cgroup),
        )?;
        let mut attempt = Attempt::new(self, launch, ready);
        let launched = attempt.go(agent, &seccomp, (journal, task), &missing, &before);
        match launched {
            Ok((run, layers, launched_tty)) => {
                let took = clock::as_ns(began.elapsed());
                let state = self.begin(agent, launch, run, layers, took)?;
                Ok(Answer { state, tty: launched_tty })
            }
            Err(failure) => {
                attempt.undo(&before);
                self.tell_failure(launch, &failure);
                Err(failure)
            }
        }
    }

    /// The agent runs: from here on it is watched.
    fn begin(
        self: &Arc<Self>,
        agent: &Arc<Agent>,
        launch: &Arc<Launch>,
        run: Run,
        layers: Vec<v1::Layer>,
        took_ns: u64,
    ) -> Result<v1::AgentState, Failure> {
        let run = Arc::new(run);
        let deadline = {
            let mut inner = agent.lock();
            inner.spec = Some(Arc::clone(launch));
            inner.run = Some(Arc::clone(&run));
            inner.record.agent.layers = layers;
            inner.record.agent.launch_ns = took_ns;
            inner.record.set_phase(Phase::Running);
            inner.record.deadline_ns
        };
        // A record that cannot be written costs a later launcher the agent; this one goes on.
        if let Err(failure) = self.publish(agent) {
            tracing::error!(agent = %launch.id, tenant = launch.tenant.as_str(), code = failure.code.as_str(), %failure, "the agent's record cannot be written");
        }
        let view = agent.view();
        self.exits.watch(agent, &run, deadline);
        let degraded: Vec<&str> =
            view.layers.iter().filter(|l| l.state == "degraded").map(|l| l.name.as_str()).collect();
        let detail = json!({
            "name": launch.name.as_str(), "incarnation": launch.incarnation, "pid": view.pid, "cgroup": view.cgroup,
            "command": String::from_utf8_lossy(&launch.argv.join(&b' ')).chars().take(4096).collect::<String>(),
        });
        let mut entries = vec![Entry::new("agent.launched", "allowed", &detail)];
        if !degraded.is_empty() {
            entries.push(
                Entry::new("agent.degraded", "allowed", &json!({ "layers": degraded }))
                    .rule("allow_degraded"),
            );
        }
        if launch.network == NetworkMode::Host {
            let detail = json!({ "network": "host" });
            entries.push(Entry::new("agent.network", "allowed", &detail).rule("host-network"));
        }
        if !launch.devices.is_empty() {
            let nodes: Vec<_> = launch
                .devices
                .iter()
                .map(|device| json!({ "node": device.path.to_string_lossy(), "writable": device.writable }))
                .collect();
            entries.push(Entry::new("agent.devices", "allowed", &json!({ "devices": nodes })).rule("device"));
        }
        let (tenant, id) = (launch.tenant.as_str(), launch.id.as_str());
        self.audit.append(entries.into_iter().map(|e| e.of(tenant, id)).collect());
        tracing::info!(agent = id, tenant, name = %launch.name, pid = view.pid, us = took_ns / 1000, "launched");
        Ok(view)
    }

    fn tell_failure(&self, launch: &Launch, failure: &Failure) {
        let detail = json!({
            "name": launch.name.as_str(), "incarnation": launch.incarnation, "code": failure.code.as_str(),
            "layer": failure.layer.map(LayerName::as_str), "errno": failure.errno, "message": failure.message,
        });
        let (tenant, id) = (launch.tenant.as_str(), launch.id.as_str());
        let verdict = if failure.code == ErrorCode::PolicyDenied { "denied" } else { "error" };
        self.audit.append(vec![Entry::new("agent.launched", verdict, &detail).of(tenant, id)]);
        tracing::warn!(agent = id, tenant, code = failure.code.as_str(), %failure, "launch failed");
    }

    /// No agent sees the state folder: it holds other tenants' output, keys and secrets.
    fn refuse_own_state(&self, launch: &Launch) -> Result<(), Failure> {
        let workspace = match &launch.workspace.kind {
            WorkspaceKind::Directory(path) => Some(("workspace", path)),
            WorkspaceKind::Managed | WorkspaceKind::Memory => None,
        };
        let rootfs = match &launch.rootfs {
            Rootfs::Directory(path) => Some(("rootfs", path)),
            Rootfs::HostSystem => None,
        };
        let binds = launch.binds.iter().map(|b| ("binds", &b.path));
        if launch.is_tool() {
            // A tool sees its own files, what runs them, and nothing else of the host.
            if let Some((field, path)) = workspace
                && !self.folder.is_tool(path)
            {
                let why = format!("{} is not the folder of an installed tool", path.display());
                return Err(Failure::field(field, why));
            }
            let is_runner = |bind: &&Bind| bind.path == self.wasm_runner && !bind.writable;
            let others = launch.binds.iter().filter(|bind| !is_runner(bind)).map(|b| ("binds", &b.path));
            let nodes = launch.devices.iter().map(|d| ("devices", &d.path));
            if let Some((field, _)) = rootfs.into_iter().chain(others).chain(nodes).next() {
                return Err(Failure::field(field, "a tool sees its own files and the system alone"));
            }
            return Ok(());
        }
        for (field, path) in workspace.into_iter().chain(rootfs).chain(binds) {
            if self.folder.touches(path) {
                let why = format!("{} would show the agent AION's own state", path.display());
                return Err(Failure::field(field, why));
            }
        }
        Ok(())
    }

    fn open_journal(&self, launch: &Launch) -> Result<OwnedFd, Failure> {
        let dir = self.folder.agent(&launch.id);
        crate::state::make(&dir, 0o750)?;
        crate::state::give(&dir, self.group)?;
        let path = self.folder.journal(&launch.id);
        let journal = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)
            .map_err(|e| Failure::state("open", &path, &e))?;
        nix::unistd::fchown(&journal, Some(nix::unistd::Uid::from_raw(0)), Some(self.group))
            .map_err(|e| Failure::state("give away", &path, &e.into()))?;
        Ok(journal.into())
    }

    pub(crate) fn forget(&self, agent: &Arc<Agent>) {
        let _birth = crate::lock::lock(&self.births);
        crate::lock::write(&self.agents).remove(&agent.id);
        if let Err(failure) = self.table.remove(&agent.id) {
            tracing::error!(agent = %agent.id, code = failure.code.as_str(), %failure, "the agent's record cannot be removed");
        }
    }
}

/// The launcher's limits as control groups have them. init is one process more.
fn limits(launch: &Launch, before: &Record) -> Limits {
    let l = &launch.limits;
    let devices = if l.io_read_bps.is_some() || l.io_write_bps.is_some() {
        let path = match &launch.workspace.kind {
            WorkspaceKind::Directory(path) => path.as_path(),
            WorkspaceKind::Managed | WorkspaceKind::Memory => "/".as_ref(),
        };
        BlockDevice::of(path).into_iter().collect()
    } else {
        Vec::new()
    };
    Limits {
        cpu_millis: restrain::quota(l.cpu_millis, &before.agent.restraints),
        cpu_weight: l.cpu_weight,
        memory_bytes: l.mem_bytes,
        pids: l.pids.map(|p| p + 1),
        io_weight: l.io_weight,
        io_read_bps: l.io_read_bps,
        io_write_bps: l.io_write_bps,
        devices,
    }
}

/// A launch under way, and what must go when it fails.
struct Attempt<'a> {
    launcher: &'a Arc<Launcher>,
    launch: &'a Arc<Launch>,
    ready: Option<ReadySlot>,
    held: Option<Held>,
    cgroup_id: u64,
    probed: bool,
    volume_is_new: bool,
    network: Option<u32>,
}

type Success = (Run, Vec<v1::Layer>, Option<OwnedFd>);

impl<'a> Attempt<'a> {
    fn new(launcher: &'a Arc<Launcher>, launch: &'a Arc<Launch>, ready: ReadySlot) -> Self {
        let cgroup_id = ready.held.group.id();
        Self {
            launcher,
            launch,
            ready: Some(ready),
            held: None,
            cgroup_id,
            probed: false,
            volume_is_new: false,
            network: None,
        }
    }

    fn go(
        &mut self,
        agent: &Arc<Agent>,
        seccomp: &aion_sandbox::Seccomp,
        (journal, task): (OwnedFd, TaskFds),
        missing: &[Missing],
        before: &Record,
    ) -> Result<Success, Failure> {
        let (launcher, launch) = (self.launcher, self.launch);
        let gone = || Failure::internal("the slot is gone");
        let ReadySlot { slot, held } = self.ready.take().ok_or_else(gone)?;
        let held = self.held.insert(held);
        let mut record = self::record(launcher, launch, held, &slot, before);
        agent.lock().record = record.clone();
        launcher.table.write_record(&launch.id, &record)?;

        self.volume_is_new = before.volume.is_empty();
        let prepared = workspace::prepare(launcher, launch, &slot)?;
        record.volume.clone_from(&prepared.volume);
        record.volume_bytes = prepared.volume_bytes;
        let (binds, directories) = bind_mounts(launch, &slot)?;
        record.devices = devices::find(launch)?;
        let own_devices = match record.devices.as_slice() {
            [] => None,
            given => Some(slot.device_mount(&devices::nodes(given))?),
        };
        let rootfs = match &launch.rootfs {
            Rootfs::HostSystem => None,
            Rootfs::Directory(path) => {
                let dir = mounts::open_path(path, LayerName::Rootfs)?;
                Some(mounts::rootfs(dir.as_fd())?)
            }
        };
        let plan = plan::of(launch, seccomp, &directories, launcher.probes.get().is_some());
        plan.check()?;
        let mut layers = vec![cgroup_layer(launcher, launch, missing)];
        layers.extend(prepared.layers);
        let owner = Owner {
            id: launch.id.as_str().to_owned(),
            tenant: launch.tenant.as_str().to_owned(),
            profile: launch.seccomp_profile.clone(),
            files: withhold::texts(launch),
            devices: record.devices.clone(),
        };
        launcher.own(self.cgroup_id, owner);
        let isolated = restrain::is_isolated(&record.agent.restraints);
        layers.extend(self.enter_probes(isolated, &record.devices)?);
        let told = Told { network: network_limits::told(launcher, self.cgroup_id), ..Told::default() };

        let (mut network, mut resolver, mut resolv_conf) = (None, None, None);
        if launch.network == NetworkMode::Egress {
            let attached = egress::attach(launcher, &slot)?;
            (self.network, record.network) = (Some(attached.number), Some(attached.number));
            network = Some(egress::layer(&attached, &launch.egress));
            resolver = Some(egress::resolver(&slot)?);
            resolv_conf = Some(egress::resolv_conf(&launcher.folder)?);
        }

        let TaskFds { door, stdin, stdout, job } = task;
        let fds = LaunchFds {
            rootfs,
            binds,
            devices: own_devices,
            door,
            stdin,
            stdout,
            job,
            resolv_conf,
            ..LaunchFds::new(journal, prepared.mount)
        };
        // Before its first event, which whoever looks for what this launch did compares with it.
        let started_ns = clock::wall_ns();
        let Launched { init, agent_pid, agent_pidfd, layers: inside, tty, .. } = slot.launch(&plan, fds)?;
        if self.probed
            && let Some(probes) = launcher.probes.get()
        {
            probes.arm(self.cgroup_id)?;
        }
        layers.extend(inside.into_iter().filter(|l| network.is_none() || l.name != LayerName::Network));
        layers.extend(network);
        layers.sort_by_key(|l| l.name);

        let now = clock::monotonic_ns();
        record.agent.pid = agent_pid;
        record.agent.started_ns = started_ns;
        record.agent_start = crate::process::start_time(agent_pid).unwrap_or(0);
        record.deadline_ns =
            launch.limits.wall_ms.map_or(0, |ms| now.saturating_add(ms.saturating_mul(1_000_000)));
        let cursor = record.journal_cursor;
        agent.lock().record = record;

        let answered_tty = tty.as_ref().and_then(|fd| fd.try_clone().ok());
        let held = self.held.take().ok_or_else(gone)?;
        let run = Run {
            held,
            init_pid: init.pid(),
            init: Mutex::new(Some(init)),
            agent_pidfd: Some(agent_pidfd),
            tty: Mutex::new(tty),
            strict: launch.audit_strict,
            adopted: false,
            probed: self.probed,
            network: self.network,
            resolver,
            reach: Mutex::default(),
            journal: Mutex::new(Journal { cursor, ..Journal::default() }),
            told: Mutex::new(told),
        };
        Ok((run, layers.iter().map(to_proto).collect(), answered_tty))
    }

    fn enter_probes(&mut self, isolated: bool, given: &[GivenDevice]) -> Result<Vec<LayerReport>, Failure> {
        let (launcher, launch) = (self.launcher, self.launch);
        let layer = |name, state, detail: String| LayerReport { name, state, detail };
        let lsm = match launcher.probes.lsm() {
            Ok(()) if withhold::is_possible(launcher, true) => {
                let detail = "BPF LSM hooks; fs: and exec: rules can be withheld while it runs";
                layer(LayerName::Lsm, LayerState::Active, detail.to_owned())
            }
            Ok(()) => layer(LayerName::Lsm, LayerState::Active, "BPF LSM hooks".to_owned()),
            Err(why) => layer(LayerName::Lsm, LayerState::Unavailable, why),
        };
        let probes = match &launcher.probes {
            ProbesState::Loaded { probes, .. } => probes,
            // Without them it would reach everything.
            ProbesState::Missing { reason } if launch.network == NetworkMode::Egress => {
                let message = format!("network mode egress needs the probes: {reason}");
                return Err(Failure::layer(LayerName::Network, 0, message));
            }
            ProbesState::Missing { reason } if launch.network_limits.is_some() => {
                let message = format!("limits of the network need the probes: {reason}");
                return Err(Failure::layer(LayerName::Network, 0, message));
            }
            ProbesState::Missing { reason } if !given.is_empty() => {
                let message = format!("devices need the probes: {reason}");
                return Err(Failure::layer(LayerName::Devices, 0, message));
            }
            ProbesState::Missing { reason } if launch.may_degrade(LayerName::Probes) => {
                let probes = layer(LayerName::Probes, LayerState::Degraded, reason.clone());
                return Ok(vec![probes, devices::without_probes(reason), lsm]);
            }
            ProbesState::Missing { reason } => {
                return Err(Failure::layer(LayerName::Probes, 0, format!("no probes: {reason}")));
            }
        };
        let net = egress::policy(launch.network);
        probes.add_agent(
            self.cgroup_id,
            AgentConfig { mode: launch.audit, strict: launch.audit_strict, net },
        )?;
        self.probed = true;
        grams::launching(launcher, probes, &launch.id, self.cgroup_id);
        if isolated {
            probes.isolate(self.cgroup_id, true)?;
        }
        probes.set_devices(self.cgroup_id, &devices::uses(given, &[]))?;
        if let Some(limits) = &launch.network_limits {
            probes.limit(self.cgroup_id, limits.account.as_str(), &limits.all())?;
        }
        if launch.network == NetworkMode::Egress {
            probes.set_reach(self.cgroup_id, &launch.egress.entries())?;
        }
        let strict = if launch.audit_strict { ", no record lost" } else { "" };
        let detail = format!("audit {}{strict}", format!("{:?}", launch.audit).to_lowercase());
        Ok(vec![layer(LayerName::Probes, LayerState::Active, detail), devices::layer(given), lsm])
    }

    /// Removes whatever was made, and puts the record back to what it was before.
    fn undo(self, before: &Record) {
        let launcher = self.launcher;
        if let Some(ready) = self.ready {
            launcher.slots.discard(ready);
        }
        if let Some(held) = self.held {
            launcher.slots.release(&held);
        }
        if let Some(number) = self.network
            && let Err(e) = launcher.network.detach(number)
        {
            let (agent, tenant) = (self.launch.id.as_str(), self.launch.tenant.as_str());
            tracing::error!(
                agent,
                tenant,
                error = crate::failure::chain(&e),
                "the network of a failed launch is left"
            );
        }
        let drained = launcher.drain.now();
        if self.probed
            && let Some(probes) = launcher.probes.get()
        {
            let _ = probes.remove_agent(self.cgroup_id);
        }
        if drained {
            launcher.disown(self.cgroup_id);
        }
        let id = &self.launch.id;
        if self.volume_is_new
            && let Some(volumes) = &launcher.volumes
        {
            let _ = volumes.remove(id.as_str());
        }
        let first = before.phase() == Phase::Unknown;
        if let Ok(agent) = launcher.agent(id) {
            agent.lock().record = before.clone();
        }
        if !first && let Err(failure) = launcher.table.write_record(id, before) {
            tracing::error!(agent = %id, tenant = self.launch.tenant.as_str(), code = failure.code.as_str(), %failure, "the agent's record cannot be written");
        }
    }
}

fn record(
    launcher: &Launcher,
    launch: &Launch,
    held: &Held,
    slot: &aion_sandbox::Slot,
    before: &Record,
) -> Record {
    let path = launcher.folder.journal(&launch.id);
    let mut record = Record {
        agent: v1::AgentState {
            id: launch.id.as_str().to_owned(),
            tenant: launch.tenant.as_str().to_owned(),
            name: launch.name.as_str().to_owned(),
            incarnation: launch.incarnation,
            init_pid: slot.init_pid(),
            cgroup: held.group.path().display().to_string(),
            cgroup_id: held.group.id(),
            journal: std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec(),
            network: match launch.network {
                NetworkMode::None => v1::Network::None,
                NetworkMode::Host => v1::Network::Host,
                NetworkMode::Egress => v1::Network::Egress,
            }
            .into(),
            restraints: restrain::that_stay(&before.agent.restraints),
            holds_files: withhold::is_possible(launcher, true),
            ..v1::AgentState::default()
        },
        slot: held.name.clone(),
        uid_base: held.uid_base,
        init_start: slot.start_time(),
        boot_id: launcher.boot_id.clone(),
        journal_cursor: before.journal_cursor,
        volume: before.volume.clone(),
        volume_bytes: before.volume_bytes,
        ..Record::default()
    };
    record.set_phase(Phase::Launching);
    record
}

fn bind_mounts(launch: &Launch, slot: &aion_sandbox::Slot) -> Result<(Vec<OwnedFd>, Vec<bool>), Failure> {
    let (mut mounts, mut directories) = (Vec::new(), Vec::new());
    for bind in &launch.binds {
        let fd = mounts::open_path(&bind.path, LayerName::Rootfs)?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| {
            Failure::layer(LayerName::Rootfs, e.raw_os_error(), format!("{}: {e}", bind.path.display()))
        })?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, rustix::fs::FileType::Directory | rustix::fs::FileType::RegularFile) {
            let why = format!("{} is neither a folder nor a file", bind.path.display());
            return Err(Failure::field("binds", why));
        }
        directories.push(kind == rustix::fs::FileType::Directory);
        mounts.push(slot.bind_mount(&fd, bind.writable)?);
    }
    Ok((mounts, directories))
}

fn cgroup_layer(launcher: &Launcher, launch: &Launch, missing: &[Missing]) -> LayerReport {
    let hierarchy = launcher.slots.parent().hierarchy();
    let l = &launch.limits;
    let mut parts = vec![format!("{}: {}", hierarchy.mode().as_str(), hierarchy.describe())];
    let mut limit = |name: &str, value: Option<u64>| parts.extend(value.map(|v| format!("{name} {v}")));
    limit("cpu_millis", l.cpu_millis.map(u64::from));
    limit("mem_bytes", l.mem_bytes);
    limit("pids", l.pids.map(u64::from));
    limit("io_read_bps", l.io_read_bps);
    limit("io_write_bps", l.io_write_bps);
    if !launch.lowered.is_empty() {
        parts.push(format!("{} lowered to the launcher's ceiling", launch.lowered.join(", ")));
    }
    parts.extend(missing.iter().map(|m| format!("without {}: {}", m.limit, m.why)));
    let state = if missing.is_empty() { LayerState::Active } else { LayerState::Degraded };
    LayerReport { name: LayerName::Cgroup, state, detail: parts.join("; ") }
}

fn to_proto(layer: &LayerReport) -> v1::Layer {
    v1::Layer {
        name: layer.name.as_str().to_owned(),
        state: layer.state.as_str().to_owned(),
        detail: layer.detail.clone(),
    }
}
