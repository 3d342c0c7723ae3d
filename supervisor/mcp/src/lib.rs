//! The Model Context Protocol, both sides: revisions 2024-11-05, 2025-03-26 and 2025-06-18, tools only.
//!
//! [`Client`] speaks to a server over a pair of pipes or over streamable HTTP; [`Server`] answers the bodies that an
//! HTTP endpoint hands it, or the lines of a pair of pipes. Neighbours: whoever starts the server process and decides what may be called, above.
//! Invariant: the other side is not trusted; every size, count and wait that it governs has a bound.

mod client;
mod error;
mod lines;
mod message;
#[cfg(test)]
mod noise;
mod revision;
mod server;
mod tool;

pub use client::{Bearer, Client, HttpOptions, Options, ServerInfo};
pub use error::{Closed, Error};
pub use message::{INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError};
pub use message::{MAX_VALUES, values_at_most};
pub use revision::Revision;
pub use server::{PipeOptions, Post, Reply, Server, ServerOptions, ToolFailure, Toolbox};
pub use tool::{ToolInfo, ToolResult};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
