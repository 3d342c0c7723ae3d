//! Ranges of user ids: each slot has one to itself, as long as its group is there.
//!
//! What the table and the kernel hold decides what is taken: a new launcher marks the ranges of all adopted
//! agents, and has removed every other slot before it gives out the first.

use std::collections::BTreeSet;

/// Ids in a range.
const SIZE: u32 = 0x1_0000;
/// Above what distributions and container tools hand out.
const FIRST: u32 = 0x6000_0000;
/// Ids with the highest bit set are trouble for programs that think them negative.
const END: u32 = 0x8000_0000;

/// Gives out ranges.
#[derive(Debug)]
pub struct UidRanges {
    next: u32,
    /// Given back. The lowest goes first: mounts for it may still be cached.
    free: BTreeSet<u32>,
    taken: BTreeSet<u32>,
}

impl Default for UidRanges {
    fn default() -> Self {
        Self::new()
    }
}

impl UidRanges {
    /// All free.
    #[must_use]
    pub fn new() -> Self {
        Self { next: FIRST, free: BTreeSet::new(), taken: BTreeSet::new() }
    }

    /// A range that nobody else has; `None` when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(base) = self.free.pop_first() {
            self.taken.insert(base);
            return Some(base);
        }
        while self.next < END {
            let base = self.next;
            self.next += SIZE;
            if self.taken.insert(base) {
                return Some(base);
            }
        }
        None
    }

    /// Marks the range of an adopted agent. False when it is not one of ours or another agent has it.
    pub fn mark(&mut self, base: u32) -> bool {
        let ours = (FIRST..END).contains(&base) && (base - FIRST).is_multiple_of(SIZE);
        if !ours {
            return false;
        }
        self.free.remove(&base);
        self.taken.insert(base)
    }

    /// Gives a range back: its group is gone, and every process and mount with it.
    pub fn give_back(&mut self, base: u32) {
        if self.taken.remove(&base) && base < self.next {
            self.free.insert(base);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_do_not_overlap_and_come_back() {
        let mut ranges = UidRanges::new();
        let (a, b) = (ranges.take().unwrap(), ranges.take().unwrap());
        assert_eq!((a, b), (FIRST, FIRST + SIZE));
        ranges.give_back(a);
        assert_eq!(ranges.take(), Some(a));
    }

    #[test]
    fn adopted_ranges_are_skipped() {
        let mut ranges = UidRanges::new();
        assert!(ranges.mark(FIRST));
        assert!(!ranges.mark(FIRST));
        assert!(!ranges.mark(FIRST + 1));
        assert!(!ranges.mark(0));
        assert_eq!(ranges.take(), Some(FIRST + SIZE));
        ranges.give_back(FIRST);
        assert_eq!(ranges.take(), Some(FIRST));
    }

    #[test]
    fn they_end() {
        let mut ranges = UidRanges::new();
        let mut count = 0;
        while ranges.take().is_some() {
            count += 1;
        }
        assert_eq!(count, 8192);
    }

    proptest! {
        #[test]
        fn none_is_given_out_twice(steps: Vec<(u8, u8)>) {
            let (mut ranges, mut held) = (UidRanges::new(), Vec::new());
            for (step, at) in steps {
                match step % 3 {
                    0 => if let Some(base) = ranges.take() {
                        prop_assert!(!held.contains(&base));
                        held.push(base);
                    },
                    1 if !held.is_empty() => {
                        let base = held.swap_remove(usize::from(at) % held.len());
                        ranges.give_back(base);
                    }
                    _ => {
                        let base = FIRST + u32::from(at) * SIZE;
                        prop_assert_eq!(ranges.mark(base), !held.contains(&base));
                        if !held.contains(&base) {
                            held.push(base);
                        }
                    }
                }
            }
        }
    }
}
