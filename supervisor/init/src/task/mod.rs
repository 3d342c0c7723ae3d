//! A job's task: its folder in memory, the checkpoints it commits, its result.
//!
//! The agent owns the folder and may do with it what it likes; init opens what is in it as one opens an enemy's files. What counts is
//! written to files that the launcher opened, on disk before the record in the journal that tells of it, and only then does
//! `.commit` go away. Two files take turns, so that the last complete checkpoint is never the one being written.

mod format;
mod pack;
mod restore;
mod result;
mod room;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aion_agent_journal::{Checkpoint, Exit, Kind, NoteAbout, TaskNote};
use aion_sandbox::{Job, Plan};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};
use rustix::io::Errno;

use crate::failure::Result;
use crate::journal::Journal;
use pack::{Failed, Packed, Packer};

pub(crate) use room::show_door;

const COMMIT: &str = ".commit";
const REFUSED: &str = ".refused";
/// How soon after a checkpoint the next one begins at the earliest; a quarter of the time that the last one took, if that is
/// longer. So an agent that does nothing else leaves some of the disk to others.
const REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// Pieces that are copied before output is looked at again.
const STEPS: usize = 4;
/// And after one that was refused.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);
/// How often a folder is looked at that cannot be watched.
const LOOK: Duration = Duration::from_millis(50);
/// How long a full disk is left alone.
const DISK_RETRY: Duration = Duration::from_millis(100);

/// The descriptors of a job.
pub(crate) struct Handed {
    job: Job,
    checkpoints: [File; 2],
    result: File,
    restore: Option<File>,
}

impl Handed {
    pub(crate) fn take(job: Job, fds: &mut impl Iterator<Item = OwnedFd>) -> Option<Self> {
        let mut next = || fds.next().map(File::from);
        let checkpoints = [next()?, next()?];
        let result = next()?;
        let restore = if job.restore { Some(next()?) } else { None };
        Some(Self { job, checkpoints, result, restore })
    }
}

/// A job's task.
pub(crate) struct Task {
    /// The file system.
    root: OwnedFd,
    /// The folder of the checkpoint, in it.
    folder: OwnedFd,
    watch: Option<OwnedFd>,
    checkpoints: [File; 2],
    result: File,
    max: u64,
    /// Of the last complete checkpoint; 0 before the first.
    number: u32,
    /// The record of it, and where it is in the journal.
    last: Option<(Checkpoint, u64)>,
    packing: Option<Packing>,
    /// On disk, and not yet in the journal.
    packed: Option<(Packed, bool)>,
    /// Whether `.commit` may be there.
    asked: bool,
    /// The one that could not be removed: only another counts.
    stale: Option<u64>,
    /// Not before this moment.
    rest_until: Instant,
    end: End,
}

struct Packing {
    packer: Packer,
    began: Instant,
    /// Without a `.commit`.
    at_end: bool,
}

/// How far the last words have come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Pack { at_end: bool },
    Result,
    Done,
}

impl Task {
    /// Makes the folder, unpacks the checkpoint into it, and begins to watch.
    pub(crate) fn prepare(plan: &Plan, handed: Handed) -> Result<Self> {
        let Handed { job, checkpoints, result, restore } = handed;
        let room = room::make(job.checkpoint_max, (plan.uid, plan.gid))?;
        if let Some(from) = restore {
            restore::unpack(&from, room.folder.as_fd(), (plan.uid, plan.gid), job.checkpoint_max)
                .map_err(|why| room::failed(&format!("the checkpoint cannot be restored: {why}")))?;
        }
        Ok(Self {
            root: room.root,
            folder: room.folder,
            watch: room.watch,
            checkpoints,
            result,
            max: job.checkpoint_max,
            number: 0,
            last: None,
            packing: None,
            packed: None,
            asked: false,
            stale: None,
            rest_until: Instant::now(),
            end: End::NotYet,
        })
    }

    /// The file system, for the rule that lets init work in it.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Readable when something came to be in the folder.
    pub(crate) fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Something came to be in the folder.
    pub(crate) fn look(&mut self) {
        if let Some(watch) = &self.watch {
            let mut buffer = [0; 4096];
            // What it says does not matter: there is one name that does, and it is looked up.
            let _ = rustix::io::read(watch, &mut buffer);
        }
        self.asked = true;
    }

