//! Points in time: as users write them, as RFC 3339, and as "3 minutes ago".

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aion_client::{timestamp, timestamp_ns};

/// A point in time, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) i128);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |ns| -ns),
        })
    }

    /// From the API; its zero means "not yet".
    pub(crate) fn from_api(time: Option<&prost_types::Timestamp>) -> Option<Self> {
        time.map(|time| Self(timestamp_ns(time))).filter(|moment| moment.0 != 0)
    }

    pub(crate) fn to_api(self) -> prost_types::Timestamp {
        timestamp(self.0)
    }

    /// RFC 3339 in UTC with nanoseconds.
    pub(crate) fn rfc3339(self) -> String {
        // The formatter's range: 1970 to 9999.
        let ns = u64::try_from(self.0.clamp(0, 253_402_300_799_000_000_000) / 1_000_000_000).unwrap_or(0);
        let sub = u32::try_from(self.0.rem_euclid(1_000_000_000)).unwrap_or(0);
        humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::new(ns, sub)).to_string()
    }

    /// `3 minutes` between this and `now`.
    pub(crate) fn age(self, now: Self) -> String {
        words(Duration::from_nanos(u64::try_from(now.0.saturating_sub(self.0).max(0)).unwrap_or(u64::MAX)))
    }
}

impl FromStr for Moment {
    type Err = String;

    /// `10m` (ago), `1700000000` (seconds since 1970), `2026-01-31`, `2026-01-31T12:00:00Z`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "write a time as 10m (ago), 2026-01-31T12:00:00Z, 2026-01-31 or seconds since 1970".to_owned();
        if let Ok(seconds) = text.parse::<u64>() {
            return Ok(Self(i128::from(seconds) * 1_000_000_000));
        }
        if let Ok(ago) = humantime::parse_duration(text) {
            let ago = i128::try_from(ago.as_nanos()).map_err(|_| wrong())?;
            return Ok(Self(Self::now().0 - ago));
        }
        let day = (text.len() == 10).then(|| format!("{text}T00:00:00Z"));
        let time = humantime::parse_rfc3339_weak(day.as_deref().unwrap_or(text)).map_err(|_| wrong())?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
        i128::try_from(since.as_nanos()).map(Self).map_err(|_| wrong())
    }
}

/// A point in time that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(pub(crate) Moment);

impl FromStr for Deadline {
    type Err = String;

    /// `10m` (from now), `1700000000` (seconds since 1970), `2026-01-31`, `2026-01-31T12:00:00Z`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write a time as 10m (from now), 2026-01-31T12:00:00Z, 2026-01-31 or seconds since 1970"
                .to_owned()
        };
        if text.parse::<u64>().is_err()
            && let Ok(length) = humantime::parse_duration(text.strip_prefix('+').unwrap_or(text))
        {
            let length = i128::try_from(length.as_nanos()).map_err(|_| wrong())?;
            return Ok(Self(Moment(Moment::now().0.saturating_add(length))));
        }
        text.parse::<Moment>().map(Self).map_err(|_| wrong())
    }
}

/// A length of time in the words that people use.
pub(crate) fn words(length: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = length.as_secs();
    let (count, unit) = match seconds {
        0 => return "less than a second".to_owned(),
        s if s < 2 * MINUTE => (s, "second"),
        s if s < 2 * HOUR => (s / MINUTE, "minute"),
        s if s < 2 * DAY => (s / HOUR, "hour"),
        s if s < 60 * DAY => (s / DAY, "day"),
        s if s < 730 * DAY => (s / (30 * DAY), "month"),
        s => (s / (365 * DAY), "year"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_write_times_in_many_ways() {
        assert_eq!("1700000000".parse(), Ok(Moment(1_700_000_000_000_000_000)));
        assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(Moment(1_700_000_000_000_000_000)));
        assert_eq!("2023-11-14T22:13:20.5Z".parse(), Ok(Moment(1_700_000_000_500_000_000)));
        assert_eq!("1970-01-02".parse(), Ok(Moment(86_400_000_000_000)));
        let hour_ago = "1h".parse::<Moment>().expect("a length").0;
        assert!((Moment::now().0 - hour_ago - 3_600_000_000_000).abs() < 5_000_000_000);
        for bad in ["", "soon", "2023-13-01", "10 parsecs"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn times_print_with_nanoseconds() {
        assert_eq!(Moment(1_700_000_000_000_000_007).rfc3339(), "2023-11-14T22:13:20.000000007Z");
        assert_eq!(Moment(-5).rfc3339().len(), 30);
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (0, "less than a second"),
            (1, "1 second"),
            (90, "90 seconds"),
            (150, "2 minutes"),
            (3 * 3600, "3 hours"),
            (50 * 3600, "2 days"),
            (90 * 86400, "3 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
