//! What was used within the last hour, and how soon the next one may come: the arithmetic of limits. Pure; the programs do it on
//! words that several processors change at once, user space reads the same words.
//!
//! An hour is kept in parts of five minutes, each a word: which part it is, and what was used in it. The part that is under way and
//! the twelve before it count, so that in no hour more is used than is allowed, wherever it begins. Words that are older count nothing;
//! nobody has to clear them.

/// How long a part is.
pub const PART_NS: u64 = 300 * 1_000_000_000;
/// Words. A power of two, and more than count, so that none is begun anew while it counts.
pub const WORDS: usize = 16;
/// Parts that count.
const COUNTED: u64 = 13;
const USED_BITS: u32 = 44;
/// The most that one part can hold.
pub const MAX_USED: u64 = (1 << USED_BITS) - 1;
const PART_MASK: u64 = u64::MAX >> USED_BITS;

/// The part that is under way.
#[inline(always)]
#[must_use]
pub const fn part(now_ns: u64) -> u64 {
    (now_ns / PART_NS) & PART_MASK
}

/// The part that a word is of.
#[inline(always)]
#[must_use]
pub const fn part_of(word: u64) -> u64 {
    word >> USED_BITS
}

/// A part's word with nothing used.
#[inline(always)]
#[must_use]
pub const fn begin(part: u64) -> u64 {
    part << USED_BITS
}

#[inline(always)]
const fn age(word: u64, part: u64) -> u64 {
    part.wrapping_sub(part_of(word)) & PART_MASK
}

/// How far a word is beyond the hour while `part` is under way: wrapped around below zero as long as it counts.
#[inline(always)]
#[must_use]
pub const fn beyond(word: u64, part: u64) -> u64 {
    age(word, part).wrapping_sub(COUNTED)
}

/// What a word counts. Without a branch, if the compiler leaves it so: sixteen of them are more ways than a verifier goes.
#[inline(always)]
#[must_use]
pub const fn counted(word: u64, beyond: u64) -> u64 {
    let below_zero = (beyond.cast_signed() >> 63).cast_unsigned();
    word & MAX_USED & below_zero
}

/// What all words count.
#[must_use]
pub fn used(words: &[u64; WORDS], now_ns: u64) -> u64 {
    words.iter().fold(0, |sum, &word| sum.saturating_add(counted(word, beyond(word, part(now_ns)))))
}

/// In how many ns the oldest part that has something stops to count. `None`: nothing is used.
#[must_use]
pub fn frees_in(words: &[u64; WORDS], now_ns: u64) -> Option<u64> {
    let now = part(now_ns);
    let oldest = words
        .iter()
        .filter(|&&word| counted(word, beyond(word, now)) != 0)
        .map(|&word| age(word, now))
        .max()?;
    Some((COUNTED - oldest) * PART_NS - now_ns % PART_NS)
}

/// When the next one is due after one more, if one more may come now: they come every `interval_ns`, and as many at once as
/// `burst_ns` has intervals, and one.
#[inline(always)]
#[must_use]
pub const fn admit(due_ns: u64, now_ns: u64, interval_ns: u64, burst_ns: u64) -> Option<u64> {
    let from = if due_ns > now_ns { due_ns } else { now_ns };
    if from - now_ns > burst_ns { None } else { Some(from + interval_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the programs do it, one after the other.
    fn add(words: &mut [u64; WORDS], n: u64, max: u64, now: u64) -> bool {
        if used(words, now) + n > max {
            return false;
        }
        let at = usize::try_from(part(now)).unwrap() % WORDS;
        if part_of(words[at]) != part(now) {
            words[at] = begin(part(now));
        }
        words[at] += n;
        true
    }

    const MINUTE: u64 = 60 * 1_000_000_000;

    #[test]
    fn no_hour_has_more_than_is_allowed() {
        let mut words = [0; WORDS];
        let mut given = std::vec::Vec::new();
        // Asked for without end, for half a day that begins nowhere in particular.
        for step in 0..720 {
            let now = 987_654_321_987 + step * MINUTE;
            while add(&mut words, 10, 100, now) {
                given.push(now);
            }
        }
        for (i, first) in given.iter().enumerate() {
            let within = given[i..].iter().take_while(|&&at| at - first < 60 * MINUTE).count();
            assert!(within <= 10, "{within} within the hour from {first}");
        }
        // And it does come back: ten in each 65 minutes.
        assert!(given.len() >= 110, "{}", given.len());
    }

    #[test]
    fn what_was_used_is_free_again_when_it_is_said_to_be() {
        let mut words = [0; WORDS];
        let now = 7 * PART_NS + 5;
        assert_eq!(frees_in(&words, now), None);
        assert!(add(&mut words, 7, 10, now) && add(&mut words, 3, 10, now + 2 * PART_NS));
        assert!(!add(&mut words, 1, 10, now + 3 * PART_NS));
        let then = now + 3 * PART_NS + frees_in(&words, now + 3 * PART_NS).unwrap();
        assert_eq!((used(&words, then - 1), used(&words, then)), (10, 3));
        assert_eq!(then, 20 * PART_NS);
        assert_eq!(frees_in(&words, then), Some(2 * PART_NS));
        assert_eq!(used(&words, then + 2 * PART_NS), 0);
    }

    #[test]
    fn words_of_long_ago_count_nothing() {
        let mut words = [0; WORDS];
        assert!(add(&mut words, 5, 10, 3 * PART_NS));
        assert_eq!(used(&words, (3 + 16) * PART_NS), 0);
        assert!(add(&mut words, 9, 10, (3 + 16) * PART_NS));
        assert_eq!(used(&words, (3 + 16) * PART_NS), 9);
        assert_eq!(used(&[0; WORDS], 0), 0);
    }

    #[test]
    fn a_rate_gives_its_burst_and_then_one_each_interval() {
        let (interval, burst, mut due, start) = (100, 4 * 100, 0, 10_000);
        let mut take = |now: u64| match admit(due, now, interval, burst) {
            Some(next) => {
                due = next;
                true
            }
            None => false,
        };
        assert_eq!((0..9).filter(|_| take(start)).count(), 5);
        assert!(!take(start + 99));
        assert!(take(start + 100) && !take(start + 100));
        assert_eq!((0..9).filter(|_| take(start + 10_000)).count(), 5);
    }
}
