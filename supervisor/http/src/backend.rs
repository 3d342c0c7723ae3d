//! What the door needs that is not the kernel's: events, figures, health.

use std::future::Future;
use std::pin::Pin;

use aion_syscall::Refusal;
use aion_types::{AgentName, TenantId};
use futures::Stream;
use serde_json::Value;

/// A future that can be stored.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// Events with their cursors.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<(u64, Value), Refusal>> + Send>>;

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Whose.
    pub tenant: TenantId,
    /// Of this agent alone; none: of all.
    pub agent: Option<AgentName>,
    /// Topics of the contract, as `kernel.syscalls`, or kinds of records, as `task.*`; empty: all.
    pub topics: Vec<String>,
    /// The cursor of the last one that was seen; none: from now on.
    pub after: Option<u64>,
}

/// A part of the system, and whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// In words, when it does not.
    pub detail: String,
}

/// The supervisor, as the door sees it.
pub trait Backend: Send + Sync + 'static {
    /// Follows events.
    ///
    /// # Errors
    /// A topic that cannot be, a cursor that is too old, too many streams.
    fn events(&self, query: EventQuery) -> Result<EventStream, Refusal>;
    /// Figures that are not the kernel's, in Prometheus' text format.
    fn metrics(&self) -> BoxFuture<'_, String>;
    /// How the parts are.
    fn parts(&self) -> BoxFuture<'_, Vec<Part>>;
}
