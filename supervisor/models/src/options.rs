//! The settings that all models share.

use std::time::Duration;

/// How [`crate::Models`] behaves. Limits of one model are in [`crate::ModelConfig`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Only `local` models are called; the client for others is not even made. Default false.
    pub offline: bool,
    /// The response cache's size in bytes, for all models and scopes together. Default 32 MiB.
    pub cache_bytes: usize,
    /// Consecutive failures that open a model's circuit; at least 1. Default 5.
    pub breaker_failures: u32,
    /// How long an open circuit stays open before one call may probe. Default 5 s.
    pub breaker_pause: Duration,
    /// The first retry's mean wait; each further one doubles it. Default 200 ms.
    pub backoff: Duration,
    /// The longest wait between two attempts, unless the backend asks for more. Default 5 s.
    pub backoff_max: Duration,
    /// How long a connection may take. Default 5 s.
    pub connect_timeout: Duration,
    /// The longest answer in bytes. Default 16 MiB.
    pub answer_bytes: usize,
    /// The longest event of a streamed answer in bytes. Default 1 MiB.
    pub event_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            offline: false,
            cache_bytes: 32 << 20,
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(5),
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            answer_bytes: 16 << 20,
            event_bytes: 1 << 20,
        }
    }
}
