//! How much memory, disk and history the store may use.

use std::time::Duration;

/// Sizes and limits. The defaults keep an idle daemon below 64 MB.
#[derive(Debug, Clone)]
pub struct Options {
    /// Block cache, shared by all column families.
    pub block_cache_bytes: usize,
    /// Unflushed writes, all column families together.
    pub write_buffer_bytes: usize,
    /// Records kept in the event index; the audit log itself keeps more.
    pub max_events: u64,
    /// How long a record stays in the event index.
    pub max_event_age: Duration,
    /// How long the answer to a request id is remembered.
    pub request_ttl: Duration,
    /// Free bytes below which a user's request is refused.
    pub reserve_bytes: u64,
    /// Free bytes below which even the daemon's own bookkeeping waits.
    pub hard_reserve_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_cache_bytes: 4 << 20,
            write_buffer_bytes: 8 << 20,
            max_events: 1_000_000,
            max_event_age: Duration::from_secs(14 * 24 * 3600),
            request_ttl: Duration::from_secs(24 * 3600),
            reserve_bytes: 32 << 20,
            hard_reserve_bytes: 12 << 20,
        }
    }
}
