//! What can go wrong between the two daemons.

use std::path::PathBuf;
use std::time::Duration;

use aion_launcher_proto::{frame, v1};
use aion_types::ErrorCode;

/// A refusal that the launcher answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code; [`ErrorCode::Internal`] when this version does not know the launcher's.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The layer that failed; may be empty.
    pub layer: String,
    /// The field that is not valid; may be empty.
    pub field: String,
    /// The system's errno; 0 when none.
    pub errno: i32,
}

impl From<v1::Error> for Refusal {
    fn from(error: v1::Error) -> Self {
        let code = ErrorCode::parse(&error.code).unwrap_or(ErrorCode::Internal);
        Self { code, message: error.message, layer: error.layer, field: error.field, errno: error.errno }
    }
}

/// A call to the launcher that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers at the socket.
    #[error("cannot reach aion-launcher at {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection ended before the answer came; whether the launcher acted is not known.
    #[error("the connection to aion-launcher was lost during {op}")]
    Lost {
        /// The operation.
        op: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time; whether the launcher acted is not known.
    #[error("aion-launcher did not answer {op} within {after:?}")]
    Timeout {
        /// The operation.
        op: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The launcher speaks another version of the protocol.
    #[error("aion-launcher speaks protocol {theirs}, aiond speaks {ours}")]
    Protocol {
        /// Its version.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// Bytes that are no frame of the protocol.
    #[error("aion-launcher sent what is no frame")]
    Frame(#[source] frame::Error),
    /// An answer of another kind than was asked for.
    #[error("aion-launcher answered {op} with something else")]
    Unexpected {
        /// The operation.
        op: &'static str,
    },
    /// The launcher refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl Error {
    /// The stable code that a user meets.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Timeout { .. } => {
                ErrorCode::LauncherUnavailable
            }
            Self::Protocol { .. } => ErrorCode::ProtocolMismatch,
            Self::Frame(frame::Error::TooLong { .. }) => ErrorCode::TooLarge,
            Self::Frame(_) | Self::Unexpected { .. } => ErrorCode::Internal,
            Self::Refused(refusal) => refusal.code,
        }
    }

    /// The launcher's refusal, when that is what happened.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the launcher may have acted although no answer came.
    #[must_use]
    pub const fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Timeout { .. })
    }
}
