//! Limits, whatever the host calls them.

use std::path::Path;

use nix::sys::stat::{major, minor, stat};

use crate::settings::Settings;
use crate::{AgentGroup, Controller, Error, Result};

/// What a group may use. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Share of the processor when it is short, 1..=10000, where 100 is usual.
    pub cpu_weight: Option<u32>,
    /// Bytes of memory. There is no swap beside it, and running out kills the whole group.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Share of the disks when they are short, 1..=10000, where 100 is usual.
    pub io_weight: Option<u32>,
    /// Bytes a second read from each of `devices`.
    pub io_read_bps: Option<u64>,
    /// Bytes a second written to each of `devices`.
    pub io_write_bps: Option<u64>,
    /// What the two above are about.
    pub devices: Vec<BlockDevice>,
}

/// A whole disk: the kernel throttles no partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDevice {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
}

impl BlockDevice {
    /// The disk that holds a file, when it is on one.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let dev = stat(path).ok()?.st_dev;
        let name = format!("/sys/dev/block/{}:{}", major(dev), minor(dev));
        let node = Path::new(&name).canonicalize().ok()?;
        let disk = if node.join("partition").exists() { node.parent()? } else { &node };
        let text = std::fs::read_to_string(disk.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

/// A limit that could not be set because the host lacks what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The controller.
    pub controller: Controller,
    /// The limit.
    pub limit: &'static str,
    /// What exactly is not there.
    pub why: String,
}

impl AgentGroup {
    /// Sets the CPU quota alone. Whoever [`freeze`](Self::freeze)s lifts it for that time; if it dies in the middle, this puts it back.
    ///
    /// # Errors
    /// [`Error::ControllerMissing`], [`Error::Limit`].
    pub fn limit_cpu(&self, millis: Option<u32>) -> Result<Option<String>> {
        Settings::of(self).cpu_quota(millis)
    }

    /// Sets the limits; only what differs from the last call is written. With `allow_missing` a limit whose
    /// controller is not there is answered instead of being an error.
    ///
    /// # Errors
    /// [`Error::ControllerMissing`], [`Error::Limit`]. Limits before the failed one are set.
    pub fn set_limits(&mut self, limits: &Limits, allow_missing: bool) -> Result<Vec<Missing>> {
        let mut missing = Vec::new();
        let settings = Settings::of(self);
        let old = self.applied.clone();
        // Noted before: after a failure everything is written again.
        self.applied = Limits::default();
        let mut set = |controller, limit, done: Result<Option<String>>| -> Result<()> {
            match done? {
                None => Ok(()),
                Some(why) if allow_missing => {
                    missing.push(Missing { controller, limit, why });
                    Ok(())
                }
                Some(why) => Err(Error::ControllerMissing { controller, limit, why }),
            }
        };
        if limits.memory_bytes != old.memory_bytes {
            set(Controller::Memory, "memory", settings.memory(limits.memory_bytes))?;
        }
        if limits.pids != old.pids {
            set(Controller::Pids, "pids", settings.pids(limits.pids))?;
        }
        if limits.cpu_millis != old.cpu_millis {
            set(Controller::Cpu, "cpu", settings.cpu_quota(limits.cpu_millis))?;
        }
        if limits.cpu_weight != old.cpu_weight {
            set(Controller::Cpu, "cpu_weight", settings.cpu_weight(limits.cpu_weight))?;
        }
        if limits.io_weight != old.io_weight {
            set(Controller::Io, "io_weight", settings.io_weight(limits.io_weight))?;
        }
        let same_disks = limits.devices == old.devices;
        if limits.io_read_bps != old.io_read_bps || (limits.io_read_bps.is_some() && !same_disks) {
            set(Controller::Io, "io_read_bps", settings.io_bps(&limits.devices, limits.io_read_bps, false))?;
        }
        if limits.io_write_bps != old.io_write_bps || (limits.io_write_bps.is_some() && !same_disks) {
            set(Controller::Io, "io_write_bps", settings.io_bps(&limits.devices, limits.io_write_bps, true))?;
        }
        self.applied = limits.clone();
        Ok(missing)
    }
}
