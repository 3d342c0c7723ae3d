//! What is left to chance, from a seed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A generator of numbers (xorshift): good enough to choose moments.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// From a seed, and what it is for.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mixed = (seed ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self(mixed | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }

    /// A moment up to `limit`.
    pub(crate) fn moment(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// A seed that was not there before.
pub(crate) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) << 16 | now.as_secs() & 0xffff
}
