//! The last system calls of a thread as one number, and where an agent's table has it: the arithmetic of n-grams. Pure; the programs
//! do it with each call that they count, user space reads and writes the same words.
//!
//! A gram is [`CALLS`] calls of ten bits each, the newest lowest: the call's place among the counters and one more, so that 0 is no call.
//! A table is [`BUCKETS`] buckets of [`WAYS`] words, and a tally. A gram has two buckets: it is in the first, or in the second when the
//! first was full. Words fill in order and are never taken back, so that a bucket is full when its last word is taken.

use crate::layout;

/// Calls of a gram: six, as those who first looked at system calls so found to be enough.
pub const CALLS: u32 = 6;
const BITS: u32 = 10;
const CALL: u64 = (1 << BITS) - 1;
const ALL: u64 = (1 << (CALLS * BITS)) - 1;
/// Words of a bucket: a line of the processor's cache.
pub const WAYS: usize = 8;
/// Buckets of a table.
pub const BUCKETS: u32 = 1 << BUCKET_BITS;
const BUCKET_BITS: u32 = 9;
/// Grams that a table holds at most.
pub const CAPACITY: u32 = BUCKETS * 8;
/// The entry after the buckets: in its first word how many grams there are, in its second how often one found no room.
pub const TALLY: u32 = BUCKETS;
/// Entries of a table.
pub const ENTRIES: u32 = BUCKETS + 1;
/// Threads whose last calls are known at once (an index by thread id).
pub const WINDOWS: u32 = 65536;

const _: () = assert!(layout::SYSCALLS as u64 <= CALL, "a call and one more fit");
const _: () = assert!(CALLS * BITS < 64 && CAPACITY as usize == BUCKETS as usize * WAYS);

/// Element of `WINDOWS`: the last calls of a thread.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// The agent's cgroup and the thread, see [`owner`].
    pub owner: u64,
    /// Its last calls, as a gram that may not be whole yet.
    pub calls: u64,
}

const _: () = assert!(core::mem::size_of::<Window>() == 16);

/// Whose window it is. Of the cgroup's id, which counts up, the lower half is enough.
#[inline(always)]
#[must_use]
pub fn owner(cgroup: u64, tid: u32) -> u64 {
    cgroup << 32 | u64::from(tid)
}

/// The last calls after one more; `place` is that of its counter.
#[inline(always)]
#[must_use]
pub fn push(calls: u64, place: u32) -> u64 {
    (calls << BITS | (u64::from(place) + 1) & CALL) & ALL
}

/// Whether there have been enough calls for a gram.
#[inline(always)]
#[must_use]
pub const fn is_whole(calls: u64) -> bool {
    calls >> ((CALLS - 1) * BITS) != 0
}

/// The two buckets of a gram.
#[inline(always)]
#[must_use]
pub const fn buckets(gram: u64) -> (u64, u64) {
    // The golden ratio's fraction: neighbours lie far apart. Folded before, so that the oldest call counts in both.
    let hash = (gram ^ gram >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (64 - BUCKET_BITS), hash >> (64 - 2 * BUCKET_BITS) & ((1 << BUCKET_BITS) - 1))
}

/// The highest bit is set when the two differ. See [`bit`].
#[inline(always)]
#[must_use]
pub const fn differs(word: u64, gram: u64) -> u64 {
    let off = word ^ gram;
    off | off.wrapping_neg()
}

/// The highest bit alone. Without a branch, if the compiler knows nothing of the number.
#[inline(always)]
#[must_use]
pub const fn bit(number: u64) -> u64 {
    number >> 63
}

/// Whether a word is what [`push`] makes of [`CALLS`] calls.
#[must_use]
pub fn is_gram(word: u64) -> bool {
    let places = 1..=u64::from(layout::SYSCALLS);
    word & !ALL == 0 && (0..CALLS).all(|at| places.contains(&(word >> (at * BITS) & CALL)))
}

/// What became of a gram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It was there.
    Known,
    /// It is now.
    New,
    /// Both of its buckets are full.
    NoRoom,
}

/// Looks a gram up, and puts it in its place when it is missing; as the programs do it. A slice that is too short has no room.
pub fn place(table: &mut [[u64; WAYS]], gram: u64) -> Placed {
    let (one, two) = buckets(gram);
    for at in [one, two] {
        let Ok(at) = usize::try_from(at) else { continue };
        let Some(bucket) = table.get_mut(at) else { continue };
        for word in bucket {
            if *word == gram {
                return Placed::Known;
            }
            if *word == 0 {
                *word = gram;
                return Placed::New;
            }
        }
    }
    Placed::NoRoom
}
