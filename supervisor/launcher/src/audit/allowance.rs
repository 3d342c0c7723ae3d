//! How much aiond may add to the audit log: a flood would fill the disk and push what it did out of what is kept.
//!
//! Each connection has a rate of records, and all together one of bytes. What is refused is counted, and the count is a
//! record.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aion_types::ErrorCode;
use serde_json::json;

use crate::Failure;
use crate::audit::{AuditLog, Entry};
use crate::lock::lock;

/// Seconds of the rate that may come at once: what aiond has kept while the launcher was away comes so.
const BURST_SECONDS: f64 = 10.0;
/// All connections together, in a second: some 7,000 calls of the kernel API, of which many share a record. 8 GiB last two hours at this.
const BYTES: f64 = 1024.0 * 1024.0;
const BURST_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
/// What the log adds to a record.
const OVERHEAD: usize = 256;
/// Refusals are told once in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Tokens that come at a rate, up to a number.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    most: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: f64, most: f64, now: Instant) -> Self {
        Self { rate, most, tokens: most, at: now }
    }

    /// How long until there are so many.
    fn wait(&mut self, count: f64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.most);
        self.at = now;
        let missing = count.min(self.most) - self.tokens;
        if missing <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(missing / self.rate) }
    }
}

/// What all connections share.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Bucket>>);

impl Default for Shared {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Bucket::new(BYTES, BURST_BYTES, Instant::now()))))
    }
}

/// One connection's allowance.
#[derive(Debug)]
pub(crate) struct Allowance {
    records: Bucket,
    shared: Shared,
    refused: u64,
    told: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(records_per_second: u32, shared: Shared) -> Self {
        let rate = f64::from(records_per_second.max(1));
        let records = Bucket::new(rate, rate * BURST_SECONDS, Instant::now());
        Self { records, shared, refused: 0, told: None }
    }

    /// Takes what a record of this length needs.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, with how long to wait.
    pub(crate) fn take(&mut self, length: usize, now: Instant) -> Result<(), Failure> {
        let bytes = f64::from(u32::try_from(length.saturating_add(OVERHEAD)).unwrap_or(u32::MAX));
        let mut shared = lock(&self.shared.0);
        let wait = self.records.wait(1.0, now).max(shared.wait(bytes, now));
        if wait.is_zero() {
            self.records.tokens -= 1.0;
            shared.tokens -= bytes;
            return Ok(());
        }
        drop(shared);
        self.refused += 1;
        let ms = wait.as_millis().saturating_add(1);
        Err(Failure::new(
            ErrorCode::ResourceExhausted,
            format!("too many audit records at once: try again in {ms} ms"),
        ))
    }

    /// Tells in the log what was refused: at once, then each second; at the end what is left.
    pub(crate) fn tell(&mut self, log: &AuditLog, now: Instant, end: bool) {
        let due = end || self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if self.refused > 0 && due {
            let detail = json!({ "refused": std::mem::take(&mut self.refused) });
            log.append(vec![Entry::new("audit.limited", "denied", &detail).rule("append-rate")]);
            self.told = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_is_told_when_to_come_again() {
        let mut allowance = Allowance::new(10, Shared::default());
        let now = Instant::now();
        for _ in 0..100 {
            allowance.take(100, now).unwrap();
        }
        let refused = allowance.take(100, now).unwrap_err();
        assert_eq!(refused.code, ErrorCode::ResourceExhausted);
        assert!(refused.message.ends_with("again in 101 ms"), "{refused}");
        allowance.take(100, now + Duration::from_millis(101)).unwrap();
        assert_eq!(allowance.refused, 1);
    }

    #[test]
    fn bytes_are_counted_over_all_connections() {
        let shared = Shared::default();
        let now = Instant::now();
        let mut passed = 0_usize;
        'all: for _ in 0..100 {
            let mut one = Allowance::new(1000, shared.clone());
            for _ in 0..1000 {
                if one.take(8000, now).is_err() {
                    break 'all;
                }
                passed += 1;
            }
        }
        let bytes = passed * (8000 + OVERHEAD);
        assert!((62 << 20..=64 << 20).contains(&bytes), "{bytes}");
    }
}
