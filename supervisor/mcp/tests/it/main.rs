//! Both sides against scripted, hostile and real peers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;
mod handshake;
mod hostile;
mod http;
mod http_hostile;
mod peers;
mod pipes;

use std::time::Duration;

use tokio::time::Instant;

/// A deadline that no test is meant to meet.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}
