//! Spans of the kernel's work, told over OTLP to whoever the operator names; off unless there is such an endpoint.
//!
//! [`Spans::record`] never waits: a span goes into a bounded queue, and one that finds no room is counted. A task sends what is there,
//! in batches. Who makes spans: `aion-kernel` (`kernel.syscall`), `aion-tasks` (`kernel.schedule`).

mod export;
mod queue;
mod settings;
mod span;

pub use queue::{Counts, Spans};
pub use settings::{Error, Protocol, Settings};
pub use span::{Attribute, Span, TraceOf};
