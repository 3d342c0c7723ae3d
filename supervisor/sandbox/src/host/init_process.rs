//! A process of ours, held by its pidfd: an init, or the helper of an exec.
//!
//! The number alone is never used to signal or wait, so that a number that was given out again cannot be
//! meant by mistake.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::Error;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, 0 when a signal ended it.
    pub code: u8,
    /// The signal, 0 when it exited by itself.
    pub signal: u8,
}

/// A process and its pidfd.
#[derive(Debug)]
pub struct InitProcess {
    pid: u32,
    pidfd: OwnedFd,
    start_time: u64,
}

impl InitProcess {
    pub(crate) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, start_time: start_time_of(pid).unwrap_or(0) }
    }

    /// Finds one again after a restart of the launcher, by its number and start time.
    ///
    /// # Errors
    /// It is gone, or its number belongs to another process.
    pub fn adopt(pid: u32, start_time: u64) -> Result<Self, Error> {
        let gone = |errno: Errno| Error::Host {
            doing: format!("find process {pid} again"),
            errno: errno.raw_os_error(),
        };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| gone(Errno::SRCH))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(gone)?;
        // The number is held by the pidfd from here on: what /proc says is about it.
        if start_time == 0 || start_time_of(pid) != Some(start_time) {
            return Err(gone(Errno::SRCH));
        }
        Ok(Self { pid, pidfd, start_time })
    }

    /// Its number in our pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its pidfd: readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// When it started, in clock ticks since boot, as `/proc/PID/stat` has it.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Sends a signal; a process that is gone needs none.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        match aion_sys::signal::send(self.pidfd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(Error::host("signal a process")(e)),
        }
    }

    /// Waits until it has ended and reaps it, if it is our child; `None` at the timeout. An adopted process is not our child:
    /// its exit is then unknown here (`code` 0, `signal` 0) and stands in the journal.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<Ended>, Error> {
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            let left = match deadline {
                None => None,
                Some(at) => {
                    Timespec::try_from(at.saturating_duration_since(Instant::now())).map(Some).unwrap_or(None)
                }
            };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => return self.reap().map(Some),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::host("wait for a process")(e)),
            }
        }
    }

    fn reap(&mut self) -> Result<Ended, Error> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let byte = |value: Option<i32>| value.and_then(|v| u8::try_from(v & 0xff).ok()).unwrap_or(0);
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(Some(status)) => {
                Ok(Ended { code: byte(status.exit_status()), signal: byte(status.terminating_signal()) })
            }
            Ok(None) | Err(Errno::CHILD) => Ok(Ended { code: 0, signal: 0 }),
            Err(e) => Err(Error::host("reap a process")(e)),
        }
    }

    /// Kills it and everything in its pid namespace, and waits for its end.
    pub(crate) fn destroy(&mut self) {
        // Both can only fail when it is gone already.
        let _ = self.signal(9);
        let _ = self.wait(Some(Duration::from_secs(10)));
    }
}

/// Field 22 of `/proc/PID/stat`; the name before it may hold anything but ends with the last `)`.
fn start_time_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    rest.split(' ').nth(19)?.parse().ok()
}
