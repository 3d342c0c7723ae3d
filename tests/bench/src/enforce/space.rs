//! Network namespaces of the benchmark's own: the machine's network is never touched.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::schedule::process::inside;

/// A network namespace. It lives as long as its file is open, without a process of its own.
#[derive(Debug)]
pub(crate) struct Space(File);

impl Space {
    /// One with nothing but its loopback.
    pub(crate) fn new() -> Result<Self> {
        let made = std::thread::scope(|scope| scope.spawn(make).join());
        let space = Self(made.map_err(|_| anyhow!("a thread panicked"))??);
        space.ip("link set lo up")?;
        Ok(space)
    }

    /// Its file, for programs that are to enter it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs `ip` with these words; gives what it printed.
    pub(crate) fn ip(&self, words: &str) -> Result<String> {
        let done = inside(&self.path(), "ip").args(words.split(' ')).output().context("nsenter")?;
        ensure!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Does something in there, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(entered).join());
        done.map_err(|_| anyhow!("a thread panicked"))?
    }
}

fn make() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
    File::open("/proc/thread-self/ns/net").context("the network namespace")
}
