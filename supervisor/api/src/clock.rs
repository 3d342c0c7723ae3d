//! Wall-clock times as the records and the API have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// A duration in nanoseconds, as far as they fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// None for 0, which means that it did not happen.
pub(crate) fn timestamp(ns: u64) -> Option<Timestamp> {
    if ns == 0 {
        return None;
    }
    Some(Timestamp {
        seconds: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ns % 1_000_000_000).unwrap_or(0),
    })
}

/// A client's timestamp; what lies before 1970 is 1970.
pub(crate) fn from_timestamp(at: &Timestamp) -> u64 {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    let nanos = u64::try_from(at.nanos).unwrap_or(0).min(999_999_999);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// A client's duration; None when it is negative.
pub(crate) fn from_duration(duration: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|&n| n < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip() {
        let ns = 1_700_000_000_123_456_789;
        assert_eq!(from_timestamp(&timestamp(ns).unwrap()), ns);
        assert_eq!(timestamp(0), None);
        assert_eq!(from_timestamp(&Timestamp { seconds: -5, nanos: -1 }), 0);
        assert_eq!(from_duration(&prost_types::Duration { seconds: -1, nanos: 0 }), None);
        assert_eq!(from_duration(&prost_types::Duration { seconds: 1, nanos: 5 }), Some(Duration::new(1, 5)));
    }
}
