//! The audit log: one thread writes, everyone else hands records over.

mod allowance;
mod entry;
mod queue;
mod writer;

pub(crate) use allowance::{Allowance, Shared};
pub(crate) use entry::Entry;
pub(crate) use writer::{AuditLog, Settings, WriterThread};
