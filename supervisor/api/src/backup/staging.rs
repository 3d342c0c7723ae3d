//! The folder in which copies are made of links: `STATE/tmp/backup`, gone when the backup has ended, however it ends.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aion_backup::Part;
use aion_types::ErrorCode;

use crate::problem::{Outcome, Problem};

/// Removes what a backup left behind that was cut off with the daemon.
pub(crate) fn clear(state: &Path) {
    match fs::remove_dir_all(folder(state)) {
        Ok(()) => tracing::info!("removed what an unfinished backup left"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "what an unfinished backup left stays for now"),
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("tmp/backup")
}

pub(super) struct Staging {
    path: PathBuf,
}

impl Staging {
    pub(super) fn make(state: &Path) -> Outcome<Self> {
        clear(state);
        let this = Self { path: folder(state) };
        for part in [Part::Journal, Part::Tools] {
            make(&this.path.join(part.folder()))?;
        }
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Links the files of all tools that are installed now.
    pub(super) fn link_tools(&self, state: &Path) -> Outcome<()> {
        let (from, to) = (state.join(Part::Tools.folder()), self.path.join(Part::Tools.folder()));
        for tool in entries(&from)? {
            // One that is being installed has another name until it is whole.
            if tool.to_string_lossy().starts_with('.') || to.join(&tool).exists() {
                continue;
            }
            link(&from.join(&tool), &to.join(&tool))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "what a backup was made of stays until the next start");
        }
    }
}

fn make(path: &Path) -> Outcome<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed("make", path, &error))
}

/// Names in a folder, in order; none where there is no folder.
pub(super) fn entries(dir: &Path) -> Outcome<Vec<std::ffi::OsString>> {
    let found = match fs::read_dir(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", dir, &error)),
    };
    let names: io::Result<Vec<_>> = found.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.map_err(|error| failed("list", dir, &error))?;
    names.sort();
    Ok(names)
}

fn link(from: &Path, to: &Path) -> Outcome<()> {
    let kind = match fs::symlink_metadata(from) {
        Ok(found) => found.file_type(),
        // Removed meanwhile: by a start of ours only, so it was no tool's any more.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", from, &error)),
    };
    if kind.is_dir() {
        make(to)?;
        return entries(from)?.into_iter().try_for_each(|name| link(&from.join(&name), &to.join(&name)));
    }
    if kind.is_file() {
        fs::hard_link(from, to).map_err(|error| failed("link", from, &error))?;
    }
    Ok(())
}

pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> Problem {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Problem::new(ErrorCode::DiskFull, format!("cannot {what} {}: {error}", path.display()))
            .hint("free space on the disk that holds the state folder; nothing was changed");
    }
    Problem::internal(&format!("cannot {what} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_that_come_and_go_are_in_it_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tools = dir.path().join("tools");
        for tool in ["a/x/main.py", ".new-b/main.py"] {
            let file = tools.join(tool);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "1").unwrap();
        }
        let staging = Staging::make(dir.path()).unwrap();
        staging.link_tools(dir.path()).unwrap();
        fs::remove_dir_all(tools.join("a")).unwrap();
        fs::rename(tools.join(".new-b"), tools.join("b")).unwrap();
        staging.link_tools(dir.path()).unwrap();
        let linked = staging.path().join("tools");
        assert_eq!(fs::read_to_string(linked.join("a/x/main.py")).unwrap(), "1");
        assert_eq!(entries(&linked).unwrap(), ["a", "b"]);

        drop(staging);
        assert!(!folder(dir.path()).exists() && tools.join("b/main.py").exists());
        // As after a crash.
        std::mem::forget(Staging::make(dir.path()).unwrap());
        clear(dir.path());
        assert!(!folder(dir.path()).exists());
    }
}
