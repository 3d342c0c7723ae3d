//! The words that every part of AION shares: identifiers, layers, exits, error codes.
//!
//! Pure data with checked constructors; no I/O. Neighbours: everything depends on this crate, it depends
//! on nothing of AION.

mod bucket;
mod calls;
mod code;
mod exit;
mod id;
mod layer;
mod quantity;
mod trace;

/// In a state folder: a restore into it was cut off, so that it is not whole. No daemon runs on such a folder.
pub const UNFINISHED_RESTORE: &str = ".restoring";

pub use bucket::Bucket;
pub use calls::NEEDED_CALLS;
pub use code::ErrorCode;
pub use exit::{Exit, ExitReason};
pub use id::{AgentId, AgentName, AgentUri, IdError, TenantId};
pub use layer::{Layer, LayerName, LayerReport, LayerState};
pub use quantity::{ByteSize, CpuMillis, QuantityError};
pub use trace::TraceParent;
