//! The syscall router: from a known caller and a request to a metered, recorded answer.
//!
//! ```text
//! door ─Caller─▶ Kernel::invoke ─▶ plan ─▶ decide ─▶ reserve ─▶ do ─▶ settle ─▶ record ─▶ Answer
//! ```
//! [`Kernel`] is cheap to clone. Neighbours: `aion-http` and `aion-api` are its doors; what it asks of the supervisor goes through
//! [`Host`]. Invariant: a call that did anything has a decision row and an audit record before it is answered.

mod approvals;
mod authority;
mod caller;
mod fetch;
mod files;
mod grants;
mod host;
mod kernel;
mod mail;
mod memory;
mod metrics;
mod models;
mod operator;
mod params;
mod plan;
mod record;
mod redact;
mod registration;
mod rows;
mod secrets;
mod servers;
mod telling;
mod tool_call;
mod tools;
mod turned_away;
mod usage;

pub use aion_models::{Kind as ModelKind, ModelConfig};
pub use approvals::{Answered, Approval};
pub use caller::Caller;
pub use host::{
    AccountLimits, AgentInfo, AgentSeen, AuditEntry, BoxFuture, FileAnswer, FileAsk, FileInfo, FileUse, Host,
    Registered, Registration, Running, Sandbox, TaskFound, TaskLimits, ToolEnd, ToolRun, ToolServer,
};
pub use kernel::{Kernel, Options, Outcome};
pub use metrics::Metrics;
pub use record::DecisionRow;
pub use registration::quota;
pub use secrets::{SecretConfig, SecretOverview};
pub use tools::{ToolFileData, ToolOverview};
pub use usage::UsageRow;
