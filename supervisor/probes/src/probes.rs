//! Control: agents in, agents out, counters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aion_egress::Entry;
use aion_probe_types::layout::{Agent, flag};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use sha2::{Digest, Sha256};

use crate::bpffs::{self, Pins};
use crate::config::AgentConfig;
use crate::counters::{AgentCounters, FinalCounters, NetBytes, SyscallCounter};
use crate::devices::{DeviceTable, DeviceUse};
use crate::egress::EgressTable;
use crate::error::Error;
use crate::grams::{GramCounts, GramModel, GramTables};
use crate::heap;
use crate::limits::{LimitTable, NetLimits, NetUse};
use crate::load;
use crate::maps::{self, Maps};
use crate::options::Options;
use crate::programs::{ALL, Attach, FILE_OPEN, holds_files};
use crate::report::{Adoption, ProgramState, Report};
use crate::ring::EventRing;
use crate::slots::Slots;
use crate::syscall_probes::SyscallProbes;
use crate::tables::Tables;
use crate::throttle::Throttle;
use crate::withheld::{WithheldFile, WithheldTable};

/// The probes: a handle that threads can share behind an `Arc`; every call is one or a few system calls.
#[derive(Debug)]
pub struct Probes {
    pins: Pins,
    lsm: bool,
    /// Every hook is there that withholding files needs.
    files: bool,
    /// No LSM hook records opens for writing.
    no_lsm: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    maps: Maps,
    slots: Slots,
    tables: Tables,
    egress: EgressTable,
    limits: LimitTable,
    withheld: WithheldTable,
    devices: DeviceTable,
    grams: GramTables,
    syscalls: SyscallProbes,
}

/// Flags that calls of their own set, beside the configuration of an agent.
const BESIDE: u32 =
    flag::ARMED | flag::ISOLATED | flag::LIMITED | flag::DESTINATIONS | flag::FILES | flag::GRAMS;

/// What [`Probes::open_or_load`] gives.
#[derive(Debug)]
pub struct Opened {
    /// Control and counters.
    pub probes: Probes,
    /// The reader, for the drain thread.
    pub ring: EventRing,
    /// What became of each program.
    pub report: Report,
}

impl Probes {
    /// Adopts what is pinned under `options.pin_dir`, or loads, attaches and pins.
    ///
    /// # Errors
    /// When a program that every agent needs (lifecycle, cgroup) cannot be attached, or a pin cannot be
    /// used. BPF LSM and OOM programs that the kernel refuses are reported, not an error.
    pub fn open_or_load(options: &Options) -> Result<Opened, Error> {
        if !options.ring_bytes.is_power_of_two() || options.ring_bytes < 4096 {
            return Err(Error::Option { option: "ring_bytes", value: options.ring_bytes.to_string() });
        }
        // Kernels before 5.11 account maps against it; without CAP_SYS_RESOURCE it cannot be raised, and later
        // kernels do not need it.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        let pins = Pins::new(&options.pin_dir);
        pins.make()?;
        let (adoption, generation) = settle(options, &pins)?;
        open(pins, adoption, generation)
    }

