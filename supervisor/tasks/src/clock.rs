//! The wall clock, in the units of the core and of the API.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::{Duration, Timestamp};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn timestamp(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// None for what lies before 1970.
pub(crate) fn from_timestamp(at: &Timestamp) -> Option<u64> {
    let seconds = u64::try_from(at.seconds).ok()?;
    let nanos = u64::try_from(at.nanos).ok().filter(|&n| n < 1_000_000_000)?;
    seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)
}

pub(crate) fn duration(ms: u64) -> Duration {
    Duration {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// None for one that is negative; a part of a millisecond counts as a whole one.
pub(crate) fn from_duration(length: &Duration) -> Option<u64> {
    let seconds = u64::try_from(length.seconds).ok()?;
    let nanos = u64::try_from(length.nanos).ok().filter(|&n| n < 1_000_000_000)?;
    seconds.checked_mul(1000)?.checked_add(nanos.div_ceil(1_000_000))
}
