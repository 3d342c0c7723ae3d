//! The folder of images, and the few that are ready.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mount::FileSystem;
use crate::{Error, Result, Volume, image, wipe};

const READY: &str = "ready-";
const IN_USE: &str = "volume-";
const TRASH: &str = "draft-trash-";
/// Volumes of ended agents that stay mounted, for a restart or to be wiped.
const RESTING: usize = 32;

/// Where volumes live and how many are kept ready.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; made with mode 0700.
    pub folder: PathBuf,
    /// How many volumes of `ready_bytes` are kept ready.
    pub ready: usize,
    /// Their size in bytes.
    pub ready_bytes: u64,
}

/// All volumes of one launcher.
#[derive(Debug)]
pub struct Volumes {
    options: Options,
    state: Mutex<State>,
    /// Held while a template is looked for or made, so that each is made once.
    templates: Mutex<()>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Ready>,
    /// Mounted volumes by name.
    mounted: HashMap<String, Mounted>,
    /// Those of ended agents, the longest ended first.
    resting: VecDeque<String>,
    /// Images to be removed when there is time: on a file system that discards, that takes long.
    trash: Vec<PathBuf>,
}

#[derive(Debug)]
struct Ready {
    path: PathBuf,
    mounted: Mounted,
}

#[derive(Debug)]
struct Mounted {
    system: FileSystem,
    bytes: u64,
}

