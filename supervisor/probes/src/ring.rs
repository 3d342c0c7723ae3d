//! The reader of records. Owned by one thread; draining is a loop over shared memory without a system call.

use std::os::fd::{AsFd, BorrowedFd};

use aion_probe_types::{Event, decode};
use aya::maps::MapData;

use crate::error::Error;
use crate::mapping::{HEADER, Mapping, Slot};
use crate::throttle::Throttle;

/// Bytes after which what was read is given back to the kernel in the middle of a drain.
const RELEASE_EVERY: usize = 64 << 10;

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
    map: MapData,
    mapping: Mapping,
    throttle: Throttle,
    wrapped: Vec<u8>,
}

impl EventRing {
    pub(crate) fn new(map: MapData, size: usize, throttle: Throttle) -> Result<Self, Error> {
        let mapping = Mapping::new(map.fd().as_fd(), size).map_err(|source| Error::Io {
            action: "map the ring buffer",
            path: "EVENTS".into(),
            source,
        })?;
        Ok(Self { map, mapping, throttle, wrapped: Vec::new() })
    }

    /// Hands every record that waits to `sink`, oldest first, then lets held-back agents go on. At most one
    /// buffer's worth, so that a storm cannot keep the caller here.
    ///
    /// # Errors
    /// Only from the map that holds back-pressure; records are never lost by an error.
    pub fn drain(&mut self, sink: &mut impl FnMut(Event<'_>)) -> Result<Drained, Error> {
        let mut done = Drained::default();
        let begin = self.mapping.consumed();
        let mut at = begin;
        let mut released = begin;
        'all: loop {
            let end = self.mapping.produced();
            if at == end || at.wrapping_sub(begin) >= self.mapping.size() {
                break;
            }
            while at != end {
                let len = match self.mapping.slot(at) {
                    Slot::Busy => break 'all,
                    Slot::Discarded(len) => len,
                    Slot::Record(len) => {
                        match self.mapping.bytes(at, len, &mut self.wrapped).map(decode) {
                            Some(Ok(event)) => {
                                done.events += 1;
                                sink(event);
                            }
                            _ => done.undecodable += 1,
                        }
                        len
                    }
                };
                at = at.wrapping_add((HEADER + len).next_multiple_of(HEADER));
                if at.wrapping_sub(released) >= RELEASE_EVERY {
                    self.mapping.release(at);
                    released = at;
                }
            }
        }
        if at != released {
            self.mapping.release(at);
        }
        done.resumed = self.throttle.resume()?;
        Ok(done)
    }

    /// How full it is now.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let used = self.mapping.produced().wrapping_sub(self.mapping.consumed());
        Pressure { used: used as u64, size: self.mapping.size() as u64 }
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}
