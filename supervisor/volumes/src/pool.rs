//! The folder of images, and the few that are ready.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Error, Result, Volume, image, mount};

const READY: &str = "ready-";
const IN_USE: &str = "volume-";

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
    ready: Mutex<VecDeque<Ready>>,
    /// Held while a template is looked for or made, so that each is made once.
    templates: Mutex<()>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Ready {
    path: PathBuf,
    volume: Volume,
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
        Ok(Self {
            options,
            ready: Mutex::new(VecDeque::new()),
            templates: Mutex::new(()),
            next: AtomicU64::new(0),
        })
    }

    /// Makes one more volume ready when there are too few. Returns whether it did: call it until it does not,
    /// from a thread that may wait.
    ///
    /// # Errors
    /// As for [`Volumes::take`].
    pub fn refill(&self) -> Result<bool> {
        if self.lock().len() >= self.options.ready {
            return Ok(false);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.options.folder.join(format!("{READY}{}-{number}", std::process::id()));
        let volume = match self.make(&path, self.options.ready_bytes) {
            Ok(volume) => volume,
            Err(error) => {
                image::remove(&path)?;
                return Err(error);
            }
        };
        self.lock().push_back(Ready { path, volume });
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
        if path.exists() {
            let file = image::open(&path)?;
            let bytes = file.metadata().map_or(bytes, |found| found.len());
            return Ok(Volume { mount: mount::detached(&file)?, bytes });
        }
        let ready = if bytes == self.options.ready_bytes { self.lock().pop_front() } else { None };
        if let Some(ready) = ready {
            return match fs::rename(&ready.path, &path) {
                Ok(()) => Ok(ready.volume),
                Err(source) => {
                    image::remove(&ready.path)?;
                    Err(Error::File { action: "name", path, source })
                }
            };
        }
        self.make(&path, bytes).inspect_err(|_| {
            // It is the failure above that matters.
            let _ = image::remove(&path);
        })
    }

    /// Forgets a volume. Its space is free once nothing is mounted from it any more.
    ///
    /// # Errors
    /// When the image cannot be removed; a volume that does not exist is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        image::remove(&self.path(name)?)
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

    fn make(&self, path: &Path, bytes: u64) -> Result<Volume> {
        let template = {
            let _one_at_a_time = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
            image::template(&self.options.folder, bytes)?
        };
        let file = image::copy(&template, path)?;
        let mount = mount::detached(&file)?;
        tracing::debug!(path = %path.display(), bytes, "made a volume");
        Ok(Volume { mount, bytes })
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(Error::Name { name: name.chars().take(80).collect() });
        }
        Ok(self.options.folder.join(format!("{IN_USE}{name}")))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        for ready in self.lock().drain(..) {
            // A launcher that starts later removes what stays.
            let _ = image::remove(&ready.path);
        }
    }
}
