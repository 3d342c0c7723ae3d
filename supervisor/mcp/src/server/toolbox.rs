//! What a server offers: somebody else's tools, behind one trait.

use std::future::Future;

use serde_json::{Map, Value};

use crate::{ToolInfo, ToolResult};

/// Why a tool gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolFailure {
    /// There is no such tool, or none that this caller may know of. The client is told -32602.
    #[error("there is no such tool")]
    Unknown,
    /// The arguments do not fit the tool's schema. The client is told -32602.
    #[error("the arguments are not valid: {reason}")]
    InvalidArguments {
        /// For the model.
        reason: String,
    },
    /// The tool failed. The client is given a result with `isError`, which the model sees.
    #[error("the tool failed: {reason}")]
    Failed {
        /// For the model.
        reason: String,
    },
    /// The side that runs tools is broken. The client is told -32603.
    #[error("the call failed: {reason}")]
    Internal {
        /// For people; without secrets, as the client is told.
        reason: String,
    },
}

/// The tools that a [`crate::Server`] serves, and who may see which.
pub trait Toolbox: Send + Sync {
    /// Who calls, as the endpoint has authenticated them.
    type Caller: Send + Sync + ?Sized;

    /// The tools that this caller may call, in any order.
    fn list(&self, caller: &Self::Caller) -> impl Future<Output = Vec<ToolInfo>> + Send;

    /// Calls a tool. The call ends when its future is dropped, as it is when the client goes away.
    ///
    /// # Errors
    /// [`ToolFailure`] says how each is told.
    fn call(
        &self,
        caller: &Self::Caller,
        name: &str,
        arguments: Map<String, Value>,
    ) -> impl Future<Output = Result<ToolResult, ToolFailure>> + Send;

    /// Begins a session and names it, in visible ASCII. `None`, the default, is for servers without sessions.
    fn open_session(&self, caller: &Self::Caller) -> impl Future<Output = Option<String>> + Send {
        let _ = caller;
        std::future::ready(None)
    }

    /// Whether a session is this caller's and still open; by default any is, as there are none.
    fn has_session(&self, caller: &Self::Caller, session: &str) -> impl Future<Output = bool> + Send {
        let _ = (caller, session);
        std::future::ready(true)
    }
}
