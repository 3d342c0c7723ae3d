//! How many requests that no door let in get a record of their own: a flood of them is counted, not written down.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records in a second.
const PER_SECOND: u32 = 20;

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

#[derive(Debug, Default)]
pub(crate) struct TurnedAway(Mutex<Window>);

impl TurnedAway {
    /// Whether this one gets a record, and how many before it got none.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *window.since.get_or_insert(now);
        if now.duration_since(since) >= Duration::from_secs(1) {
            (window.since, window.told) = (Some(now), 0);
        }
        if window.told >= PER_SECOND {
            window.untold += 1;
            return None;
        }
        window.told += 1;
        Some(std::mem::take(&mut window.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted() {
        let (window, start) = (TurnedAway::default(), Instant::now());
        let told = (0..1000).filter(|_| window.take(start).is_some()).count();
        assert_eq!(told, 20);
        assert_eq!(window.take(start + Duration::from_secs(1)), Some(980), "the next one tells of them");
        assert_eq!(window.take(start + Duration::from_secs(1)), Some(0));
    }
}
