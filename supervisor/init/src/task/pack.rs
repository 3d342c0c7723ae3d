//! Packing a folder that an enemy may be writing to: step by step, so that output and signals do not wait for it.
//!
//! Nothing is followed and nothing waited for: entries are opened by name below their folder, without links, without blocking, on this
//! mount alone, and only then looked at. Memory is bounded by the number of entries. What changes while it is read ends the
//! packing; the next one begins anew.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::format::{Header, Kind, MAGIC, MAX_DEPTH, MAX_ENTRIES, MAX_PATH, RESERVED};

/// Copied in one step.
const PIECE: usize = 256 << 10;
/// Skipped entries that are named.
const NAMED: usize = 3;

/// Why there is no checkpoint.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The folder's fault: for the agent and its people.
    Refused(String),
    /// The disk is full or broken: it can be tried again.
    Disk,
}

/// A folder that is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) entries: u32,
    pub(crate) len: u64,
    pub(crate) sha256: [u8; 32],
    /// Entries that are neither files nor folders.
    pub(crate) skipped: Skipped,
}

/// Entries that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    pub(crate) count: u32,
    pub(crate) names: Vec<String>,
}

struct Level {
    folder: OwnedFd,
    /// Sorted, last first.
    names: Vec<Vec<u8>>,
    /// Length of the path without what is in this folder.
    path: usize,
}

struct Copy {
    file: OwnedFd,
    offset: u64,
    size: u64,
}

/// A packing under way.
pub(crate) struct Packer {
    levels: Vec<Level>,
    copy: Option<Copy>,
    path: Vec<u8>,
    max: u64,
    at: u64,
    /// Up to where the disk was asked to begin writing.
    pushed: u64,
    content: u64,
    seen: u32,
    entries: u32,
    skipped: Skipped,
    hash: Sha256,
    buffer: Vec<u8>,
}

