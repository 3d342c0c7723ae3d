//! What can go wrong between a client and its server.

use std::sync::Arc;
use std::time::Duration;

use crate::message::RpcError;

/// Why a connection is of no more use. Every call that waits on it is told the same.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// The server ended its stream, perhaps in the middle of a message.
    #[error("the server ended its stream")]
    Eof,
    /// Reading or writing failed.
    #[error("the stream to the server failed")]
    Io(#[source] Arc<std::io::Error>),
    /// A message is over the limit of [`crate::Options::max_message_bytes`].
    #[error("the server sent a message of more than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A message holds so many small values that parsing it would cost many times its length.
    #[error("the server sent a message of more than {limit} values")]
    TooManyValues {
        /// The limit, in JSON values.
        limit: usize,
    },
    /// A message is not JSON.
    #[error("the server sent what is not JSON")]
    NotJson,
    /// A message is JSON, but not JSON-RPC 2.0.
    #[error("the server sent what is not JSON-RPC: {what}")]
    NotMessage {
        /// What is wrong with it.
        what: &'static str,
    },
    /// An answer to a call that was never made: the server guesses, or is not the one that was asked.
    #[error("the server answered a call that was never made")]
    UnknownId,
    /// More messages than [`crate::Options::max_unsolicited`] that nobody asked for.
    #[error("the server floods the connection with messages that were not asked for")]
    Flood,
    /// This side closed it.
    #[error("the connection was closed by this side")]
    ByUs,
}

/// A call to a server that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection ended, or ended before the answer came.
    #[error("the connection to the MCP server has ended")]
    Closed(#[from] Closed),
    /// No answer in time. The server was told to stop; whether it acted is not known.
    #[error("the MCP server did not answer {method} within {after:?}")]
    Timeout {
        /// The method.
        method: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The server refused the call.
    #[error("the MCP server refused {method}")]
    Refused {
        /// The method.
        method: &'static str,
        /// What it said; the text is the server's and not to be trusted.
        #[source]
        source: RpcError,
    },
    /// The answer has not the form that the specification gives it.
    #[error("the MCP server's answer to {method} is malformed: {what}")]
    Malformed {
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The server speaks only revisions that this crate does not.
    #[error("the MCP server speaks revision {theirs:?}, which is not supported")]
    Version {
        /// What it wants to speak, at most 64 characters of it.
        theirs: String,
    },
    /// [`crate::Client::initialize`] has not succeeded yet.
    #[error("the connection to the MCP server is not initialized")]
    NotInitialized,
    /// The request itself is over [`crate::Options::max_message_bytes`]; nothing was sent.
    #[error("the request is {bytes} bytes long, of at most {limit}")]
    TooLarge {
        /// Its length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The server lists more than [`crate::Options::max_tools`] tools, or in more pages than
    /// [`crate::Options::max_pages`].
    #[error("the MCP server lists more than {limit} {what}")]
    TooMany {
        /// Tools or pages.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The address is not `http` or `https`, or has a user's name in it.
    #[error("the address of the MCP server is not valid: {what}")]
    Endpoint {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The token cannot be a header's value.
    #[error("the bearer token has characters that a header cannot carry")]
    Bearer,
    /// The HTTP exchange failed.
    #[error("the HTTP exchange with the MCP server failed")]
    Http(#[source] reqwest::Error),
    /// The HTTP server answered with another status than the protocol has for an answer. Redirects are among them:
    /// they are not followed, as they would carry the bearer token elsewhere.
    #[error("the MCP server answered {method} with HTTP status {status}")]
    Status {
        /// The method.
        method: &'static str,
        /// The status.
        status: u16,
        /// The JSON-RPC error in the body, when there is one; the text is the server's and not to be trusted.
        #[source]
        source: Option<RpcError>,
    },
    /// The server does not know the session any more; a new client begins a new one.
    #[error("the MCP server has ended the session")]
    SessionEnded,
}

impl Error {
    /// Whether the server may have acted although no answer came.
    #[must_use]
    pub const fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Timeout { .. } | Self::Malformed { .. } | Self::Http(_))
    }
}
