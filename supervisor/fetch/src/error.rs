//! Why a request is not made, or came to nothing.

/// What is wrong, or went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A field of the request.
    #[error("{message}")]
    Invalid {
        /// Which.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// A field that is too large.
    #[error("{message}")]
    TooLarge {
        /// Which.
        field: String,
        /// How large it is.
        message: String,
    },
    /// The name has no address.
    #[error("{host} cannot be resolved: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// No connection.
    #[error("{host} cannot be connected to: {why}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// No TLS that can be trusted.
    #[error("{host} does not speak TLS that can be trusted: {why}")]
    Tls {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// The answer is none of HTTP, or broke off.
    #[error("{host} does not answer as HTTP does: {why}")]
    Http {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects, and that is not followed: {why}")]
    Redirect {
        /// Host and port.
        host: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("there was no answer within {ms} ms")]
    Timeout {
        /// Milliseconds.
        ms: u64,
    },
}

impl Failure {
    pub(crate) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

/// A request without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error<D> {
    /// The gate does not let it through.
    #[error("{0}")]
    Denied(D),
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}
