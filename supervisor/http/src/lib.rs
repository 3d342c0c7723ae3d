//! The kernel API over HTTP: REST and JSON, signed by tenants; doors for clients that speak OpenAI's API or the Model Context
//! Protocol.
//!
//! ```text
//! accept ─▶ head (10 s) ─▶ body (bounded, 30 s) ─▶ signature ─▶ tenant's rate ─▶ Kernel
//! ```
//! [`Service`] is made from a kernel and a [`Backend`] for what is not the kernel's; [`Service::serve`] runs it. Nothing is decided
//! here but who it is. Neighbours: `aion-kernel` below, `aiond` wires it to a listener.

mod auth;
mod backend;
mod docs;
mod events;
mod mcp;
mod openai;
mod reply;
mod routes;
mod serve;

pub use backend::{Backend, BoxFuture, EventQuery, EventStream, Part};
pub use docs::openapi;
pub use serve::{Options, Service};

#[cfg(test)]
mod tests;
