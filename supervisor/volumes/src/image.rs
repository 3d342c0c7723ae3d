//! Images: one template for each size, and sparse copies of it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::{Error, OWNER, Result};

/// ext4 with a journal does not fit into less.
pub(crate) const MIN_BYTES: u64 = 16 << 20;
pub(crate) const MAX_BYTES: u64 = 16 << 40;
const BLOCK: u64 = 4096;
/// How long the kernel may take to unmount.
const DETACH_PATIENCE: Duration = Duration::from_secs(10);

/// Checks a size and rounds it down to whole blocks.
pub(crate) fn checked_size(bytes: u64) -> Result<u64> {
    if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
        return Err(Error::Size { bytes, min: MIN_BYTES, max: MAX_BYTES });
    }
    Ok(bytes / BLOCK * BLOCK)
}

/// The template of a size; made when it is the first of its size.
pub(crate) fn template(folder: &Path, bytes: u64) -> Result<PathBuf> {
    let path = folder.join(format!("template-{bytes}"));
    if path.exists() {
        return Ok(path);
    }
    let draft = folder.join(format!("draft-{bytes}-{}", std::process::id()));
    let file = create(&draft)?;
    file.set_len(bytes).map_err(|source| Error::File { action: "size", path: draft.clone(), source })?;
    drop(file);
    let made = format(&draft).and_then(|()| {
        fs::rename(&draft, &path).map_err(|source| Error::File { action: "name", path: path.clone(), source })
    });
    if made.is_err() {
        // It is the failure above that matters.
        let _ = fs::remove_file(&draft);
    }
    made.map(|()| path)
}

fn format(image: &Path) -> Result<()> {
    // A small journal, nothing reserved for root; inode tables are zeroed when they are used first, which a sparse
    // file gives for nothing.
    let extended = format!("root_owner={OWNER}:{OWNER},lazy_itable_init=1,lazy_journal_init=1,nodiscard");
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-J", "size=4", "-O", "^resize_inode", "-E", &extended])
        .arg(image)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .map_err(|error| Error::Format { message: error.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Format { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A copy with the holes left as holes: some hundred kilobytes are written whatever the size.
pub(crate) fn copy(template: &Path, path: &Path) -> Result<File> {
    let failed = |action, path: &Path, source: Errno| Error::File {
        action,
        path: path.to_owned(),
        source: source.into(),
    };
    let from = File::open(template).map_err(|source| Error::File {
        action: "open",
        path: template.to_owned(),
        source,
    })?;
    let size = from
        .metadata()
        .map_err(|source| Error::File { action: "look at", path: template.to_owned(), source })?
        .len();
    let to = create(path)?;
    to.set_len(size).map_err(|source| Error::File { action: "size", path: path.to_owned(), source })?;
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(&from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(to),
            Err(error) => return Err(failed("read", template, error)),
        };
        let end = rustix::fs::seek(&from, SeekFrom::Hole(start))
            .map_err(|error| failed("read", template, error))?;
        let (mut read_at, mut write_at) = (start, start);
        while read_at < end {
            let left = usize::try_from(end - read_at).unwrap_or(usize::MAX);
            let copied =
                rustix::fs::copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), left)
                    .map_err(|error| failed("write", path, error))?;
            if copied == 0 {
                return Err(failed("read", template, Errno::IO));
            }
        }
        at = end;
    }
}

/// Waits until no loop device holds an image: the kernel may still be unmounting it for an agent that has just ended,
/// and two file systems on one image would destroy it.
pub(crate) fn await_detached(path: &Path) -> Result<()> {
    let begun = Instant::now();
    while is_attached(path) {
        if begun.elapsed() > DETACH_PATIENCE {
            let source = io::Error::from(io::ErrorKind::ResourceBusy);
            return Err(Error::File { action: "mount again", path: path.to_owned(), source });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn is_attached(path: &Path) -> bool {
    let holds = |device: fs::DirEntry| {
        let text = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        Path::new(text.trim_end_matches('\n')) == path
    };
    fs::read_dir("/sys/block").into_iter().flatten().flatten().any(holds)
}

/// What an image takes of the disk.
pub(crate) fn used(path: &Path) -> Result<u64> {
    let found = fs::metadata(path).map_err(|source| Error::File {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    Ok(found.blocks() * 512)
}

/// A new file that only root can read.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| Error::File { action: "make", path: path.to_owned(), source })
}

pub(crate) fn open(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(path)
        .map_err(|source| Error::File { action: "open", path: path.to_owned(), source })
}

pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
