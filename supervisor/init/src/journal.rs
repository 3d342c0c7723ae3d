//! The journal as init writes it: output with backpressure, counts of denied calls, the exit.
//!
//! A record that does not fit on the disk is kept and tried again; until it is written, no output is
//! read, so the agent waits and no byte is lost.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use aion_agent_journal::{DeniedCall, Exit, Kind, MAX_PAYLOAD, Space, Writer};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

#[derive(Debug)]
pub(crate) struct KernelSpace;

impl Space for KernelSpace {
    fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(file, FallocateFlags::KEEP_SIZE, offset, len)?)
    }
    fn punch(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        Ok(fallocate(file, FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE, offset, len)?)
    }
}

pub(crate) struct Journal {
    writer: Writer<KernelSpace>,
    /// In the writer's buffer, not on the disk.
    pending: Option<(Kind, usize, u64)>,
}

/// What reading an output gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Some,
    /// Nothing more will come.
    End,
}

impl Journal {
    pub(crate) fn open(
        file: OwnedFd,
        limit: u64,
        incarnation: u32,
    ) -> Result<Self, aion_agent_journal::Error> {
        let writer = Writer::open(File::from(file), KernelSpace, limit, incarnation, now())?;
        Ok(Self { writer, pending: None })
    }

    /// Whether a record waits for space.
    pub(crate) fn is_blocked(&self) -> bool {
        self.pending.is_some()
    }

    /// Tries the waiting record again.
    pub(crate) fn retry(&mut self) {
        if let Some((kind, len, time)) = self.pending
            && self.writer.commit(kind, 0, time, len).is_ok()
        {
            self.pending = None;
        }
    }

    /// Moves what there is from an output to the journal. Not while a record waits.
    pub(crate) fn take(&mut self, from: BorrowedFd<'_>, kind: Kind) -> Read {
        match rustix::io::read(from, &mut self.writer.payload_mut()[..MAX_PAYLOAD]) {
            Ok(0) => Read::End,
            Ok(len) => {
                self.pending = Some((kind, len, now()));
                self.retry();
                Read::Some
            }
            Err(Errno::INTR | Errno::AGAIN) => Read::Some,
            // A terminal whose last slave is closed says EIO.
            Err(_) => Read::End,
        }
    }

    /// Appends a count of denied calls; false when it could not be written now.
    pub(crate) fn denied(&mut self, call: DeniedCall) -> bool {
        self.pending.is_none() && self.writer.append(Kind::Denied, 0, now(), &call.encode()).is_ok()
    }

    /// Appends a record about a task; false when it could not be written now.
    pub(crate) fn task(&mut self, kind: Kind, payload: &[u8]) -> bool {
        self.pending.is_none() && self.writer.append(kind, 0, now(), payload).is_ok()
    }

    /// What is written survives a power cut.
    pub(crate) fn sync(&self) -> bool {
        self.writer.sync().is_ok()
    }

    /// Where the oldest kept record begins.
    pub(crate) fn head(&self) -> u64 {
        self.writer.head()
    }

    /// Where the next record will begin.
    pub(crate) fn tail(&self) -> u64 {
        self.writer.tail()
    }

    /// Appends the exit. There is room for it on a full disk.
    pub(crate) fn finish(self, exit: Exit) {
        // Nobody is left to tell; the launcher knows the exit code from us as well.
        let _ = self.writer.finish(exit, now());
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
