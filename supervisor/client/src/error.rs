//! What can go wrong in a call, with the stable code that scripts go by.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use aion_api_proto::ERROR_DOMAIN;
use aion_types::ErrorCode;
use tonic::Code;
use tonic_types::StatusExt as _;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No daemon answers at the socket.
    #[error("cannot reach aiond at {}", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke during the call, and the daemon did not come back in time.
    #[error("the connection to aiond at {} broke", socket.display())]
    Disconnected {
        /// Where the daemon was.
        socket: PathBuf,
        /// The transport's words.
        source: Box<tonic::Status>,
    },
    /// aiond answered with an error of its own.
    #[error("{message}")]
    Api {
        /// The stable code.
        code: ErrorCode,
        /// The code as sent; differs from `code` only when a newer daemon sent one that is unknown here.
        reason: String,
        /// For people.
        message: String,
        /// What the code needs: `layer`, `field`, `rule`, `hint`, …
        metadata: BTreeMap<String, String>,
    },
    /// The daemon's answer cannot be used.
    #[error("aiond's answer cannot be used: {what}")]
    Answer {
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorCode::PermissionDenied
            }
            Self::Unreachable { .. } | Self::Disconnected { .. } => ErrorCode::DaemonUnavailable,
            Self::Api { code, .. } => *code,
            Self::Answer { .. } => ErrorCode::ProtocolMismatch,
        }
    }

    /// One of the things that the daemon told besides the message.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<&str> {
        match self {
            Self::Api { metadata, .. } => metadata.get(key).map(String::as_str),
            _ => None,
        }
    }

    /// Whether the daemon went away, so that the same call may succeed when it is back.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        match self {
            Self::Disconnected { .. } => true,
            Self::Unreachable { source, .. } => {
                // Reset: killed with the connection in its queue. Would block: alive, with a full queue.
                matches!(
                    source.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::WouldBlock
                )
            }
            Self::Api { .. } | Self::Answer { .. } => false,
        }
    }

    /// Reads what tonic gives.
    pub(crate) fn from_status(socket: &Path, status: tonic::Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        if let Some(info) = info {
            return Self::Api {
                code: ErrorCode::parse(&info.reason).unwrap_or_else(|| plain_code(status.code())),
                reason: info.reason,
                message: status.message().to_owned(),
                metadata: info.metadata.into_iter().collect(),
            };
        }
        // A status that came over the wire has no source; one that the transport made has. A daemon that is
        // killed shows as any of Unavailable, Unknown, Internal and Cancelled, depending on what was in flight.
        if status.code() == Code::Unavailable || status.source().is_some() {
            return Self::Disconnected { socket: socket.to_owned(), source: Box::new(status) };
        }
        let code = plain_code(status.code());
        Self::Api {
            code,
            reason: code.as_str().to_owned(),
            message: status.message().to_owned(),
            metadata: BTreeMap::new(),
        }
    }
}

/// The nearest code for a status that carries none (made by tonic itself, or by a newer daemon).
const fn plain_code(code: Code) -> ErrorCode {
    match code {
        Code::NotFound => ErrorCode::AgentNotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorCode::PermissionDenied,
        Code::InvalidArgument => ErrorCode::InvalidField,
        Code::OutOfRange => ErrorCode::TooLarge,
        Code::ResourceExhausted => ErrorCode::ResourceExhausted,
        Code::DeadlineExceeded => ErrorCode::WaitTimeout,
        Code::Unimplemented => ErrorCode::ProtocolMismatch,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn read(status: tonic::Status) -> Error {
        Error::from_status(Path::new("/run/x.sock"), status)
    }

    #[test]
    fn a_daemon_that_is_killed_under_a_new_connection_is_waited_for() {
        let kind = |kind: io::ErrorKind| {
            Error::Unreachable { socket: "/run/x.sock".into(), source: kind.into() }.is_disconnect()
        };
        assert!(kind(io::ErrorKind::ConnectionReset) && kind(io::ErrorKind::ConnectionRefused));
        assert!(!kind(io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn an_error_info_gives_code_and_metadata() {
        let details = ErrorDetails::with_error_info(
            "LAYER_FAILED",
            ERROR_DOMAIN,
            [("layer".to_owned(), "landlock".to_owned())],
        );
        let error = read(tonic::Status::with_error_details(Code::Aborted, "no landlock here", details));
        assert_eq!(error.code(), ErrorCode::LayerFailed);
        assert_eq!(error.meta("layer"), Some("landlock"));
        assert_eq!(error.to_string(), "no landlock here");
        assert!(!error.is_disconnect());
    }

    #[test]
    fn an_unavailable_launcher_is_not_an_unavailable_daemon() {
        let details = ErrorDetails::with_error_info("LAUNCHER_UNAVAILABLE", ERROR_DOMAIN, []);
        let error = read(tonic::Status::with_error_details(Code::Unavailable, "no launcher", details));
        assert_eq!(error.code(), ErrorCode::LauncherUnavailable);
        assert!(!error.is_disconnect());
    }

    #[test]
    fn foreign_details_are_not_believed() {
        let details = ErrorDetails::with_error_info("AGENT_NOT_FOUND", "elsewhere.example", []);
        let error = read(tonic::Status::with_error_details(Code::Unavailable, "gone", details));
        assert_eq!(error.code(), ErrorCode::DaemonUnavailable);
        assert!(error.is_disconnect());
    }

    #[test]
    fn a_transport_error_is_a_disconnect_whatever_its_code() {
        let broken: Box<dyn std::error::Error + Send + Sync> = Box::new(io::Error::other("h2 went away"));
        let status = tonic::Status::from_error(broken);
        assert!(read(status).is_disconnect());
        assert!(!read(tonic::Status::internal("a defect")).is_disconnect());
    }

    #[test]
    fn a_socket_that_may_not_be_opened_is_a_denial() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Error::Unreachable { socket: "/run/x.sock".into(), source };
        assert_eq!(error.code(), ErrorCode::PermissionDenied);
        assert!(!error.is_disconnect());
    }
}
