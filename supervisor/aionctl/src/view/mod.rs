//! What results look like from outside: the JSON that scripts read, and the tables that people read.
//! Invariant: fields of the JSON are never renamed and never vanish; new ones may come.

pub(crate) mod agent;
pub(crate) mod approval;
pub(crate) mod detection;
pub(crate) mod host;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod policy;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod secret;
pub(crate) mod stats;
pub(crate) mod task;
