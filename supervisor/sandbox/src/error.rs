//! Why a launch failed, in the terms that the launcher answers in.

use aion_types::LayerName;

/// Why a sandbox could not be made or a command not started in it. Nothing of it runs any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer of isolation could not be set up.
    #[error("layer {layer}: {message}{}", errno_text(*errno))]
    Layer {
        /// Which.
        layer: LayerName,
        /// The kernel's reason, 0 when it is not the kernel's.
        errno: i32,
        /// What was tried.
        message: String,
    },
    /// Everything was set up, and the program could not be executed.
    #[error("cannot execute {program}{}", errno_text(*errno))]
    Exec {
        /// The kernel's reason.
        errno: i32,
        /// What was to be executed, for people.
        program: String,
    },
    /// A plan that no agent may have.
    #[error("plan: {field}: {reason}")]
    InvalidPlan {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The set-up took too long.
    #[error("the sandbox was not ready after {ms} ms")]
    Timeout {
        /// How long it was waited for.
        ms: u64,
    },
    /// Init ended, or was killed, before it had answered.
    #[error("init ended while it was setting up: {status}")]
    InitDied {
        /// How, for people.
        status: String,
    },
    /// Init could not be made at all.
    #[error("cannot {doing}{}", errno_text(*errno))]
    Host {
        /// What was tried.
        doing: String,
        /// The kernel's reason.
        errno: i32,
    },
    /// The two halves do not understand each other.
    #[error("init's answer is malformed: {reason}")]
    Protocol {
        /// Why.
        reason: &'static str,
    },
}

fn errno_text(errno: i32) -> String {
    if errno == 0 { String::new() } else { format!(": {}", std::io::Error::from_raw_os_error(errno)) }
}

impl Error {
    pub(crate) fn host(doing: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |e| Self::Host { doing: doing.into(), errno: e.raw_os_error() }
    }

    pub(crate) fn layer(
        layer: LayerName,
        message: impl Into<String>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |e| Self::Layer { layer, errno: e.raw_os_error(), message: message.into() }
    }

    /// The layer that failed, when one did.
    #[must_use]
    pub fn failed_layer(&self) -> Option<LayerName> {
        match self {
            Self::Layer { layer, .. } => Some(*layer),
            _ => None,
        }
    }

    /// The exit status that a shell gives for it: 127 for a program that is not there, 126 for one that
    /// cannot be executed.
    #[must_use]
    pub fn shell_code(&self) -> Option<u8> {
        match self {
            Self::Exec { errno, .. } if is_not_found(*errno) => Some(127),
            Self::Exec { .. } => Some(126),
            _ => None,
        }
    }
}

fn is_not_found(errno: i32) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR].iter().any(|e| e.raw_os_error() == errno)
}
