//! What the launcher answers when it cannot do what it was asked: a stable code, and the layer or field.

use aion_launcher_proto::v1;
use aion_types::{ErrorCode, LayerName};
use nix::libc;

/// A failure, ready to be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// The stable code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// With `LAYER_FAILED`.
    pub layer: Option<LayerName>,
    /// With `INVALID_FIELD`.
    pub field: String,
    /// The kernel's reason, 0 when it is not the kernel's.
    pub errno: i32,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), layer: None, field: String::new(), errno: 0 }
    }

    pub(crate) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), ..Self::new(ErrorCode::InvalidField, message) }
    }

    pub(crate) fn layer(layer: LayerName, errno: i32, message: impl Into<String>) -> Self {
        Self { layer: Some(layer), errno, ..Self::new(ErrorCode::LayerFailed, message) }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    pub(crate) fn not_running(id: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::AgentNotRunning, format!("agent {id} does not run"))
    }

    /// A file of the state folder could not be used.
    pub(crate) fn state(doing: &str, path: &std::path::Path, e: &std::io::Error) -> Self {
        let full = matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let code = if full { ErrorCode::DiskFull } else { ErrorCode::Internal };
        Self {
            errno: e.raw_os_error().unwrap_or(0),
            ..Self::new(code, format!("cannot {doing} {}: {e}", path.display()))
        }
    }

    /// As the protocol has it.
    #[must_use]
    pub fn to_proto(&self) -> v1::Error {
        v1::Error {
            code: self.code.as_str().to_owned(),
            message: self.message.clone(),
            layer: self.layer.map(|l| l.as_str().to_owned()).unwrap_or_default(),
            field: self.field.clone(),
            errno: self.errno,
        }
    }
}

/// An error with everything that lies beneath it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

impl From<aion_sandbox::Error> for Failure {
    fn from(error: aion_sandbox::Error) -> Self {
        use aion_sandbox::Error as E;
        let message = error.to_string();
        match error {
            E::Layer { layer, errno, .. } => Self::layer(layer, errno, message),
            E::Exec { errno, .. } => {
                let missing = errno == libc::ENOENT || errno == libc::ENOTDIR;
                let code = if missing { ErrorCode::CommandNotFound } else { ErrorCode::CommandNotExecutable };
                Self { errno, ..Self::new(code, message) }
            }
            E::InvalidPlan { field, reason } => Self::field(field, reason),
            E::InitDied { .. } | E::Timeout { .. } | E::Protocol { .. } => {
                Self::layer(LayerName::Namespaces, 0, message)
            }
            E::Host { errno, .. } => Self::layer(LayerName::Namespaces, errno, message),
        }
    }
}

impl From<aion_cgroup::Error> for Failure {
    fn from(error: aion_cgroup::Error) -> Self {
        Self::layer(LayerName::Cgroup, error.errno(), chain(&error))
    }
}

impl From<aion_probes::Error> for Failure {
    fn from(error: aion_probes::Error) -> Self {
        Self::layer(LayerName::Probes, 0, chain(&error))
    }
}

impl From<aion_seccomp::Error> for Failure {
    fn from(error: aion_seccomp::Error) -> Self {
        match error.code() {
            // libseccomp failed: it is not the profile's fault.
            ErrorCode::Internal => Self::layer(LayerName::Seccomp, 0, chain(&error)),
            code => Self::new(code, chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_failures_have_their_codes() {
        let exec = |errno| Failure::from(aion_sandbox::Error::Exec { errno, program: "x".into() }).code;
        assert_eq!(exec(libc::ENOENT), ErrorCode::CommandNotFound);
        assert_eq!(exec(libc::EACCES), ErrorCode::CommandNotExecutable);
        assert_eq!(exec(libc::ENOEXEC), ErrorCode::CommandNotExecutable);
    }

    #[test]
    fn a_full_disk_has_a_code_of_its_own() {
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(Failure::state("write", "/x".as_ref(), &full).code, ErrorCode::DiskFull);
    }
}
