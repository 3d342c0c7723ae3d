//! How to reach the launcher and how long to wait for it.

use std::path::PathBuf;
use std::time::Duration;

/// Where the launcher is, and the limits of patience with it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its socket.
    pub socket: PathBuf,
    /// Connections at most, and so calls in parallel.
    pub max_connections: usize,
    /// How long a call waits for a launcher that is starting, or for a free connection.
    pub connect_patience: Duration,
    /// How long an ordinary call may take.
    pub call_timeout: Duration,
    /// How long an operation that makes or ends processes may take.
    pub slow_call_timeout: Duration,
}

impl Options {
    /// The defaults, for a socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            max_connections: 8,
            connect_patience: Duration::from_secs(2),
            call_timeout: Duration::from_secs(10),
            slow_call_timeout: Duration::from_secs(60),
        }
    }
}
