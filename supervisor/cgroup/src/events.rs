//! Limits that were hit: descriptors that wake, and the counters that say what it was.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{AgentGroup, Controller, Error, Result, files, stats};

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// Memory.
    Memory,
    /// Processes.
    Pids,
}

/// A descriptor that wakes when a limit was hit. Register it edge-triggered (`EPOLLET`), for `EPOLLPRI` and
/// `EPOLLIN`: nothing need be read from it. The first wake-up may be spurious: compare the counters.
#[derive(Debug)]
pub struct LimitEvent {
    /// Which limit.
    pub kind: LimitKind,
    fd: OwnedFd,
    /// v1's notification lives as long as the file that it is about.
    _about: Option<File>,
}

impl AsFd for LimitEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How often limits were hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitCounters {
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Times memory was at its limit.
    pub memory_hits: u64,
    /// Forks refused for the limit on processes.
    pub pids_hits: u64,
}

impl AgentGroup {
    /// Descriptors for the limits that this host can tell of.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn limit_events(&self) -> Result<Vec<LimitEvent>> {
        let mut events = Vec::new();
        if let Some((dir, v2)) = self.controller_dir(Controller::Memory) {
            if v2 {
                let path = dir.join("memory.events");
                let file = File::open(&path).map_err(Error::io("open", &path))?;
                events.push(LimitEvent { kind: LimitKind::Memory, fd: file.into(), _about: None });
            } else if let Some(event) = self.v1_oom_event(&dir)? {
                events.push(event);
            }
        }
        if let Some((dir, _)) = self.controller_dir(Controller::Pids) {
            // The same file in both versions, and pollable in both. It came with Linux 4.8.
            let path = dir.join("pids.events");
            if let Ok(file) = File::open(&path) {
                events.push(LimitEvent { kind: LimitKind::Pids, fd: file.into(), _about: None });
            }
        }
        Ok(events)
    }

    #[expect(clippy::unused_self, reason = "a method beside its v2 sibling")]
    fn v1_oom_event(&self, dir: &std::path::Path) -> Result<Option<LimitEvent>> {
        let about_path = dir.join("memory.oom_control");
        let control = dir.join("cgroup.event_control");
        let Ok(about) = File::open(&about_path) else { return Ok(None) };
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::io("make an eventfd for", &about_path)(e.into()))?;
        let line = format!("{} {}", event.as_fd().as_raw_fd(), about.as_raw_fd());
        match files::write(&control, &line) {
            Ok(()) => {}
            // A kernel without v1 memory events: the counters are still read when the agent ends.
            Err(_) => return Ok(None),
        }
        Ok(Some(LimitEvent { kind: LimitKind::Memory, fd: event.into(), _about: Some(about) }))
    }

    /// How often limits were hit so far.
    #[must_use]
    pub fn limit_counters(&self) -> LimitCounters {
        let mut counters = LimitCounters::default();
        if let Some((dir, v2)) = self.controller_dir(Controller::Memory) {
            counters.oom_kills = stats::oom_kills(&dir, v2);
            counters.memory_hits = if v2 {
                files::read(&dir.join("memory.events"))
                    .ok()
                    .and_then(|t| files::field(&t, "max"))
                    .unwrap_or(0)
            } else {
                files::number(&dir.join("memory.failcnt")).unwrap_or(0)
            };
        }
        if let Some((dir, _)) = self.controller_dir(Controller::Pids) {
            let text = files::read(&dir.join("pids.events")).unwrap_or_default();
            counters.pids_hits = files::field(&text, "max").unwrap_or(0);
        }
        counters
    }
}