fn below(folder: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(folder, name, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// Opens a file or folder to be read; whatever it is, this does not wait.
pub(crate) fn open(folder: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    below(folder, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
}

impl Packer {
    /// Begins. The packed bytes are at most `max`.
    pub(crate) fn new(folder: BorrowedFd<'_>, max: u64) -> Result<Self, Failed> {
        let mut packer = Self {
            levels: Vec::new(),
            copy: None,
            path: Vec::new(),
            max,
            at: 0,
            pushed: 0,
            content: 0,
            seen: 0,
            entries: 0,
            skipped: Skipped::default(),
            hash: Sha256::new(),
            buffer: vec![0; PIECE],
        };
        let folder = below(folder, b".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| Failed::Refused(format!("the folder cannot be read: {e}")))?;
        packer.enter(folder)?;
        Ok(packer)
    }

    /// Goes on for one piece; the packing when it is complete.
    pub(crate) fn step(&mut self, out: &File) -> Result<Option<Packed>, Failed> {
        if self.at == 0 {
            out.set_len(0).map_err(|_| Failed::Disk)?;
            self.write(out, &MAGIC)?;
        }
        if self.copy.is_some() {
            self.copy_piece(out)?;
            return Ok(None);
        }
        let Some(level) = self.levels.last_mut() else { return self.finish(out).map(Some) };
        let Some(name) = level.names.pop() else {
            self.path.truncate(level.path.saturating_sub(1));
            self.levels.pop();
            return Ok(None);
        };
        self.path.truncate(level.path);
        self.path.extend_from_slice(&name);
        if self.path.len() > MAX_PATH {
            return Err(Failed::Refused(format!("a path is longer than {MAX_PATH} bytes")));
        }
        let opened = open(level.folder.as_fd(), &name).and_then(|fd| fstat(&fd).map(|s| (fd, s)));
        match opened {
            Ok((fd, stat)) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => {
                    let size = u64::try_from(stat.st_size).unwrap_or(0);
                    self.fits(size)?;
                    self.header(out, Kind::File, stat.st_mode, size)?;
                    self.content += size;
                    self.copy = Some(Copy { file: fd, offset: 0, size });
                }
                FileType::Directory => {
                    self.header(out, Kind::Folder, stat.st_mode, 0)?;
                    if self.levels.len() >= MAX_DEPTH {
                        return Err(Failed::Refused(format!("more than {MAX_DEPTH} folders in each other")));
                    }
                    self.path.push(b'/');
                    self.enter(fd)?;
                }
                _ => self.skip(),
            },
            // A symbolic link, a socket, something that is gone, a file under a lease.
            Err(Errno::LOOP | Errno::NXIO | Errno::XDEV | Errno::NODEV) => self.skip(),
            Err(e) => {
                let name = String::from_utf8_lossy(&self.path).into_owned();
                return Err(Failed::Refused(format!("{name:?} cannot be read: {e}")));
            }
        }
        Ok(None)
    }

    fn skip(&mut self) {
        self.skipped.count += 1;
        if self.skipped.names.len() < NAMED {
            let name: String = String::from_utf8_lossy(&self.path).chars().take(80).collect();
            self.skipped.names.push(name);
        }
    }

    /// Lists a folder, whose path is the current one.
    fn enter(&mut self, folder: OwnedFd) -> Result<(), Failed> {
        let mut space = [MaybeUninit::<u8>::uninit(); 8 << 10];
        let mut names: Vec<Vec<u8>> = Vec::new();
        let top = self.levels.is_empty();
        let mut entries = RawDir::new(&folder, &mut space);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| Failed::Refused(format!("a folder cannot be read: {e}")))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || (top && RESERVED.contains(&name)) {
                continue;
            }
            self.seen += 1;
            if self.seen > MAX_ENTRIES {
                return Err(Failed::Refused(format!("more than {MAX_ENTRIES} files and folders")));
            }
            names.push(name.to_vec());
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let path = self.path.len();
        self.levels.push(Level { folder, names, path });
        Ok(())
    }

    fn fits(&self, more: u64) -> Result<(), Failed> {
        if self.at.saturating_add(more) <= self.max {
            return Ok(());
        }
        Err(Failed::Refused(format!("it is larger than {} bytes", self.max)))
    }

    fn header(&mut self, out: &File, kind: Kind, mode: u32, size: u64) -> Result<(), Failed> {
        self.entries += 1;
        let path = std::mem::take(&mut self.path);
        let short = u16::try_from(path.len()).unwrap_or(u16::MAX);
        let header = Header { kind, path: short, mode: mode & 0o777, size }.encode();
        let written = self.write(out, &header).and_then(|()| self.write(out, &path));
        self.path = path;
        written
    }

    fn copy_piece(&mut self, out: &File) -> Result<(), Failed> {
        let Some(copy) = &mut self.copy else { return Ok(()) };
        let want = usize::try_from(copy.size - copy.offset).unwrap_or(PIECE).min(PIECE);
        let mut got = 0;
        while got < want {
            let at = copy.offset + got as u64;
            match rustix::io::pread(&copy.file, &mut self.buffer[got..want], at) {
                Ok(0) => return Err(Failed::Refused("a file became shorter while it was read".to_owned())),
                Ok(n) => got += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(Failed::Refused(format!("a file cannot be read: {e}"))),
            }
        }
        copy.offset += want as u64;
        if copy.offset == copy.size {
            self.copy = None;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write(out, &buffer[..want]);
        self.buffer = buffer;
        written
    }

    fn write(&mut self, out: &File, bytes: &[u8]) -> Result<(), Failed> {
        self.fits(bytes.len() as u64)?;
        out.write_all_at(bytes, self.at).map_err(|_| Failed::Disk)?;
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        // The disk begins early, so that the end has less to wait for.
        const PUSH: u64 = 4 << 20;
        if self.at - self.pushed >= PUSH {
            aion_sys::disk::begin_writing(out.as_fd(), self.pushed, self.at - self.pushed);
            self.pushed = self.at;
        }
        Ok(())
    }

    fn finish(&mut self, out: &File) -> Result<Packed, Failed> {
        let end = Header { kind: Kind::End, path: 0, mode: self.entries, size: self.content };
        self.write(out, &end.encode())?;
        out.sync_data().map_err(|_| Failed::Disk)?;
        let sha256 = std::mem::take(&mut self.hash).finalize().into();
        Ok(Packed { entries: self.entries, len: self.at, sha256, skipped: std::mem::take(&mut self.skipped) })
    }
}
