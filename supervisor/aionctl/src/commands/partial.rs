//! A file that has its name only when all of it is there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is not whole yet. Dropped before it is in place, it is removed.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    to: PathBuf,
    over: bool,
    placed: bool,
}

/// Why it cannot be begun.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// There is a file of that name.
    Taken,
    /// The one beside it cannot be made.
    Cannot(PathBuf, io::Error),
}

impl Partial {
    /// Begins beside the file that it is to become, under that name and `suffix`. `over`: in the place of one that is there.
    pub(super) fn begin(to: &Path, suffix: &str, over: bool) -> Result<Self, NotBegun> {
        if !over && fs::symlink_metadata(to).is_ok() {
            return Err(NotBegun::Taken);
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        let path = to.with_file_name(name);
        // For nobody else to read, from its first byte on.
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match opened {
            Ok(file) => Ok(Self { file, path, to: to.to_owned(), over, placed: false }),
            Err(error) => Err(NotBegun::Cannot(path, error)),
        }
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// What it is to become.
    pub(super) fn to(&self) -> &Path {
        &self.to
    }

    /// Another name than it was begun with, in the same folder.
    pub(super) fn named(mut self, to: PathBuf) -> Self {
        self.to = to;
        self
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// `AlreadyExists` when a file of that name came meanwhile, and it is not to be in its place.
    pub(super) fn into_place(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if self.over {
            fs::rename(&self.path, &self.to)?;
        } else {
            fs::hard_link(&self.path, &self.to).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Err(error),
                // A file system without links.
                _ => fs::rename(&self.path, &self.to),
            })?;
            let _ = fs::remove_file(&self.path);
        }
        self.placed = true;
        let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn it_is_whole_or_not_there_and_over_nothing_that_it_should_not_be() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x");
        let count = || fs::read_dir(dir.path()).unwrap().count();
        drop(Partial::begin(&to, ".partial", false).unwrap());
        assert_eq!(count(), 0);
        let first = Partial::begin(&to, ".partial", false).unwrap();
        assert!(matches!(Partial::begin(&to, ".partial", false), Err(NotBegun::Cannot(..))));
        first.file().write_all(b"one").unwrap();
        let other = Partial::begin(&to, ".other", false).unwrap();
        first.into_place().unwrap();
        assert_eq!(other.into_place().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(matches!(Partial::begin(&to, ".partial", false), Err(NotBegun::Taken)));
        let over = Partial::begin(&to, ".partial", true).unwrap();
        over.file().write_all(b"two").unwrap();
        over.into_place().unwrap();
        assert_eq!((fs::read(&to).unwrap(), count()), (b"two".to_vec(), 1));
    }
}
