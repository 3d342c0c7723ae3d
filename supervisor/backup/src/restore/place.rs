//! The folder that a state is put into: that nothing is lost by it, and that it is there as a whole or not at all.
//!
//! Where it can be, the state is built beside its place and renamed. A disk of its own cannot be renamed over: there it is built inside, and
//! moved out of there with the daemons kept away until the last piece is in place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aion_types::UNFINISHED_RESTORE;
use rustix::fs::FlockOperation;

use crate::{Error, Result};

/// Made by file systems, not by anybody.
const LOST_AND_FOUND: &str = "lost+found";

/// Refuses a folder in which something would be lost, or that somebody uses.
pub(crate) fn check(state: &Path) -> Result<()> {
    for (file, daemon) in [("run/aiond.pid", "aiond"), ("launcher/lock", "aion-launcher")] {
        if is_locked(&state.join(file)) {
            return Err(Error::InUse { dir: state.to_owned(), daemon });
        }
    }
    match first_file(state, 0) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => {
            let found = found.strip_prefix(state).unwrap_or(&found).display().to_string();
            Err(Error::NotEmpty { dir: state.to_owned(), found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look into", state)(error)),
    }
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    // Taken and let go at once.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// What is in it besides empty folders, which the package makes.
fn first_file(dir: &Path, depth: u32) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if depth == 0 && entry.file_name() == LOST_AND_FOUND {
            continue;
        }
        if !entry.file_type()?.is_dir() || depth > 8 || entry.file_name() == UNFINISHED_RESTORE {
            return Ok(Some(entry.path()));
        }
        if let Some(found) = first_file(&entry.path(), depth + 1)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A state that is being built. Dropped before it is in place, it is removed.
pub(crate) struct Staging {
    path: PathBuf,
    state: PathBuf,
    beside: bool,
    placed: bool,
    /// Held as long as this process builds.
    _lock: File,
}

impl Staging {
    pub(crate) fn make(state: &Path) -> Result<Self> {
        let state = real(state)?;
        let parent = state.parent().unwrap_or(Path::new("/")).to_owned();
        let beside = !is_mount(&state, &parent);
        let path = if beside {
            let name = state.file_name().unwrap_or_default().to_string_lossy().into_owned();
            parent.join(format!(".{name}{UNFINISHED_RESTORE}"))
        } else {
            state.join(UNFINISHED_RESTORE)
        };
        let lock = begin(&path)?;
        Ok(Self { path, state, beside, placed: false, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything is on the disk before anything has its name.
    pub(crate) fn into_place(mut self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        rustix::fs::syncfs(&folder).map_err(|e| Error::io("sync", &self.path)(e.into()))?;
        let mode = fs::Permissions::from_mode(0o755);
        if self.beside {
            folder.set_permissions(mode).map_err(Error::io("change the mode of", &self.path))?;
            remove_empty(&self.state)?;
            fs::rename(&self.path, &self.state).map_err(Error::io("put in place", &self.state))?;
            self.placed = true;
            return sync(self.state.parent().unwrap_or(Path::new("/")));
        }
        for entry in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))? {
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            let to = self.state.join(&name);
            remove_empty(&to)?;
            // From here on only root knows what is whole: the daemons refuse a folder in which this one still is.
            self.placed = true;
            fs::rename(self.path.join(&name), &to).map_err(Error::io("put in place", &to))?;
        }
        sync(&self.state)?;
        fs::set_permissions(&self.state, mode).map_err(Error::io("change the mode of", &self.state))?;
        fs::remove_dir(&self.path).map_err(Error::io("remove", &self.path))?;
        sync(&self.state)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The path without links; its last part need not be there.
fn real(state: &Path) -> Result<PathBuf> {
    match state.canonicalize() {
        Ok(real) => return Ok(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("find", state)(error)),
    }
    let absolute = std::path::absolute(state).map_err(Error::io("find", state))?;
    let (parent, name) = (absolute.parent().unwrap_or(Path::new("/")), absolute.file_name());
    let parent = parent.canonicalize().map_err(Error::io("find", parent))?;
    Ok(name.map_or(parent.clone(), |name| parent.join(name)))
}

fn is_mount(state: &Path, parent: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(state).is_some_and(|own| device(parent) != Some(own))
}

/// A fresh folder. One that an earlier restore left is removed, unless it is at work.
fn begin(path: &Path) -> Result<File> {
    let lock = |path: &Path| -> Result<Option<File>> {
        let file = OpenOptions::new().read(true).open(path).map_err(Error::io("open", path))?;
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(locked.is_ok().then_some(file))
    };
    let busy = || Error::InUse { dir: path.to_owned(), daemon: "another restore" };
    if path.exists() {
        let _alone = lock(path)?.ok_or_else(busy)?;
        fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
    }
    DirBuilder::new().mode(0o700).create(path).map_err(Error::io("make", path))?;
    lock(path)?.ok_or_else(busy)
}

/// Removes a folder in which only empty folders are; one that is not there is fine.
fn remove_empty(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look into", dir)(error)),
    };
    for entry in entries {
        remove_empty(&entry.map_err(Error::io("look into", dir))?.path())?;
    }
    fs::remove_dir(dir).map_err(Error::io("remove", dir))
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}
