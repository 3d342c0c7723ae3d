//! The unprivileged end of the protocol to aion-launcher, for tokio.
//!
//! [`Client`] has one typed method for each operation and keeps a small pool of connections; [`Watch`] follows the
//! launcher's notices across its restarts. Neighbours: `aion-launcher-proto` below (messages and frames), `aion-api`
//! above. Invariant: a connection whose place in the stream is in doubt is closed, never used again.

mod client;
mod connection;
mod error;
mod options;
mod pool;
mod watch;

pub use client::Client;
pub use error::{Error, Refusal};
pub use options::Options;
pub use watch::{Watch, WatchEvent};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
