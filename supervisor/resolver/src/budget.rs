//! How many questions an agent may have answered: names below an allowed domain are words to whoever serves it, so there
//! are not many of them in a second.

use std::time::Instant;

use aion_types::Bucket;

const BURST: u32 = 200;
const A_SECOND: u32 = 50;

/// Questions that may go on.
#[derive(Debug)]
pub(crate) struct Budget {
    bucket: Bucket,
    since: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bucket: Bucket::new(A_SECOND, BURST, 0), since: now }
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let ms = now.saturating_duration_since(self.since).as_millis();
        self.bucket.take(u64::try_from(ms).unwrap_or(u64::MAX)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_so_many_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..300).filter(|_| budget.take(start)).count(), 200);
        assert_eq!((0..300).filter(|_| budget.take(start + Duration::from_secs(2))).count(), 100);
    }
}
