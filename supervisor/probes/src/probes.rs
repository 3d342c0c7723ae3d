//! Control: agents in, agents out, counters.

use std::path::Path;

use crate::config::AgentConfig;
use crate::counters::{AgentCounters, FinalCounters, NetBytes, SyscallCounter};
use crate::error::Error;
use crate::options::Options;
use crate::report::Report;
use crate::ring::EventRing;

/// The probes: a handle that threads can share behind an `Arc`; every call is one or a few system calls.
#[derive(Debug)]
pub struct Probes {
    pin_dir: std::path::PathBuf,
}

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
        Err(Error::Option { option: "pin_dir", value: options.pin_dir.display().to_string() })
    }

    /// Enters an agent. From here on its cgroup is recorded and its network policy holds. Adding the same
    /// agent with the same configuration again changes nothing (so a launcher that restarts may just add).
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::AgentExists`], or a map that cannot be written.
    pub fn add_agent(&self, cgroup_id: u64, config: AgentConfig) -> Result<(), Error> {
        let _ = config;
        Err(Error::UnknownAgent { cgroup_id })
    }

    /// The agent's set-up is over: from now on LSM hooks refuse what no agent may do, whatever the state of
    /// the task. (A task with no_new_privs is refused even before.)
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn arm(&self, cgroup_id: u64) -> Result<(), Error> {
        Err(Error::UnknownAgent { cgroup_id })
    }

    /// Changes mode and network policy of a running agent; counters go on.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn update_agent(&self, cgroup_id: u64, config: AgentConfig) -> Result<(), Error> {
        let _ = config;
        Err(Error::UnknownAgent { cgroup_id })
    }

    /// Takes an agent out and gives its last counters. Call it when its cgroup is empty, after a last drain.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn remove_agent(&self, cgroup_id: u64) -> Result<FinalCounters, Error> {
        Err(Error::UnknownAgent { cgroup_id })
    }

    /// The agents in the maps: cgroup id and configuration. A launcher that restarts compares them with its
    /// table.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn agents(&self) -> Result<Vec<(u64, AgentConfig)>, Error> {
        Ok(Vec::new())
    }

    /// Events, drops, denials, traffic.
    ///
    /// # Errors
    /// [`Error::UnknownAgent`].
    pub fn counters(&self, cgroup_id: u64) -> Result<AgentCounters, Error> {
        Err(Error::UnknownAgent { cgroup_id })
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
        Err(Error::UnknownAgent { cgroup_id })
    }

    /// Whether BPF LSM programs are attached.
    #[must_use]
    pub fn lsm_available(&self) -> bool {
        false
    }

    /// Whether a system-call probe is attached just now.
    #[must_use]
    pub fn syscall_probes_attached(&self) -> bool {
        false
    }

    /// Detaches what an earlier, incompatible version left attached; see [`crate::Adoption::Replaced`].
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn retire_previous(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Removes every pin below `pin_dir` and the folder itself, and so detaches every program once the last
    /// process that holds them lets go. A folder that is not there is no error.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn unpin_all(pin_dir: &Path) -> Result<(), Error> {
        let _ = pin_dir;
        Ok(())
    }

    /// Where the pins are.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }
}
