//! The kernel API over TCP: REST and JSON, signed by tenants; doors for clients that speak OpenAI's API, the Model Context Protocol,
//! or gRPC.
//!
//! ```text
//! accept ─▶ head (10 s) ─▶ body (bounded, 30 s) ─▶ signature ─▶ tenant's rate ─▶ Kernel
//! ```
//! [`Service`] is made from a kernel and a [`Backend`] for what is not the kernel's; [`Service::serve`] runs it. Nothing is decided
//! here but who it is. Neighbours: `aion-kernel` below, `aiond` wires it to a listener.

mod auth;
mod backend;
mod body;
mod certificate;
mod docs;
mod events;
mod grpc;
mod listen;
mod mcp;
mod openai;
mod own;
mod reply;
mod routes;
mod serve;
mod tls;

pub use axum::response::Response;
pub use backend::{Backend, BoxFuture, EventQuery, EventStream, Part};
pub use docs::openapi;
pub use grpc::{Grpc, GrpcOptions, Refuse};
pub use own::own_routes;
pub use serve::{Options, Service};
pub use tls::{Tls, TlsError};

#[cfg(test)]
mod tests;
