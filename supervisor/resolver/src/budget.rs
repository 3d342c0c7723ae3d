//! How many questions an agent may have answered: names below an allowed domain are words to whoever serves it, so there
//! are not many of them in a second.

use std::time::Instant;

const BURST: f64 = 200.0;
const A_SECOND: f64 = 50.0;

/// Questions that may go on.
#[derive(Debug)]
pub(crate) struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, at: now }
    }

    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.left = (self.left + now.saturating_duration_since(self.at).as_secs_f64() * A_SECOND).min(BURST);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
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
