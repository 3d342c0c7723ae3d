//! The client of AION's API: gRPC over aiond's Unix socket.
//!
//! aiond may be restarted at any moment while agents run on. So every call here knows what to do then: reads and
//! waits are repeated, mutations are repeated under the request id that makes them idempotent, and followers
//! (logs, events) go on at their cursor, so that no byte and no record is lost or seen twice. Neighbours:
//! `aion-api-proto` (the messages), `aionctl` (the terminal). Nothing here writes to the terminal.

mod call;
mod client;
mod error;
mod events;
mod logs;
mod tasks;
mod time;

pub use aion_api_proto::v1 as api;
pub use client::{Client, Options, default_socket};
pub use error::Error;
pub use events::EventFollower;
pub use logs::LogFollower;
pub use tasks::TaskFollower;
pub use time::{duration, timestamp, timestamp_ns};

/// What a call of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