    /// Enters an agent. From here on its cgroup is recorded and its network policy holds. Adding the same
    /// agent with the same configuration again changes nothing (so a launcher that restarts may just add).
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::AgentExists`], or a map that cannot be written.
    pub fn add_agent(&self, cgroup_id: u64, config: AgentConfig) -> Result<(), Error> {
        let flags = config.flags() | self.no_lsm;
        let inner = &mut *self.lock();
        if let Some(agent) = inner.slots.get(cgroup_id) {
            // What the launcher did not choose does not make another configuration.
            if AgentConfig::from_flags(agent.flags) == config {
                return Ok(());
            }
            return Err(Error::AgentExists { cgroup_id });
        }
        let slot = inner.slots.vacant().ok_or(Error::Full { max: aion_probe_types::layout::MAX_AGENTS })?;
        inner.maps.clear_stats(slot)?;
        inner.tables.prepare(&mut inner.maps, slot, 0, flags)?;
        inner.syscalls.ensure(inner.slots.flags() | flags)?;
        inner.write(cgroup_id, Agent { slot, flags })
    }

    /// The agent's set-up is over: from now on LSM hooks refuse what no agent may do, whatever the state of
    /// the task. (A task with no_new_privs is refused even before.)
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn arm(&self, cgroup_id: u64) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        inner.write(cgroup_id, Agent { flags: agent.flags | flag::ARMED, ..agent })
    }

    /// Changes mode and network policy of a running agent; counters go on.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn update_agent(&self, cgroup_id: u64, config: AgentConfig) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        // Without a system-call probe there is nothing to look at.
        let beside = if config.mode.traces_syscalls() { BESIDE } else { BESIDE & !flag::GRAMS };
        let flags = config.flags() | self.no_lsm | agent.flags & beside;
        inner.tables.prepare(&mut inner.maps, agent.slot, agent.flags, flags)?;
        inner.syscalls.ensure(inner.slots.flags() | flags)?;
        inner.write(cgroup_id, Agent { flags, ..agent })?;
        inner.tables.release(&mut inner.maps, agent.slot, agent.flags, flags)?;
        inner.syscalls.settle(inner.slots.flags())
    }

    /// Takes an agent's network away, or gives it back: every connect, bind and send is refused and its packets are dropped,
    /// those of open connections, too. Held by the kernel until it is given back.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn isolate(&self, cgroup_id: u64, isolated: bool) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        let bit = if isolated { flag::ISOLATED } else { 0 };
        inner.write(cgroup_id, Agent { flags: agent.flags & !flag::ISOLATED | bit, ..agent })
    }

    /// Holds an agent to limits of what it may use of the network: first those of all that it does, then those of its destinations, which
    /// entries name by [`Entry::counted`]. Before its processes begin, and again by a launcher that restarts: what `account` used within
    /// the hour counts on, also what it used under another cgroup.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], or a map that cannot be written.
    pub fn limit(&self, cgroup_id: u64, account: &str, limits: &[NetLimits]) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        inner.limits.set(cgroup_id, account, limits, now_ns())?;
        let limited = if limits.is_empty() { 0 } else { flag::LIMITED };
        let destinations = if limits.len() > 1 { flag::DESTINATIONS } else { 0 };
        inner.write(cgroup_id, Agent { flags: agent.flags | limited | destinations, ..agent })
    }

    /// What was used of limits, in the order of [`Probes::limit`]; nothing of an agent without.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn net_use(&self, cgroup_id: u64) -> Result<Vec<NetUse>, Error> {
        self.lock().limits.used(cgroup_id, now_ns())
    }

    /// Takes an agent out and gives its last counters. Call it when its cgroup is empty, after a last drain.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn remove_agent(&self, cgroup_id: u64) -> Result<FinalCounters, Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        inner
            .maps
            .agents
            .remove(&cgroup_id)
            .map_err(|source| maps::error("AGENTS", "delete from", source))?;
        let (counters, syscalls) = (inner.maps.counters(agent.slot)?, inner.maps.syscalls(agent)?);
        // No agent stays in the maps for want of it.
        let grams = inner.model(agent).unwrap_or_else(|e| {
            tracing::error!(cgroup_id, error = %e, "what the agent's system calls are known for cannot be read");
            None
        });
        inner.egress.clear(cgroup_id)?;
        inner.limits.clear(cgroup_id)?;
        inner.withheld.clear(cgroup_id)?;
        inner.devices.clear(cgroup_id)?;
        inner.tables.release(&mut inner.maps, agent.slot, agent.flags, 0)?;
        inner.slots.remove(cgroup_id);
        inner.syscalls.settle(inner.slots.flags())?;
        Ok(FinalCounters { counters, syscalls, grams })
    }

    /// What an agent with policy `Egress` reaches for good, beside what names add. Before its processes begin.
    ///
    /// # Errors
    /// [`Error::EgressFull`], or a map that cannot be written.
    pub fn set_reach(&self, cgroup_id: u64, entries: &[Entry]) -> Result<(), Error> {
        self.lock().egress.set(cgroup_id, entries, None)
    }

    /// Makes `entries` all that an agent reaches for good, and `named` all that stays of what names added. Connections to the rest are
    /// cut with their next packet. At no time more is reached than before and than afterwards.
    ///
    /// # Errors
    /// As [`Probes::set_reach`].
    pub fn renew_reach(
        &self,
        cgroup_id: u64,
        entries: &[Entry],
        named: &BTreeSet<Entry>,
    ) -> Result<(), Error> {
        self.lock().egress.set(cgroup_id, entries, Some(named))
    }

    /// Adds what an agent may begin connections to for a time: what a name resolved to. Connections that were begun in time go
    /// on while they are in use.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::EgressFull`].
    pub fn reach_for(&self, cgroup_id: u64, entries: &[Entry], time: Duration) -> Result<(), Error> {
        let inner = &mut *self.lock();
        inner.find(cgroup_id)?;
        let now = now_ns();
        let until = now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2));
        inner.egress.add(cgroup_id, entries, now, until)
    }

    /// Makes `files` all that is withheld from a running agent: the next open, execution, name or removal of it is refused with EACCES,
    /// whatever the sandbox gave. What goes is taken before what comes is given. Descriptors that are open go on.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::NoFileHooks`], [`Error::WithheldFull`], or a map that cannot be written.
    pub fn withhold_files(&self, cgroup_id: u64, files: &[WithheldFile]) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        if !files.is_empty() {
            if !self.files {
                return Err(Error::NoFileHooks);
            }
            inner.add_files(cgroup_id, agent, files)?;
            return inner.withheld.keep(cgroup_id, files);
        }
        inner.withheld.clear(cgroup_id)?;
        inner.write(cgroup_id, Agent { flags: agent.flags & !flag::FILES, ..agent })
    }

    /// Withholds `files` beside what is withheld from a running agent already: nothing is given back.
    ///
    /// # Errors
    /// As [`Probes::withhold_files`].
    pub fn withhold_more_files(&self, cgroup_id: u64, files: &[WithheldFile]) -> Result<(), Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        if !self.files {
            return Err(Error::NoFileHooks);
        }
        inner.add_files(cgroup_id, agent, files)
    }

    /// Makes `devices` all that an agent may open beside what everybody has: others are refused with EPERM. What goes is taken before
    /// what comes is given. Descriptors that are open go on.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], [`Error::DevicesFull`], or a map that cannot be written.
    pub fn set_devices(&self, cgroup_id: u64, devices: &[DeviceUse]) -> Result<(), Error> {
        let inner = &mut *self.lock();
        inner.find(cgroup_id)?;
        inner.devices.set(cgroup_id, devices)
    }

    /// The agents in the maps: cgroup id and configuration. A launcher that restarts compares them with its
    /// table.
    ///
    /// # Errors
    /// None today; the maps were read when the probes were opened.
    pub fn agents(&self) -> Result<Vec<(u64, AgentConfig)>, Error> {
        Ok(self.lock().slots.all().map(|(id, agent)| (id, AgentConfig::from_flags(agent.flags))).collect())
    }

    /// Events, drops, denials, traffic.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn counters(&self, cgroup_id: u64) -> Result<AgentCounters, Error> {
        let inner = self.lock();
        inner.maps.counters(inner.find(cgroup_id)?.slot)
    }

    /// Records that were lost.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn dropped(&self, cgroup_id: u64) -> Result<u64, Error> {
        Ok(self.counters(cgroup_id)?.dropped)
    }

    /// Records that were written.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn events(&self, cgroup_id: u64) -> Result<u64, Error> {
        Ok(self.counters(cgroup_id)?.events)
    }

    /// Traffic.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn net_bytes(&self, cgroup_id: u64) -> Result<NetBytes, Error> {
        Ok(self.counters(cgroup_id)?.net)
    }

    /// System calls that the agent made at least once; empty in mode `Events`.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn syscalls(&self, cgroup_id: u64) -> Result<Vec<SyscallCounter>, Error> {
        let inner = self.lock();
        inner.maps.syscalls(inner.find(cgroup_id)?)
    }

    /// Looks at the sequences of an agent's system calls from now on; `known` is what it is known for already. False, and nothing
    /// changes, when that is done already, or its mode counts no system calls.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], or a map that cannot be made or written.
    pub fn watch_grams(&self, cgroup_id: u64, known: &GramModel) -> Result<bool, Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        if agent.flags & flag::SYSCALLS == 0 || agent.flags & flag::GRAMS != 0 {
            return Ok(false);
        }
        inner.grams.begin(agent.slot, known)?;
        inner.write(cgroup_id, Agent { flags: agent.flags | flag::GRAMS, ..agent })?;
        Ok(true)
    }

    /// Whether the sequences of an agent's system calls are looked at.
    #[must_use]
    pub fn watches_grams(&self, cgroup_id: u64) -> bool {
        self.lock().slots.get(cgroup_id).is_some_and(|agent| agent.flags & flag::GRAMS != 0)
    }

    /// Whether an agent's mode counts system calls.
    #[must_use]
    pub fn counts_syscalls(&self, cgroup_id: u64) -> bool {
        self.lock().slots.get(cgroup_id).is_some_and(|agent| agent.flags & flag::SYSCALLS != 0)
    }

    /// What was found of the sequences of an agent's system calls; none while they are not looked at.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], or a map that cannot be read.
    pub fn grams(&self, cgroup_id: u64) -> Result<Option<GramCounts>, Error> {
        let inner = self.lock();
        let agent = inner.find(cgroup_id)?;
        if agent.flags & flag::GRAMS == 0 {
            return Ok(None);
        }
        inner.grams.counts(agent.slot).map(Some)
    }

    /// Lets the sequences of an agent's system calls be, and gives what it is known for; none when they were not looked at.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], or a map that cannot be read or written.
    pub fn rest_grams(&self, cgroup_id: u64) -> Result<Option<GramModel>, Error> {
        let inner = &mut *self.lock();
        let agent = inner.find(cgroup_id)?;
        if agent.flags & flag::GRAMS != 0 {
            inner.write(cgroup_id, Agent { flags: agent.flags & !flag::GRAMS, ..agent })?;
        }
        inner.model(agent)
    }

    /// What the sequences of an agent's system calls are known for so far; none while they are not looked at. They go on to be.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`], or a map that cannot be read.
    pub fn gram_model(&self, cgroup_id: u64) -> Result<Option<GramModel>, Error> {
        let inner = self.lock();
        inner.model(inner.find(cgroup_id)?)
    }

    /// Runs that the kernel left out because the program was already running on that processor: losses that
    /// belong to no agent. 0 on every kernel that was tested; worth an alarm otherwise.
    ///
    /// # Errors
    /// A pin that cannot be opened.
    pub fn missed(&self) -> Result<u64, Error> {
        crate::missed::missed(&self.pins, self.lock().maps.state()?.generation)
    }

    /// Whether BPF LSM programs are attached.
    #[must_use]
    pub const fn lsm_available(&self) -> bool {
        self.lsm
    }

    /// Whether files and programs can be withheld from running agents.
    #[must_use]
    pub const fn holds_files(&self) -> bool {
        self.files
    }

    /// Whether a system-call probe is attached just now.
    #[must_use]
    pub fn syscall_probes_attached(&self) -> bool {
        self.lock().syscalls.attached()
    }

    /// Detaches what an earlier, incompatible version left attached; see [`crate::Adoption::Replaced`].
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn retire_previous(&self) -> Result<(), Error> {
        bpffs::remove_tree(&self.pins.previous())
    }

    /// Removes every pin below `pin_dir` and the folder itself, and so detaches every program once the last
    /// process that holds them lets go. A folder that is not there is no error.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn unpin_all(pin_dir: &Path) -> Result<(), Error> {
        bpffs::remove_tree(&Pins::new(pin_dir).previous())?;
        bpffs::remove_tree(pin_dir)
    }

    /// The programs' log lines, when the object was built with them.
    ///
    /// # Errors
    /// The object has no log.
    #[cfg(feature = "log")]
    pub fn debug_log(&self) -> Result<crate::DebugLog, Error> {
        crate::DebugLog::open(&self.pins, self.lock().maps.state()?.generation)
    }

    /// Where the pins are.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        self.pins.root()
    }

    /// A poisoned lock means a panic between two map writes; the maps themselves are whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn find(&self, cgroup_id: u64) -> Result<Agent, Error> {
        self.slots.get(cgroup_id).ok_or(Error::UnknownAgent { cgroup_id })
    }

    fn write(&mut self, cgroup_id: u64, agent: Agent) -> Result<(), Error> {
        self.maps
            .agents
            .insert(cgroup_id, agent.to_words(), 0)
            .map_err(|source| maps::error("AGENTS", "write", source))?;
        self.slots.insert(cgroup_id, agent);
        Ok(())
    }

    /// Of an agent that is, or was until now, looked at.
    fn model(&self, agent: Agent) -> Result<Option<GramModel>, Error> {
        if agent.flags & flag::GRAMS == 0 {
            return Ok(None);
        }
        self.grams.model(agent.slot).map(Some)
    }

    fn add_files(&mut self, cgroup_id: u64, agent: Agent, files: &[WithheldFile]) -> Result<(), Error> {
        // Before the entries: what of them is written holds, also when the rest fails.
        self.write(cgroup_id, Agent { flags: agent.flags | flag::FILES, ..agent })?;
        self.withheld.add(cgroup_id, files)
    }
}