impl Volumes {
    /// Opens the folder and removes what a dead launcher had kept ready. Volumes in use stay.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(mut options: Options) -> Result<Self> {
        options.ready_bytes = image::checked_size(options.ready_bytes)?;
        let folder = &options.folder;
        let failed = |action| move |source| Error::File { action, path: folder.clone(), source };
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make")(source));
            }
            _ => {}
        }
        for entry in fs::read_dir(folder).map_err(failed("read"))? {
            let name = entry.map_err(failed("read"))?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(READY) || name.starts_with("draft-") {
                image::remove(&folder.join(name.as_ref()))?;
            }
        }
        Ok(Self { options, state: Mutex::default(), templates: Mutex::new(()), next: AtomicU64::new(0) })
    }

    /// Makes one more volume ready when there are too few, or removes what is to be removed. Returns whether it
    /// did something: call it until it does not, from a thread that may wait.
    ///
    /// # Errors
    /// As for [`Volumes::take`].
    pub fn refill(&self) -> Result<bool> {
        if self.lock().ready.len() >= self.options.ready {
            let trash = self.lock().trash.pop();
            return match trash {
                Some(path) => image::remove(&path).map(|()| true),
                None => Ok(false),
            };
        }
        let path = self.fresh(READY);
        let mounted = match self.make(&path, self.options.ready_bytes) {
            Ok(mounted) => mounted,
            Err(error) => {
                image::remove(&path)?;
                return Err(error);
            }
        };
        self.lock().ready.push_back(Ready { path, mounted });
        Ok(true)
    }

    /// A volume of at most `bytes` for `name`: a new one, from those that are ready when the size fits, or the one that
    /// this name already has.
    ///
    /// # Errors
    /// When it cannot be made or mounted; nothing is left behind then.
    pub fn take(&self, name: &str, bytes: u64) -> Result<Volume> {
        let path = self.path(name)?;
        let bytes = image::checked_size(bytes)?;
        let mounted = {
            let mut state = self.lock();
            state.resting.retain(|resting| resting != name);
            state.mounted.remove(name)
        };
        let mounted = match mounted {
            Some(mounted) => mounted,
            None if path.exists() => {
                image::await_detached(&path)?;
                let file = image::open(&path)?;
                let bytes = file.metadata().map_or(bytes, |found| found.len());
                Mounted { system: FileSystem::of(&file)?, bytes }
            }
            None => self.first(&path, bytes)?,
        };
        let volume = Volume { mount: mounted.system.mount()?, bytes: mounted.bytes };
        self.lock().mounted.insert(name.to_owned(), mounted);
        Ok(volume)
    }

    fn first(&self, path: &Path, bytes: u64) -> Result<Mounted> {
        let ready = if bytes == self.options.ready_bytes { self.lock().ready.pop_front() } else { None };
        match ready {
            Some(ready) => match fs::rename(&ready.path, path) {
                Ok(()) => Ok(ready.mounted),
                Err(source) => {
                    image::remove(&ready.path)?;
                    Err(Error::File { action: "name", path: path.to_owned(), source })
                }
            },
            None => self.make(path, bytes).inspect_err(|_| {
                // It is the failure above that matters.
                let _ = image::remove(path);
            }),
        }
    }

    /// The agent of this volume has ended, and no process of it is left. The volume stays mounted for a
    /// while, for a restart or to be wiped.
    pub fn rest(&self, name: &str) {
        let mut state = self.lock();
        if !state.mounted.contains_key(name) || state.resting.iter().any(|resting| resting == name) {
            return;
        }
        state.resting.push_back(name.to_owned());
        if state.resting.len() > RESTING
            && let Some(oldest) = state.resting.pop_front()
        {
            let unmounted = state.mounted.remove(&oldest);
            drop(state);
            drop(unmounted);
        }
    }

    /// Forgets a volume. One with little in it is wiped and used again.
    ///
    /// # Errors
    /// When the image cannot be removed; a volume that does not exist is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        let mounted = {
            let mut state = self.lock();
            state.resting.retain(|resting| resting != name);
            state.mounted.remove(name)
        };
        if let Some(mounted) = mounted {
            let wanted = mounted.bytes == self.options.ready_bytes
                && self.lock().ready.len() < self.options.ready.saturating_mul(2);
            if wanted && self.recycle(&path, mounted) {
                return Ok(());
            }
        }
        let trash = self.fresh(TRASH);
        match fs::rename(&path, &trash) {
            Ok(()) => self.lock().trash.push(trash),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { action: "remove", path, source }),
        }
        Ok(())
    }

    fn recycle(&self, path: &Path, mounted: Mounted) -> bool {
        match wipe::wipe(mounted.system.root()) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a volume cannot be wiped and is thrown away");
                return false;
            }
        }
        let ready = self.fresh(READY);
        if fs::rename(path, &ready).is_err() {
            return false;
        }
        self.lock().ready.push_back(Ready { path: ready, mounted });
        true
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.options.folder.join(format!("{kind}{}-{number}", std::process::id()))
    }

    /// Bytes that a volume takes of the host's disk.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn used(&self, name: &str) -> Result<u64> {
        image::used(&self.path(name)?)
    }

    /// The names of the volumes in use, for a launcher that compares them with its table.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let folder = &self.options.folder;
        let failed = |source| Error::File { action: "read", path: folder.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_string_lossy().strip_prefix(IN_USE).map(str::to_owned));
        }
        Ok(names)
    }

    fn make(&self, path: &Path, bytes: u64) -> Result<Mounted> {
        let template = {
            let _one_at_a_time = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
            image::template(&self.options.folder, bytes)?
        };
        let file = image::copy(&template, path)?;
        let system = FileSystem::of(&file)?;
        // Of no use to an agent, and the same as in a volume that was used before.
        let _ = rustix::fs::unlinkat(system.root(), c"lost+found", rustix::fs::AtFlags::REMOVEDIR);
        tracing::debug!(path = %path.display(), bytes, "made a volume");
        Ok(Mounted { system, bytes })
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Error::Name { name: name.chars().take(80).collect() });
        }
        Ok(self.options.folder.join(format!("{IN_USE}{name}")))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        let mut state = self.lock();
        let ready = std::mem::take(&mut state.ready).into_iter().map(|ready| ready.path);
        let trash = std::mem::take(&mut state.trash);
        for path in ready.chain(trash) {
            // A launcher that starts later removes what stays.
            let _ = image::remove(&path);
        }
    }
}
