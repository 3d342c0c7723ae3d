//! When to try again: pure arithmetic.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// The wait before the retry of this number (from 0): a doubling ceiling, and a random point (0 to 1) in its upper half,
/// so that callers who failed together do not come back together.
pub(crate) fn backoff(base: Duration, max: Duration, retry: u32, random: f64) -> Duration {
    let ceiling = base.saturating_mul(2_u32.saturating_pow(retry)).min(max);
    ceiling.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// What the backend asks for: OpenAI's `retry-after-ms`, or `Retry-After` in seconds. A date is not read: it would
/// make the wait depend on two clocks.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    number("retry-after-ms")
        .map(Duration::from_millis)
        .or_else(|| number("retry-after").map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit_with_jitter() {
        let wait = |retry, random| {
            backoff(Duration::from_millis(100), Duration::from_millis(500), retry, random).as_millis()
        };
        assert_eq!((wait(0, 0.0), wait(0, 1.0)), (50, 100));
        assert_eq!((wait(2, 0.0), wait(2, 1.0)), (200, 400));
        assert_eq!((wait(3, 0.0), wait(60, 1.0)), (250, 500));
    }

    #[test]
    fn reads_what_the_backend_asks() {
        let read = |name: &'static str, value: &'static str| {
            retry_after(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        assert_eq!(read("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(read("retry-after-ms", "30"), Some(Duration::from_millis(30)));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
