//! The ring buffer's memory: positions and data, shared with the kernel. The only unsafe code of the crate.
//!
//! Layout, from the kernel's `bpf/ringbuf.c`: a page that the reader writes (its position), a page that the
//! kernel writes (its position), then the data. The data is mapped once, not twice as the kernel offers:
//! each page counts as resident memory of the launcher. A record that wraps around is copied.
#![expect(unsafe_code, reason = "shared memory with the kernel")]

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

/// The record is being written.
const BUSY: u32 = 1 << 31;
/// The record was given up by its writer.
const DISCARD: u32 = 1 << 30;
/// Bytes before a record's data.
pub(crate) const HEADER: usize = 8;

#[derive(Debug)]
struct Map {
    at: NonNull<c_void>,
    len: usize,
}

impl Map {
    fn new(fd: BorrowedFd<'_>, len: usize, offset: usize, prot: ProtFlags) -> io::Result<Self> {
        let size = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = offset.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is replaced.
        let at = unsafe { mmap(None, size, prot, MapFlags::MAP_SHARED, fd, offset) }?;
        Ok(Self { at, len })
    }

    /// The word at the beginning of the page, a position.
    fn position(&self) -> &AtomicUsize {
        // SAFETY: the mapping is at least a page, page-aligned, and lives as long as `self`; the kernel
        // accesses the word atomically too.
        unsafe { self.at.cast::<AtomicUsize>().as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; nothing borrows it any more.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}

// SAFETY: the mappings are plain shared memory, not tied to a thread; one reader at a time is ensured by `&mut` in
// EventRing.
unsafe impl Send for Map {}
// SAFETY: through `&Map` only atomics are accessed.
unsafe impl Sync for Map {}

fn page_size() -> io::Result<usize> {
    sysconf(SysconfVar::PAGE_SIZE)?
        .and_then(|size| usize::try_from(size).ok())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// What stands at a position.
pub(crate) enum Slot {
    /// Nothing complete yet.
    Busy,
    /// A record that was given up: skip so many bytes of data.
    Discarded(usize),
    /// A record with so many bytes of data.
    Record(usize),
}

/// The three parts of the ring buffer.
#[derive(Debug)]
pub(crate) struct Mapping {
    consumer: Map,
    producer: Map,
    page: usize,
    size: usize,
}

impl Mapping {
    pub(crate) fn new(fd: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = page_size()?;
        if !size.is_power_of_two() || size < page {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let consumer = Map::new(fd, page, 0, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let producer = Map::new(fd, page + size, page, ProtFlags::PROT_READ)?;
        Ok(Self { consumer, producer, page, size })
    }

    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// How far the kernel has written.
    pub(crate) fn produced(&self) -> usize {
        // Pairs with the kernel's store-release after it wrote the record's header.
        self.producer.position().load(Ordering::Acquire)
    }

    /// How far the reader has read.
    pub(crate) fn consumed(&self) -> usize {
        self.consumer.position().load(Ordering::Acquire)
    }

    /// Gives everything before `to` back to the kernel.
    pub(crate) fn release(&mut self, to: usize) {
        self.consumer.position().store(to, Ordering::Release);
    }

    fn data(&self) -> NonNull<u8> {
        // SAFETY: the mapping is `page + size` bytes long.
        unsafe { self.producer.at.cast::<u8>().add(self.page) }
    }

    /// What stands at position `at`, which must lie between consumed and produced.
    pub(crate) fn slot(&self, at: usize) -> Slot {
        let offset = at & (self.size - 1) & !(HEADER - 1);
        // SAFETY: `offset` is a multiple of 8 below `size`, so a whole header lies inside the mapping.
        let header = unsafe { self.data().add(offset) };
        // SAFETY: aligned to 8 and mapped; the kernel accesses the word atomically too.
        let header = unsafe { header.cast::<AtomicU32>().as_ref() }.load(Ordering::Acquire);
        let len = (header & !(BUSY | DISCARD)) as usize;
        if header & BUSY != 0 {
            Slot::Busy
        } else if header & DISCARD != 0 {
            Slot::Discarded(len)
        } else {
            Slot::Record(len)
        }
    }

    /// The `len` bytes of data of the record at `at`; copied to `wrapped` when they go around the end. None
    /// when they cannot fit, which only a broken kernel could cause.
    pub(crate) fn bytes<'a>(&'a self, at: usize, len: usize, wrapped: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if len > self.size {
            return None;
        }
        let offset = at.wrapping_add(HEADER) & (self.size - 1);
        let first = len.min(self.size - offset);
        let data = self.data();
        // SAFETY: `offset` is below `size`.
        let from = unsafe { data.add(offset) };
        // SAFETY: `offset + first <= size`, mapped; the kernel does not touch a committed record before it
        // is released, and `release` needs `&mut self`.
        let head = unsafe { std::slice::from_raw_parts(from.as_ptr(), first) };
        if first == len {
            return Some(head);
        }
        // SAFETY: `len - first` bytes from the beginning of the data, fewer than `size`; as above.
        let tail = unsafe { std::slice::from_raw_parts(data.as_ptr(), len - first) };
        wrapped.clear();
        wrapped.extend_from_slice(head);
        wrapped.extend_from_slice(tail);
        Some(wrapped)
    }
}