    /// When there is work again; none: when the watch says so.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if self.packing.is_some() {
            return Some(Duration::ZERO);
        }
        let rest = self.rest_until.saturating_duration_since(Instant::now());
        if self.packed.is_some() || self.asked {
            return Some(rest);
        }
        (self.watch.is_none() || self.stale.is_some()).then_some(LOOK.max(rest))
    }

    /// Does one step of what there is to do, while the agent runs.
    pub(crate) fn work(&mut self, journal: &mut Journal) {
        self.repeat(journal);
        if self.packing.is_some() {
            for _ in 0..STEPS {
                self.step(journal);
            }
            return;
        }
        if Instant::now() < self.rest_until {
            return;
        }
        if self.packed.is_some() {
            return self.record(journal);
        }
        if !self.asked && self.stale.is_none() && self.watch.is_some() {
            return;
        }
        self.asked = false;
        match self.commit() {
            None => self.stale = None,
            Some((_, number)) if self.stale == Some(number) => {}
            Some((FileType::RegularFile, _)) => self.begin(journal, false),
            Some(_) => self.refuse(journal, ".commit is not a file"),
        }
    }

    /// Does what is left to do when all processes are gone; false when the disk does not take it now.
    pub(crate) fn finish(&mut self, journal: &mut Journal, exit: Exit) -> bool {
        self.repeat(journal);
        if self.end == End::NotYet {
            // Whatever was under way had a writer beside it.
            (self.packing, self.packed) = (None, None);
            let is_new = |number| self.stale != Some(number);
            let committed = matches!(self.commit(), Some((FileType::RegularFile, n)) if is_new(n));
            // Success needs no checkpoint, and after a signal the files may be half written.
            let in_order = exit.signal == 0 && exit.code != 0;
            self.end = if committed || in_order { End::Pack { at_end: !committed } } else { End::Result };
        }
        if let End::Pack { at_end } = self.end {
            if self.packing.is_none() && self.packed.is_none() {
                self.end = End::Result;
                self.begin(journal, at_end);
            }
            while self.packing.is_some() {
                self.step(journal);
            }
            if self.packed.is_some() {
                self.record(journal);
            }
            if self.packed.is_some() || self.asked {
                self.asked = false;
                self.end = End::Pack { at_end };
                return false;
            }
            self.end = End::Result;
        }
        if self.end == End::Result {
            // Of one that was killed it could be half a result.
            if exit.signal == 0 && !result::take(self.root.as_fd(), &self.result, journal) {
                return false;
            }
            self.end = End::Done;
        }
        true
    }

    /// What is at `.commit`, and its inode.
    fn commit(&self) -> Option<(FileType, u64)> {
        let stat = statat(&self.folder, COMMIT, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((FileType::from_raw_mode(stat.st_mode), stat.st_ino))
    }

    /// Which file does not hold the last complete checkpoint.
    fn slot(&self) -> u8 {
        u8::from(self.last.is_some_and(|(last, _)| last.file == 0))
    }

    fn begin(&mut self, journal: &mut Journal, at_end: bool) {
        match Packer::new(self.folder.as_fd(), self.max) {
            Ok(packer) => self.packing = Some(Packing { packer, began: Instant::now(), at_end }),
            Err(failed) => self.give_up(journal, failed),
        }
    }

    fn step(&mut self, journal: &mut Journal) {
        let out = &self.checkpoints[usize::from(self.slot())];
        let Some(packing) = &mut self.packing else { return };
        match packing.packer.step(out) {
            Ok(None) => {}
            Ok(Some(packed)) => {
                let (took, at_end) = (packing.began.elapsed(), packing.at_end);
                self.packing = None;
                // What never was there is no checkpoint.
                if at_end && packed.entries == 0 {
                    return;
                }
                self.packed = Some((packed, at_end));
                self.record(journal);
                self.rest_until = Instant::now() + REST.max(took / 4).min(LONGEST_REST);
            }
            Err(failed) => {
                self.packing = None;
                self.give_up(journal, failed);
            }
        }
    }

    fn give_up(&mut self, journal: &mut Journal, failed: Failed) {
        match failed {
            Failed::Refused(why) => self.refuse(journal, &why),
            Failed::Disk => {
                self.asked = true;
                self.rest_until = Instant::now() + DISK_RETRY;
            }
        }
    }

    /// Tells of the packed checkpoint, when the journal takes it.
    fn record(&mut self, journal: &mut Journal) {
        let Some((packed, at_end)) = &self.packed else { return };
        let checkpoint = Checkpoint {
            number: self.number + 1,
            file: self.slot(),
            at_end: *at_end,
            entries: packed.entries,
            len: packed.len,
            sha256: packed.sha256,
        };
        let cursor = journal.tail();
        if !journal.task(Kind::Checkpoint, &checkpoint.encode()) {
            self.rest_until = Instant::now() + DISK_RETRY;
            return;
        }
        if packed.skipped.count > 0 {
            let text = format!(
                "{} entries are neither files nor folders: {}",
                packed.skipped.count,
                packed.skipped.names.join(", ")
            );
            journal.task(Kind::TaskNote, &TaskNote { about: NoteAbout::EntriesSkipped, text }.encode());
        }
        let at_end = *at_end;
        self.packed = None;
        self.number = checkpoint.number;
        self.last = Some((checkpoint, cursor));
        if !at_end {
            journal.sync();
            self.remove(REFUSED);
            self.clear();
        }
    }

    /// The record of the last checkpoint must outlive output that pushes it out of a journal with a limit.
    fn repeat(&mut self, journal: &mut Journal) {
        let Some((last, cursor)) = &mut self.last else { return };
        if journal.head() > *cursor {
            let tail = journal.tail();
            if journal.task(Kind::Checkpoint, &last.encode()) {
                *cursor = tail;
            }
        }
    }

    /// There is no checkpoint: the agent finds why in `.refused`.
    fn refuse(&mut self, journal: &mut Journal, why: &str) {
        let text = why.to_owned();
        journal.task(Kind::TaskNote, &TaskNote { about: NoteAbout::CheckpointRefused, text }.encode());
        self.remove(REFUSED);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat2(&self.folder, REFUSED, flags, Mode::from_raw_mode(0o644), ResolveFlags::BENEATH);
        if let Ok(file) = made {
            let _ = rustix::io::write(&file, format!("{why}\n").as_bytes());
        }
        self.clear();
        self.rest_until = Instant::now() + AFTER_REFUSAL;
    }

    fn clear(&mut self) {
        let there = self.commit();
        self.stale = if self.remove(COMMIT) { None } else { there.map(|(_, number)| number) };
    }

    /// Whether a name is gone.
    fn remove(&self, name: &str) -> bool {
        match unlinkat(&self.folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(&self.folder, name, AtFlags::REMOVEDIR).is_ok(),
            Ok(()) | Err(Errno::NOENT) => true,
            Err(_) => false,
        }
    }
}
