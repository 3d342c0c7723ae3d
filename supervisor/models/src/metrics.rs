//! What each model has done so far, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{BreakerState, Usage};

/// One model's totals since the supervisor started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMetrics {
    /// The model's name.
    pub model: String,
    /// Whether it is local.
    pub local: bool,
    /// Calls, answered from the cache or not, failed or not.
    pub calls: u64,
    /// Calls that failed; a stream that breaks is one.
    pub errors: u64,
    /// Attempts beyond the first of a call.
    pub retries: u64,
    /// Calls answered from the cache.
    pub cache_hits: u64,
    /// Prompt tokens, estimates included.
    pub tokens_in: u64,
    /// Output tokens, estimates included.
    pub tokens_out: u64,
    /// Cost in millionths of a dollar.
    pub usd_micros: u64,
    /// What the circuit breaker does now.
    pub breaker: BreakerState,
}

/// The counters behind it. They stay when a model's configuration is replaced.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) calls: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    tokens_in: AtomicU64,
    tokens_out: AtomicU64,
    usd_micros: AtomicU64,
}

impl Counters {
    pub(crate) fn one(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn used(&self, usage: Usage) {
        self.tokens_in.fetch_add(usage.tokens.input, Relaxed);
        self.tokens_out.fetch_add(usage.tokens.output, Relaxed);
        self.usd_micros.fetch_add(usage.usd_micros, Relaxed);
    }

    pub(crate) fn snapshot(&self, model: String, local: bool, breaker: BreakerState) -> ModelMetrics {
        ModelMetrics {
            model,
            local,
            calls: self.calls.load(Relaxed),
            errors: self.errors.load(Relaxed),
            retries: self.retries.load(Relaxed),
            cache_hits: self.cache_hits.load(Relaxed),
            tokens_in: self.tokens_in.load(Relaxed),
            tokens_out: self.tokens_out.load(Relaxed),
            usd_micros: self.usd_micros.load(Relaxed),
            breaker,
        }
    }
}
