//! Control groups behind one facade: unified (v2), hybrid and pure v1 hosts look the same from above.
//!
//! [`Hierarchy`] knows what is mounted, [`Parent`] is the group below which all agents' groups are, and
//! [`AgentGroup`] is one agent's. Identity, freezing and killing belong to v2 wherever it is mounted; a
//! controller is used in v2 when v2 has it and in v1 otherwise. Settings go through cgroups-rs, the hot
//! path through files of its own (`docs/adr/0008-cgroups.md`). Neighbours: only the launcher uses it.

mod controller;
mod error;
mod events;
mod files;
mod group;
mod hierarchy;
mod limits;
mod parent;
mod run_state;
mod settings;
mod stats;

pub use controller::Controller;
pub use error::Error;
pub use events::{LimitCounters, LimitEvent, LimitKind};
pub use group::{AgentGroup, V1Door};
pub use hierarchy::{Hierarchy, Mode};
pub use limits::{BlockDevice, Limits, Missing};
pub use parent::Parent;
pub use stats::Stats;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
