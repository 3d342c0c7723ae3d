//! The door: every field of every request is checked here, before anything is done.
//!
//! aiond is not trusted to be sane. What leaves this module are types that cannot be wrong; a field that is
//! becomes `INVALID_FIELD` with its name. Pure, so that the fuzz target can call [`parse`].

mod devices;
mod exec;
mod field;
mod file;
mod job;
mod launch;
mod limits;
mod network_limits;
mod op;
mod resolved;

pub use devices::Device;
pub(crate) use devices::is_of_device;
pub use exec::{AuditEntry, Exec};
pub use file::{AgentFile, FileOp, FileUse};
pub use job::Job;
pub use launch::{Bind, Input, Launch, Rootfs, Workspace, WorkspaceKind};
pub use limits::Limits;
pub use network_limits::{DestinationLimits, NetworkLimits};
pub use op::{Op, parse};
pub use resolved::Resolved;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::usual as tests_usual;
