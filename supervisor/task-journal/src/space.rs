//! Room on the disk: what is free, and a reserve that is really there.
//!
//! The reserve is a file whose blocks are allocated. New work needs the reserve whole and some room besides; what was
//! admitted may use everything, and when nothing else is left the file is given up for it. It comes back with the room.

use std::fs::{self, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::error::Error;
use crate::kept::Kept;
use crate::options::Options;

/// How long an answer of the file system is good, and how many bytes may be written meanwhile.
const FRESH: Duration = Duration::from_millis(20);
const FRESH_BYTES: u64 = 1 << 20;

/// Below this the log itself would fail.
const LEAST: u64 = 256 << 10;

/// What is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free bytes, without the reserve.
    pub free: u64,
    /// The reserve is there.
    pub reserve: bool,
    /// New work is admitted.
    pub admits: bool,
}

#[derive(Debug)]
struct Known {
    free: u64,
    reserve: bool,
    at: Option<Instant>,
    written: u64,
}

#[derive(Debug)]
pub(crate) struct Room {
    dir: PathBuf,
    file: PathBuf,
    reserve_bytes: u64,
    admit_bytes: u64,
    kept: Kept,
    known: Mutex<Known>,
}

impl Room {
    /// Takes the reserve, or gives it up when a start would fail without it.
    pub(crate) fn new(dir: &Path, options: &Options) -> Self {
        let Options { reserve_bytes, admit_bytes, keep_log_bytes, .. } = *options;
        let file = dir.join("reserve");
        let reserve = reserve_bytes == 0 || fs::metadata(&file).is_ok_and(|meta| meta.len() >= reserve_bytes);
        let known = Mutex::new(Known { free: 0, reserve, at: None, written: 0 });
        let kept = Kept::new(dir, keep_log_bytes);
        let room = Self { dir: dir.to_owned(), file, reserve_bytes, admit_bytes, kept, known };
        let _ = room.check(false);
        let _ = room.check(true);
        room
    }

    /// For who only reads: asks, and takes nothing.
    pub(crate) fn reader(dir: &Path) -> Self {
        let known = Mutex::new(Known { free: 0, reserve: false, at: None, written: 0 });
        let (file, kept) = (dir.join("reserve"), Kept::new(dir, 0));
        Self { dir: dir.to_owned(), file, reserve_bytes: 0, admit_bytes: 0, kept, known }
    }

    pub(crate) fn space(&self) -> Space {
        let mut known = self.lock();
        self.refresh(&mut known);
        Space {
            free: known.free,
            reserve: known.reserve,
            admits: known.reserve && known.free >= self.admit_bytes,
        }
    }

    /// Bytes that a write has used since the file system was asked.
    pub(crate) fn wrote(&self, bytes: u64) {
        let mut known = self.lock();
        known.written = known.written.saturating_add(bytes);
        known.free = known.free.saturating_sub(bytes);
        drop(known);
        self.kept.wrote(bytes);
    }

    /// What is kept of the log for an archive stays within its size.
    pub(crate) fn trim_log(&self) {
        self.kept.trim();
    }

    /// What is kept of it goes.
    pub(crate) fn give_up_log(&self, why: &'static str) {
        self.kept.give_up(why);
    }

    /// The next check asks the file system.
    pub(crate) fn forget(&self) {
        self.lock().at = None;
    }

    /// The folder is another one now: its reserve is taken.
    pub(crate) fn moved(&self) {
        let mut known = self.lock();
        known.reserve = self.reserve_bytes == 0;
        known.at = None;
        self.refresh(&mut known);
        if !known.reserve {
            self.restore(&mut known);
        }
    }

    /// Whether a write may be tried.
    pub(crate) fn check(&self, admits_work: bool) -> Result<(), Error> {
        let mut known = self.lock();
        self.refresh(&mut known);
        let needed = if admits_work { self.admit_bytes } else { LEAST.min(self.admit_bytes) };
        // What is kept for an archive is worth less than work, and than the reserve.
        let wanted = match (admits_work, known.reserve) {
            (true, true) => self.admit_bytes,
            (true, false) => self.admit_bytes.saturating_add(self.reserve_bytes),
            (false, _) => needed.max(self.admit_bytes / 4),
        };
        if known.free < wanted && self.kept.give_up("the disk runs short") {
            known.at = None;
            self.refresh(&mut known);
        }
        if admits_work && !known.reserve {
            self.restore(&mut known);
        }
        if !admits_work && known.reserve && self.reserve_bytes > 0 && known.free < self.admit_bytes / 4 {
            tracing::warn!(free = known.free, "the disk is full: the journal's reserve is given up");
            // Cutting it frees the blocks at once, and the reserve is known to be gone by its length.
            if let Ok(file) = OpenOptions::new().write(true).open(&self.file) {
                let _ = file.set_len(0);
            }
            known.reserve = false;
            known.at = None;
            self.refresh(&mut known);
        }
        if known.free < needed || (admits_work && !known.reserve) {
            // Without the reserve its room is missing, too.
            let missing = if admits_work && !known.reserve { self.reserve_bytes } else { 0 };
            return Err(Error::DiskFull { free: known.free, needed: needed.saturating_add(missing) });
        }
        Ok(())
    }

    fn restore(&self, known: &mut Known) {
        if known.free < self.reserve_bytes.saturating_add(self.admit_bytes) {
            return;
        }
        let taken = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.file)
            .and_then(|file| {
                let length = i64::try_from(self.reserve_bytes).unwrap_or(i64::MAX);
                fallocate(file.as_fd(), FallocateFlags::empty(), 0, length).map_err(std::io::Error::from)
            });
        match taken {
            Ok(()) => known.reserve = true,
            Err(error) => tracing::warn!(%error, "cannot take the journal's reserve"),
        }
        known.at = None;
        self.refresh(known);
    }

    fn refresh(&self, known: &mut Known) {
        if known.written < FRESH_BYTES && known.at.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        // A file system that does not answer is not a full one: the write itself will tell.
        known.free = nix::sys::statvfs::statvfs(&self.dir)
            .map_or(u64::MAX, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()));
        known.at = Some(Instant::now());
        known.written = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Numbers that are asked for again soon: a panicked holder left nothing that matters.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
