//! aiond's memory: agents, their names, the index over audit records, and what was answered to which request id.
//!
//! One RocksDB with the column families `agents`, `names`, `events`, `requests` and `meta`, and those of the kernel API's rows
//! (`tables.rs`). Writing goes through
//! [`Batch`] and [`Store::commit`] only, so that what belongs together is written together or not at all. Calls
//! block: callers on an async runtime decide where to run them. Neighbours: `aion-api`,
//! `aion-kernel` and `aion-tenants`.

mod agent;
mod agents;
mod batch;
mod checkpoint;
mod codec;
mod db;
mod error;
mod event;
mod events;
mod keys;
mod names;
mod options;
mod requests;
mod retention;
mod tables;

pub use agent::{AgentRecord, AgentState, ExitRecord, LayerRow, RestartMode, RestartRule, RestraintRow};
pub use agents::{ListQuery, ListedAgents};
pub use batch::{Batch, Durability};
pub use db::Store;
pub use error::Error;
pub use event::{EventQuery, EventRow, KindPattern};
pub use events::EventPage;
pub use options::Options;
pub use requests::{RequestHash, RequestKey, RequestRow, StoredOutcome};
pub use retention::Trimmed;
pub use tables::{Row, Table};

/// The version of everything on disk. A store written by a newer one is refused.
pub const SCHEMA_VERSION: u32 = 1;
