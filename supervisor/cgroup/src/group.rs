//! One agent's group: its folders, its members, its end.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::parent::is_name;
use crate::{Controller, Error, Hierarchy, Limits, Parent, Result, files};

/// An agent's group. Dropping it leaves the group as it is.
#[derive(Debug)]
pub struct AgentGroup {
    pub(crate) hierarchy: Arc<Hierarchy>,
    /// Relative to each mount point.
    path: PathBuf,
    unified: Option<Unified>,
    /// What `set_limits` last wrote, so that it need not write it again.
    pub(crate) applied: Limits,
}

/// How a thread gets into a v1 group and out again; see [`AgentGroup::v1_doors`].
#[derive(Debug)]
pub struct V1Door {
    /// `tasks` of the group.
    pub enter: OwnedFd,
    /// `tasks` of the group that this process belongs to.
    pub leave: OwnedFd,
}

#[derive(Debug)]
struct Unified {
    path: PathBuf,
    dir: OwnedFd,
    id: u64,
}

impl AgentGroup {
    /// Makes the group. One that is there already is an error: a slot is used once.
    ///
    /// # Errors
    /// [`Error::BadName`], or what the cgroup file system says; nothing is left behind then.
    pub fn create(parent: &Parent, name: &str) -> Result<Self> {
        if !is_name(name) {
            return Err(Error::BadName { name: name.chars().take(80).collect() });
        }
        let path = parent.path.join(name);
        let mut made: Vec<PathBuf> = Vec::new();
        let roots = parent.hierarchy.unified.as_deref().into_iter().chain(parent.hierarchy.v1_roots());
        for root in roots {
            let dir = root.join(&path);
            if let Err(e) = fs::create_dir(&dir) {
                for dir in made.iter().rev() {
                    let _ = fs::remove_dir(dir);
                }
                return Err(Error::io("create", &dir)(e));
            }
            made.push(dir);
        }
        let group = Self::open(parent, name)?;
        if let Some(unified) = &group.unified {
            // The agent could not make groups anyway; this holds even if it were handed the folder.
            files::write(&unified.path.join("cgroup.max.descendants"), "0")?;
        }
        Ok(group)
    }

    /// A group that is there, to adopt or to remove it.
    ///
    /// # Errors
    /// [`Error::BadName`], or it is not in v2 although v2 is mounted.
    pub fn open(parent: &Parent, name: &str) -> Result<Self> {
        if !is_name(name) {
            return Err(Error::BadName { name: name.chars().take(80).collect() });
        }
        let path = parent.path.join(name);
        let unified = match &parent.hierarchy.unified {
            None => None,
            Some(root) => {
                let path = root.join(&path);
                match File::open(&path) {
                    Ok(dir) => {
                        // The id that BPF programs see is the folder's inode number.
                        let id = dir.metadata().map_err(Error::io("inspect", &path))?.ino();
                        Some(Unified { path, dir: dir.into(), id })
                    }
                    // A group that was half removed: v1 folders may be left.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                    Err(e) => return Err(Error::io("open", &path)(e)),
                }
            }
        };
        Ok(Self { hierarchy: Arc::clone(&parent.hierarchy), path, unified, applied: Limits::default() })
    }

    /// The v2 folder, for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn dir(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|u| u.dir.as_fd())
    }

    /// The id that BPF programs see; 0 without v2.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.unified.as_ref().map_or(0, |u| u.id)
    }

    /// Its path below the mount points.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder in v2.
    #[must_use]
    pub fn unified_path(&self) -> Option<&Path> {
        self.unified.as_ref().map(|u| u.path.as_path())
    }

    /// The folder in which a controller's files are.
    pub(crate) fn controller_dir(&self, controller: Controller) -> Option<(PathBuf, bool)> {
        if self.hierarchy.v2_controllers.contains(&controller) {
            return Some((self.unified.as_ref()?.path.clone(), true));
        }
        Some((self.hierarchy.v1_root(controller)?.join(&self.path), false))
    }

    /// Moves a process into the v1 groups; v2 is entered at clone. Each move of a whole process waits for a
    /// grace period of the kernel (some ms), so the launch path uses [`Self::v1_doors`] instead.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn join_v1(&self, pid: u32) -> Result<()> {
        for root in self.hierarchy.v1_roots() {
            files::write(&root.join(&self.path).join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// The doors into and out of the v1 groups for a single thread: one that writes 0 to `enter` is in the
    /// group, what it clones then is born there, and writing 0 to `leave` brings it back to where this
    /// process belongs. This takes no grace period, because a thread that moves itself cannot exit under the
    /// kernel's hands; it must leave, or the group cannot be removed.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn v1_doors(&self) -> Result<Vec<V1Door>> {
        let open = |dir: PathBuf| {
            let path = dir.join("tasks");
            File::options().write(true).open(&path).map(OwnedFd::from).map_err(Error::io("open", &path))
        };
        let mut doors = Vec::new();
        for root in self.hierarchy.v1_roots() {
            doors.push(V1Door {
                enter: open(root.join(&self.path))?,
                leave: open(self.hierarchy.own_v1(root))?,
            });
        }
        Ok(doors)
    }

    /// Removes the group's folders, which must be empty of processes. A folder that is still busy is tried
    /// again until the deadline: the kernel lets go of the last process a little late.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn remove(&self, timeout: Duration) -> Result<()> {
        let mut dirs: Vec<PathBuf> =
            self.hierarchy.v1_roots().iter().map(|root| root.join(&self.path)).collect();
        dirs.extend(self.unified.as_ref().map(|u| u.path.clone()));
        remove_dirs(&dirs, Instant::now() + timeout)
    }

    /// Kills whatever is in it, then removes it.
    ///
    /// # Errors
    /// As [`Self::kill`], [`Self::wait_empty`], [`Self::remove`].
    pub fn kill_and_remove(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        if self.is_populated() {
            self.kill()?;
            self.wait_empty(left())?;
        }
        self.remove(left())
    }
}

/// Removes folders with their child groups.
pub(crate) fn remove_dirs(dirs: &[PathBuf], deadline: Instant) -> Result<()> {
    for dir in dirs {
        for child in files::children(dir)? {
            remove_dirs(&[dir.join(child)], deadline)?;
        }
        let mut pause = Duration::from_micros(200);
        loop {
            match fs::remove_dir(dir) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(e) => return Err(Error::io("remove", dir)(e)),
            }
        }
    }
    Ok(())
}