/// Brings what is pinned up to date: finds it whole and ours, replaces the programs, or loads anew.
fn settle(options: &Options, pins: &Pins) -> Result<(Adoption, u32), Error> {
    let object = load::read(&options.object)?;
    let hash: [u8; 32] = Sha256::digest(&object).into();
    let ours = Maps::open(&pins.maps()).and_then(|maps| maps.state());
    let (adoption, generation, ring_bytes) = match ours {
        Ok(state) if state.abi == aion_probe_types::layout::ABI => {
            let complete = load::complete(pins, state.generation);
            pins.prune(state.generation)?;
            if state.object == hash && complete {
                return Ok((Adoption::Adopted, state.generation));
            }
            let size = u32::try_from(state.ring_bytes).unwrap_or(options.ring_bytes);
            (Adoption::Upgraded, state.generation.wrapping_add(1), size)
        }
        // A load that was cut short: no agent was ever entered.
        Ok(state) if state.abi == 0 => {
            reset(pins)?;
            (Adoption::Fresh, 1, options.ring_bytes)
        }
        Ok(_) => {
            pins.set_aside()?;
            (Adoption::Replaced, 1, options.ring_bytes)
        }
        Err(_) if bpffs::entries(&pins.links())?.is_empty() => {
            reset(pins)?;
            (Adoption::Fresh, 1, options.ring_bytes)
        }
        // Something is attached and its maps cannot be read as ours.
        Err(_) => {
            pins.set_aside()?;
            (Adoption::Replaced, 1, options.ring_bytes)
        }
    };
    let reports = load::load(&Options { ring_bytes, ..options.clone() }, &object, pins, generation)?;
    for report in &reports {
        tracing::debug!(program = report.name, state = ?report.state, "probe");
    }
    heap::trim();
    if adoption == Adoption::Upgraded {
        // Counting goes on in the moment of the switch.
        let flags = agents(&Maps::open(&pins.maps())?)?.values().fold(0, |all, agent| all | agent.flags);
        SyscallProbes::new(pins.clone(), generation).ensure(flags)?;
    }
    load::commit(pins, load::state(hash, generation, ring_bytes))?;
    pins.prune(generation)?;
    Ok((adoption, generation))
}

