//! What is kept of RocksDB's log for an archive after tables have what is in it: the folder `archive` beside the log.
//!
//! RocksDB moves files there and looks at their size every ten minutes. Here they are kept within it all the time, and are given up at once
//! when the disk runs short: an archive has a gap then, which its next backup closes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// It is looked after so many bytes that were written.
const LOOK: u64 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    most: u64,
    written: AtomicU64,
}

impl Kept {
    pub(crate) fn new(journal: &Path, most: u64) -> Self {
        Self { folder: journal.join("archive"), most, written: AtomicU64::new(0) }
    }

    /// Bytes that went into the log.
    pub(crate) fn wrote(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if written >= LOOK {
            self.written.store(0, Ordering::Relaxed);
            self.trim();
        }
    }

    /// Removes the oldest of what is too much.
    pub(crate) fn trim(&self) {
        let mut files = self.files();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort_unstable();
        for (_, length, path) in files {
            if total <= self.most {
                return;
            }
            remove(&path);
            total -= length;
        }
    }

    /// Removes all of it; whether there was any.
    pub(crate) fn give_up(&self, why: &'static str) -> bool {
        let files = self.files();
        let any = files.iter().any(|(_, length, _)| *length > 0);
        if any {
            tracing::warn!(
                why,
                "what was kept of the journal's log for an archive is given up; a new backup closes its gap"
            );
        }
        files.iter().for_each(|(.., path)| remove(path));
        any
    }

    /// Number, length and path of each file.
    fn files(&self) -> Vec<(u64, u64, PathBuf)> {
        let found = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let file = |entry: fs::DirEntry| {
            let path = entry.path();
            let number = path.file_name()?.to_str()?.strip_suffix(".log")?.parse::<u64>().ok()?;
            Some((number, entry.metadata().ok()?.len(), path))
        };
        found.filter_map(file).collect()
    }
}

fn remove(path: &Path) {
    // RocksDB may have been first.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove an old log of the journal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_all_when_room_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path(), 250);
        assert!(!kept.give_up("test"), "there is no folder");
        let folder = dir.path().join("archive");
        fs::create_dir(&folder).unwrap();
        for number in [9, 10, 11] {
            fs::write(folder.join(format!("{number:06}.log")), vec![0; 100]).unwrap();
        }
        fs::write(folder.join("note"), vec![0; 1000]).unwrap();
        let names = || {
            let mut names: Vec<_> = kept.files().into_iter().map(|(number, ..)| number).collect();
            names.sort_unstable();
            names
        };
        kept.trim();
        assert_eq!(names(), [10, 11]);
        kept.wrote(LOOK);
        assert_eq!(names(), [10, 11]);
        assert!(kept.give_up("test"));
        assert!(names().is_empty() && folder.join("note").exists());
    }
}
