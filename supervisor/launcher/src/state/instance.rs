//! One launcher for a state folder at a time, and what it is called.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::Failure;
use crate::state::{Folder, replace};

/// How long a launcher that is just ending is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Another launcher has the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a launcher runs already with this state folder")]
pub struct AlreadyRuns;

/// The hold on a state folder, until dropped.
#[derive(Debug)]
pub struct Instance {
    _lock: Flock<File>,
    /// How many launchers this folder has had.
    pub epoch: u64,
}

impl Instance {
    /// Takes the folder, counts the epoch up, and notes down the control group's name for whoever cleans up.
    ///
    /// # Errors
    /// [`AlreadyRuns`], or the folder cannot be written.
    pub fn take(folder: &Folder, cgroup: &str) -> anyhow::Result<Self> {
        let mut this = Self::lock(folder)?;
        let path = folder.launcher().join("epoch");
        let last = fs::read_to_string(&path).ok().and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0);
        this.epoch = last.saturating_add(1);
        replace(&path, this.epoch.to_string().as_bytes()).map_err(|e| Failure::state("write", &path, &e))?;
        let path = folder.launcher().join("instance");
        replace(&path, format!("{cgroup}\n").as_bytes()).map_err(|e| Failure::state("write", &path, &e))?;
        Ok(this)
    }

    /// Only takes the folder: for a clean-up while no launcher runs.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn lock(folder: &Folder) -> anyhow::Result<Self> {
        let path = folder.launcher().join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Failure::state("open", &path, &e))?;
        let mut file = file;
        let since = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { _lock: lock, epoch: 0 }),
                Err(_) if since.elapsed() >= PATIENCE => return Err(AlreadyRuns.into()),
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The control group that the last launcher of this folder used.
    #[must_use]
    pub fn noted_cgroup(folder: &Folder) -> Option<String> {
        let text = fs::read_to_string(folder.launcher().join("instance")).ok()?;
        let name = text.trim();
        (!name.is_empty()).then(|| name.to_owned())
    }
}