fn reset(pins: &Pins) -> Result<(), Error> {
    for dir in [pins.links(), pins.programs(), pins.maps()] {
        bpffs::remove_tree(&dir)?;
    }
    pins.make()
}

/// The clock that the programs read.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// The agents that the map holds.
fn agents(maps: &Maps) -> Result<BTreeMap<u64, Agent>, Error> {
    maps.agents
        .iter()
        .map(|entry| entry.map(|(id, words)| (id, Agent::from_words(words))))
        .collect::<Result<_, _>>()
        .map_err(|source| maps::error("AGENTS", "read", source))
}

/// Opens what is pinned.
fn open(pins: Pins, adoption: Adoption, generation: u32) -> Result<Opened, Error> {
    let dir = pins.maps();
    let maps = Maps::open(&dir)?;
    let size = usize::try_from(maps.state()?.ring_bytes).unwrap_or(0);
    let throttle = Throttle::new(maps::open(&dir, "THROTTLED")?);
    let ring = EventRing::new(maps::data(&dir, "EVENTS")?, size, throttle)?;
    let slots = Slots::new(agents(&maps)?);
    let programs = load::pinned(&pins, generation);
    let attached = |name: &str| programs.iter().any(|p| p.name == name && p.state == ProgramState::Attached);
    let lsm = ALL.iter().any(|spec| matches!(spec.attach, Attach::Lsm(_)) && attached(spec.name));
    let no_lsm = if attached(FILE_OPEN) { 0 } else { flag::NO_LSM };
    let files = ALL.iter().filter(|spec| holds_files(spec.name)).all(|spec| attached(spec.name));
    let mut syscalls = SyscallProbes::new(pins.clone(), generation);
    syscalls.ensure(slots.flags())?;
    syscalls.settle(slots.flags())?;
    let mut egress = EgressTable::open(&dir)?;
    for cgroup in egress.owners() {
        // An agent that was taken out between two writes.
        if slots.get(cgroup).is_none() {
            egress.clear(cgroup)?;
        }
    }
    let mut limits = LimitTable::open(&dir)?;
    for cgroup in limits.owners() {
        if slots.get(cgroup).is_none() {
            limits.clear(cgroup)?;
        }
    }
    let mut withheld = WithheldTable::open(&dir)?;
    for cgroup in withheld.owners() {
        if slots.get(cgroup).is_none() {
            withheld.clear(cgroup)?;
        }
    }
    let mut devices = DeviceTable::open(&dir)?;
    for cgroup in devices.owners() {
        if slots.get(cgroup).is_none() {
            devices.clear(cgroup)?;
        }
    }
    let grams = GramTables::open(&dir)?;
    let inner =
        Inner { maps, slots, tables: Tables::default(), egress, limits, withheld, devices, grams, syscalls };
    let report = Report { adoption, programs };
    Ok(Opened { probes: Probes { pins, lsm, files, no_lsm, inner: Mutex::new(inner) }, ring, report })
}
