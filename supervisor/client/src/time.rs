//! Between the API's times and nanoseconds since 1970.

use std::time::Duration;

use prost_types::Timestamp;

const NS: i128 = 1_000_000_000;

/// An API time from nanoseconds since 1970.
#[must_use]
pub fn timestamp(ns: i128) -> Timestamp {
    let seconds = i64::try_from(ns.div_euclid(NS)).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ns.rem_euclid(NS)).unwrap_or(0);
    Timestamp { seconds, nanos }
}

/// Nanoseconds since 1970 from an API time.
#[must_use]
pub fn timestamp_ns(time: &Timestamp) -> i128 {
    i128::from(time.seconds) * NS + i128::from(time.nanos)
}

/// An API duration; what does not fit becomes the longest there is.
#[must_use]
pub fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip_before_and_after_1970() {
        for ns in [0, 1, -1, 1_700_000_000_123_456_789, -1_500_000_000] {
            assert_eq!(timestamp_ns(&timestamp(ns)), ns);
        }
    }
}
