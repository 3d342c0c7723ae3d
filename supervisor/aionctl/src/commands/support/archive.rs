//! The archive, and the file that has its name only when all of it is there.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use aion_types::ErrorCode;
use zstd::stream::write::Encoder;

use super::bundle::place;
use crate::commands::partial::{self, NotBegun};
use crate::failure::{Failure, Outcome};

/// What `zstd` takes when nobody says.
const LEVEL: i32 = 3;

/// Packs files, by their names in the bundle, as of `time` (seconds since 1970).
pub(super) fn pack<'a, W: Write>(
    out: W,
    files: impl Iterator<Item = (&'a str, &'a str)>,
    time: u64,
) -> io::Result<W> {
    let mut tar = tar::Builder::new(Encoder::new(out, LEVEL)?);
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(time);
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        tar.append_data(&mut header, place(name), text.as_bytes())?;
    }
    let mut out = tar.into_inner()?.finish()?;
    out.flush()?;
    Ok(out)
}

/// A bundle's file that is not whole yet.
pub(super) struct Partial(partial::Partial);

impl Partial {
    /// Begins beside the file that it is to become, which must not be there unless it may be written over.
    pub(super) fn begin(to: &Path, force: bool) -> Outcome<Self> {
        let suffix = format!(".partial-{}", std::process::id());
        partial::Partial::begin(to, &suffix, force).map(Self).map_err(|error| match error {
            NotBegun::Taken => taken(to),
            NotBegun::Cannot(path, error) => {
                Failure::new(1, format!("cannot make {}", path.display())).cause(&error)
            }
        })
    }

    pub(super) const fn file(&self) -> &File {
        self.0.file()
    }

    pub(super) fn failed(&self, error: &io::Error) -> Failure {
        unwritable(self.0.to(), error)
    }

    /// Gives it its name.
    pub(super) fn into_place(self) -> Outcome<()> {
        let to = self.0.to().to_owned();
        self.0.into_place().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(&to),
            _ => unwritable(&to, &error),
        })
    }
}

/// What a user is told of a bundle that could not be written.
pub(super) fn unwritable(to: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::coded(ErrorCode::DiskFull, "the disk that the bundle is written to is full")
                .exiting(1)
                .cause(error)
                .hint("nothing is left of it; write it to another disk: --out FILE")
        }
        _ => Failure::new(1, format!("cannot write {}", to.display())).cause(error),
    }
}

fn taken(to: &Path) -> Failure {
    Failure::new(1, format!("{} is there already", to.display()))
        .hint("choose another name, or write over it: --force")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made(to: &Path, force: bool, text: &str) -> Outcome<()> {
        let partial = Partial::begin(to, force)?;
        let out = pack(partial.file(), [("a/b.txt", text)].into_iter(), 1_700_000_000);
        out.map_err(|error| partial.failed(&error))?;
        partial.into_place()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_is_its_owners_and_has_what_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x.tar.zst");
        made(&to, false, "text").unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["x.tar.zst"]);
        let unpacked = zstd::stream::decode_all(File::open(&to).unwrap()).unwrap();
        let mut archive = tar::Archive::new(unpacked.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("aion-support/a/b.txt"));
        let mut text = String::new();
        io::Read::read_to_string(&mut entry, &mut text).unwrap();
        assert_eq!(text, "text");
        assert!(entries.next().is_none());
    }

    #[test]
    fn a_file_that_is_there_stays_unless_it_may_be_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x.tar.zst");
        fs::write(&to, "mine").unwrap();
        let refused = made(&to, false, "text").unwrap_err();
        assert!(refused.exit == 1 && refused.render().contains("--force"), "{}", refused.render());
        assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
        // One that comes while the bundle is made is not written over either.
        let other = dir.path().join("y.tar.zst");
        let partial = Partial::begin(&other, false).unwrap();
        fs::write(&other, "mine").unwrap();
        assert!(partial.into_place().is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        made(&to, true, "text").unwrap();
        assert_ne!(fs::read(&to).unwrap(), b"mine");
        assert_eq!(names(dir.path()).len(), 2, "nothing half is left");
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let partial = Partial::begin(&dir.path().join("x.tar.zst"), false).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(partial);
        assert!(names(dir.path()).is_empty());
    }
}
