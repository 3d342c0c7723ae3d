//! What an answer means, and when to try again: pure arithmetic.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// What becomes of an alert after an answer with this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Delivered,
    Again,
    /// It would come again: the receiver does not want it, or wants it elsewhere.
    GiveUp,
}

pub(crate) const fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        408 | 425 | 429 | 500..=599 => Verdict::Again,
        _ => Verdict::GiveUp,
    }
}

/// How much is kept, and how long is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Alerts that wait.
    pub(crate) queue: usize,
    /// Tries of one alert.
    pub(crate) tries: u32,
    /// After so many of them others go before it, while the receiver answers.
    pub(crate) insist: u32,
    /// Alerts that were so overtaken and wait to be tried again.
    pub(crate) aside: usize,
    /// All tries of one alert.
    pub(crate) within: Duration,
    /// The pause after the first try; it doubles.
    pub(crate) first: Duration,
    /// No pause is longer, also when the receiver asks for it.
    pub(crate) most: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 1000,
            tries: 10,
            insist: 3,
            aside: 100,
            within: Duration::from_secs(3600),
            first: Duration::from_secs(1),
            most: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// How long nothing is sent after so many failures in a row.
    pub(crate) fn rest(&self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let pause = doubled.min(self.most).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        asked.map_or(pause, |asked| pause.max(asked.min(self.most)))
    }

    /// The pause after so many tries, the first of them so long ago; none: enough was tried. `random` (0 to 1) chooses a point in the
    /// pause's upper half, so that hosts that failed together do not come back together.
    pub(crate) fn pause(
        &self,
        tries: u32,
        elapsed: Duration,
        asked: Option<Duration>,
        random: f64,
    ) -> Option<Duration> {
        if tries >= self.tries {
            return None;
        }
        let pause = self.rest(tries, asked, random);
        (elapsed.saturating_add(pause) <= self.within).then_some(pause)
    }
}

/// What the receiver asks for, in seconds. A date is not read: it would make the pause depend on two clocks.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status), Verdict::Delivered, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(verdict(status), Verdict::Again, "{status}");
        }
        for status in [300, 301, 302, 307, 308, 400, 401, 403, 404, 410, 413, 422] {
            assert_eq!(verdict(status), Verdict::GiveUp, "{status}");
        }
    }

    #[test]
    fn pauses_double_up_to_five_minutes_with_jitter() {
        let limits = Limits::default();
        let pause = |tries, random| limits.pause(tries, Duration::ZERO, None, random).map(|p| p.as_millis());
        assert_eq!((pause(1, 0.0), pause(1, 1.0)), (Some(500), Some(1000)));
        assert_eq!((pause(2, 0.0), pause(2, 1.0)), (Some(1000), Some(2000)));
        assert_eq!((pause(9, 0.0), pause(9, 1.0)), (Some(128_000), Some(256_000)));
        assert_eq!(pause(10, 0.0), None, "ten tries are enough");
        let patient = Limits { tries: 100, ..limits };
        assert_eq!(patient.pause(60, Duration::ZERO, None, 1.0), Some(Duration::from_secs(300)));
    }

    #[test]
    fn what_is_asked_for_counts_up_to_five_minutes_and_within_the_hour() {
        let limits = Limits::default();
        let pause = |elapsed, asked| {
            let pause = limits.pause(1, Duration::from_secs(elapsed), Some(Duration::from_secs(asked)), 1.0);
            pause.map(|pause| pause.as_secs())
        };
        assert_eq!(pause(0, 0), Some(1), "never sooner than we would");
        assert_eq!((pause(0, 7), pause(0, 86_400)), (Some(7), Some(300)));
        assert_eq!((pause(3300, 300), pause(3301, 300)), (Some(300), None));
    }

    #[test]
    fn seconds_are_read_and_dates_are_not() {
        let read = |value: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            retry_after(&headers)
        };
        assert_eq!(read(" 2 "), Some(Duration::from_secs(2)));
        assert_eq!(read("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
