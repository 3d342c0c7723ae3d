//! Freezing, thawing, killing, and waiting for it.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{AgentGroup, Controller, Error, Result, files};

/// As long as a change may come without being told of.
const LOOK_FOR: Duration = Duration::from_millis(50);
/// A freeze goes without the group's CPU quota for so long at most.
const LIFTED: Duration = Duration::from_millis(200);

impl AgentGroup {
    /// Stops every process and waits until all stand still.
    ///
    /// # Errors
    /// [`Error::Timeout`] when a process did not stop in time (it sits in the kernel); the group goes on
    /// freezing. Else what the cgroup file system says.
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        if timeout.is_zero() {
            return self.set_frozen(true, timeout);
        }
        let Some((file, quota)) = self.lift_quota() else { return self.set_frozen(true, timeout) };
        // A process that sits in the kernel must not keep the others without a limit.
        let soon = timeout.min(LIFTED);
        let done = self.set_frozen(true, soon);
        files::write(&file, &quota)?;
        match done {
            Err(Error::Timeout { .. }) if soon < timeout => self.set_frozen(true, timeout - soon),
            done => done,
        }
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// As [`Self::freeze`].
    pub fn thaw(&self, timeout: Duration) -> Result<()> {
        self.set_frozen(false, timeout)
    }

    /// Takes the CPU quota away; gives its file and what was in it. Processes that have used it up stand still in the kernel, and
    /// notice that they should freeze or end only in the next period, up to 100 ms later.
    fn lift_quota(&self) -> Option<(PathBuf, String)> {
        let (dir, v2) = self.controller_dir(Controller::Cpu)?;
        let (name, none) = if v2 { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
        let file = dir.join(name);
        let quota = files::read(&file).ok()?.trim().to_owned();
        let limited = !quota.starts_with(none);
        (limited && files::write(&file, none).is_ok()).then_some((file, quota))
    }

    fn set_frozen(&self, frozen: bool, timeout: Duration) -> Result<()> {
        let state = if frozen { "frozen" } else { "thawed" };
        if let Some(path) = self.unified_path() {
            files::write(&path.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
            return wait_event(path, "frozen", u64::from(frozen), state, timeout);
        }
        let Some(root) = &self.hierarchy.v1_freezer else { return Err(Error::NotMounted) };
        let dir = root.join(self.path());
        let file = dir.join("freezer.state");
        let word = if frozen { "FROZEN" } else { "THAWED" };
        let deadline = Instant::now() + timeout;
        loop {
            // Written each time: a v1 freezer that met a fork in the middle wants to be asked again.
            files::write(&file, word)?;
            if files::read(&file)?.trim() == word {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout { path: dir, state, ms: timeout.as_millis() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the group is frozen or freezing.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match (self.unified_path(), &self.hierarchy.v1_freezer) {
            (Some(path), _) => files::number(&path.join("cgroup.freeze")) == Some(1),
            (None, Some(root)) => {
                files::read(&root.join(self.path()).join("freezer.state")).is_ok_and(|s| s.trim() != "THAWED")
            }
            (None, None) => false,
        }
    }

    /// Kills every process of the group at once, frozen or not. They end a moment later: see
    /// [`Self::wait_empty`].
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn kill(&self) -> Result<()> {
        // Nothing runs here any more but its end.
        let _ = self.lift_quota();
        if let Some(path) = self.unified_path() {
            match files::write(&path.join("cgroup.kill"), "1") {
                // Before Linux 5.14.
                Err(e) if e.is_not_found() => {}
                done => return done,
            }
        }
        self.kill_one_by_one()
    }

    /// Frozen processes cannot fork, so one pass finds them all; SIGKILL reaches them when they thaw (in v2
    /// at once).
    fn kill_one_by_one(&self) -> Result<()> {
        let _ = self.freeze(Duration::from_secs(2));
        for dir in self.member_dirs() {
            match files::processes(&dir) {
                Ok(pids) => {
                    for pid in pids {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        let _ = self.thaw(Duration::ZERO);
        Ok(())
    }

    /// Waits until no process is left.
    ///
    /// # Errors
    /// [`Error::Timeout`], or what the cgroup file system says.
    pub fn wait_empty(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        if let Some(path) = self.unified_path() {
            return match wait_event(path, "populated", 0, "empty", timeout) {
                Err(e) if e.is_not_found() => Ok(()),
                done => done,
            };
        }
        while !self.is_empty()? {
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    path: self.path().to_owned(),
                    state: "empty",
                    ms: timeout.as_millis(),
                });
            }
            self.kill_one_by_one()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Whether processes are in it, or may be: what cannot be read counts as yes.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        match self.unified_path().map(|path| files::read(&path.join("cgroup.events"))) {
            Some(Ok(text)) => files::field(&text, "populated") != Some(0),
            Some(Err(e)) => !e.is_not_found(),
            None => !self.is_empty().unwrap_or(false),
        }
    }

    /// Whether no process is left.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn is_empty(&self) -> Result<bool> {
        for dir in self.member_dirs() {
            match files::processes(&dir) {
                Ok(pids) if !pids.is_empty() => return Ok(false),
                Ok(_) => {}
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// The processes of the group.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.member_dirs().first() {
            Some(dir) => files::processes(dir),
            None => Ok(Vec::new()),
        }
    }

    fn member_dirs(&self) -> Vec<std::path::PathBuf> {
        match self.unified_path() {
            Some(path) => vec![path.to_owned()],
            None => self.hierarchy.v1_roots().iter().map(|root| root.join(self.path())).collect(),
        }
    }
}

/// Waits until a field of `cgroup.events` has a value. The file is pollable: it wakes on each change.
fn wait_event(group: &Path, key: &str, value: u64, state: &'static str, timeout: Duration) -> Result<()> {
    let path = group.join("cgroup.events");
    let begun = Instant::now();
    let deadline = begun + timeout;
    let mut file = File::open(&path).map_err(Error::io("open", &path))?;
    let mut text = String::with_capacity(64);
    loop {
        text.clear();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        match read {
            Ok(_) => {}
            // The group was removed meanwhile.
            Err(e) if e.raw_os_error() == Some(nix::libc::ENODEV) && value == 0 => return Ok(()),
            Err(e) => return Err(Error::io("read", &path)(e)),
        }
        if files::field(&text, key) == Some(value) {
            return Ok(());
        }
        let mut left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout { path: group.to_owned(), state, ms: timeout.as_millis() });
        }
        // The kernel tells of a group's changes once in 10 ms at most; what comes sooner after another is seen by looking.
        if begun.elapsed() < LOOK_FOR {
            left = left.min(Duration::from_millis(1));
        }
        let wait = PollTimeout::try_from(left.max(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::io("poll", &path)(e.into())),
        }
    }
}
