//! What a model call can fail with. None of these texts can hold a provider's key: an upstream's words pass through
//! [`crate::ApiKey`]'s redaction before they get here.

/// Which rule keeps a call from leaving the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudRule {
    /// The caller's `allow_cloud` is false.
    AllowCloud,
    /// The supervisor runs with `OFFLINE_MODE=true`.
    OfflineMode,
}

impl std::fmt::Display for CloudRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AllowCloud => "allow_cloud: false",
            Self::OfflineMode => "OFFLINE_MODE=true",
        })
    }
}

/// A model call that did not succeed, or a model that cannot be taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No model has this name or alias, and there is no default.
    #[error("no model {model}")]
    NotFound {
        /// As it was asked for.
        model: String,
    },
    /// The call would leave the host, and a rule says that it must not.
    #[error("model {model} is denied by {rule}: it would leave the host")]
    CloudDenied {
        /// The model that would have been called.
        model: String,
        /// The rule.
        rule: CloudRule,
    },
    /// A field of a request or of a model's configuration is not valid.
    #[error("{field}: {message}")]
    Invalid {
        /// The field, as its JSON name.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// Something is over a limit.
    #[error("{what} is over {limit} bytes")]
    TooLarge {
        /// What: the request, the answer or a streamed event.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// The backend answered with an error, or with what is no answer (status 502).
    #[error("model {model}: the backend answered {status}: {message}")]
    Upstream {
        /// The model.
        model: String,
        /// The HTTP status.
        status: u16,
        /// The backend's words without the key, at most 500 characters.
        message: String,
        /// When the backend wants to be asked again, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The backend cannot be reached, or the connection broke.
    #[error("model {model}: {message}")]
    Transport {
        /// The model.
        model: String,
        /// What failed; names no address.
        message: String,
        /// Whether the request may have reached the backend.
        sent: bool,
    },
    /// The circuit is open after too many failures: the backend was not asked.
    #[error("model {model} is unavailable, try again in {retry_after_ms} ms")]
    Unavailable {
        /// The model.
        model: String,
        /// When a call may be let through again, in milliseconds.
        retry_after_ms: u64,
    },
    /// No answer by the deadline.
    #[error("model {model} did not answer in time")]
    Timeout {
        /// The model.
        model: String,
    },
    /// The HTTP clients could not be made.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
}

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    /// A 2xx answer that cannot be used.
    pub(crate) fn malformed(model: &str, message: &str) -> Self {
        Self::Upstream {
            model: model.to_owned(),
            status: 502,
            message: message.to_owned(),
            retry_after_ms: None,
        }
    }

    /// Whether the backend may have worked, for money, although there is no answer. A caller who keeps a budget takes
    /// such a call for its quote. It speaks of the last attempt.
    #[must_use]
    pub const fn may_have_cost(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::TooLarge { .. } => true,
            Self::Transport { sent, .. } => *sent,
            Self::Upstream { status, .. } => matches!(status, 502 | 504),
            _ => false,
        }
    }

    /// When to try again, in milliseconds, where that is known.
    #[must_use]
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Unavailable { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::Upstream { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        }
    }
}
