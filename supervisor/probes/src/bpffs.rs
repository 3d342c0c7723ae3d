//! The BPF file system: where pins live, and how they are found again and removed.
//!
//! ```text
//! PIN_DIR/maps/NAME            maps, shared by all generations of programs
//! PIN_DIR/programs/NAME@GEN    programs that are attached on demand
//! PIN_DIR/links/NAME@GEN       links: what is attached
//! PIN_DIR/previous/…           the same of an earlier version whose maps did not fit
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::error::Error;

const ROOT: &str = "/sys/fs/bpf";

/// The folders below the caller's.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    root: PathBuf,
}

impl Pins {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(crate) fn previous(&self) -> PathBuf {
        self.root.join("previous")
    }

    pub(crate) fn link(&self, name: &str, generation: u32) -> PathBuf {
        self.links().join(format!("{name}@{generation}"))
    }

    pub(crate) fn program(&self, name: &str, generation: u32) -> PathBuf {
        self.programs().join(format!("{name}@{generation}"))
    }

    /// Makes the folders, on a BPF file system, which is mounted when it is not there.
    pub(crate) fn make(&self) -> Result<(), Error> {
        if self.root.starts_with(ROOT) && !is_bpffs(Path::new(ROOT)) {
            mount(Some("bpf"), ROOT, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
                .map_err(|errno| io_error("mount the BPF file system at", Path::new(ROOT), errno.into()))?;
        }
        for dir in [self.maps(), self.programs(), self.links()] {
            fs::create_dir_all(&dir).map_err(|source| io_error("make the folder", &dir, source))?;
        }
        if is_bpffs(&self.root) {
            return Ok(());
        }
        let reason = io::Error::new(io::ErrorKind::Unsupported, "it is not on a BPF file system");
        Err(io_error("pin below", &self.root, reason))
    }

    /// Removes pins of programs and links of every generation but `keep`.
    pub(crate) fn prune(&self, keep: u32) -> Result<(), Error> {
        let keep = format!("@{keep}");
        for dir in [self.links(), self.programs()] {
            for (name, path) in entries(&dir)? {
                if !name.ends_with(&keep) {
                    fs::remove_file(&path).map_err(|source| io_error("remove the pin", &path, source))?;
                }
            }
        }
        Ok(())
    }

    /// Moves everything aside, see [`crate::Adoption::Replaced`].
    pub(crate) fn set_aside(&self) -> Result<(), Error> {
        remove_tree(&self.previous())?;
        let to = self.previous();
        fs::create_dir(&to).map_err(|source| io_error("make the folder", &to, source))?;
        for dir in [self.links(), self.programs(), self.maps()] {
            if let Some(name) = dir.file_name() {
                fs::rename(&dir, to.join(name)).map_err(|source| io_error("move", &dir, source))?;
            }
        }
        self.make()
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

/// Names and paths in a folder; none when it is not there.
pub(crate) fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |source| io_error("read the folder", dir, source);
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())))
            .collect::<io::Result<_>>()
            .map_err(failed),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed(source)),
    }
}

/// Removes a folder of pins: links first (what is attached goes at once), then the rest.
pub(crate) fn remove_tree(root: &Path) -> Result<(), Error> {
    for (_, path) in entries(&root.join("links"))? {
        fs::remove_file(&path).map_err(|source| io_error("remove the pin", &path, source))?;
    }
    match fs::remove_dir_all(root) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove the folder", root, source))
        }
        _ => Ok(()),
    }
}
