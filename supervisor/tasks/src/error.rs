//! Why something about tasks was refused or failed, as clients and agents are told.

use std::sync::Arc;

use aion_scheduler::Refusal;
use aion_types::ErrorCode;

/// A failure with its stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The stable code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The field of the request that is wrong; empty: none.
    pub field: &'static str,
    /// What to do; may be empty.
    pub hint: String,
    /// When to come back.
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// A failure of whoever looks after something for the engine.
    #[must_use]
    pub fn of(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(code, message)
    }

    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: "", hint: String::new(), retry_after_ms: None }
    }

    pub(crate) fn field(field: &'static str, why: impl std::fmt::Display) -> Self {
        Self { field, ..Self::new(ErrorCode::InvalidField, format!("{field}: {why}")) }
    }

    pub(crate) fn too_large(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, ..Self::new(ErrorCode::TooLarge, message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(crate) fn no_task(task: &str) -> Self {
        let shown: String = task.chars().take(80).collect();
        Self::new(ErrorCode::TaskNotFound, format!("no task {shown:?}"))
    }

    /// The daemon goes down, or the engine is not there.
    pub(crate) fn away() -> Self {
        Self {
            retry_after_ms: Some(1000),
            ..Self::new(ErrorCode::DaemonUnavailable, "aiond is shutting down")
        }
    }

    pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain = format!("{chain}: {cause}");
            source = cause.source();
        }
        tracing::error!(what, error = %chain, "internal error");
        Self::new(ErrorCode::Internal, format!("{what}: {chain}"))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let field = match &refusal {
            Refusal::InvalidField { field, .. } => field,
            Refusal::DependencyCycle { .. }
            | Refusal::DependencyFailed { .. }
            | Refusal::DependencyNotFound { .. } => "after",
            Refusal::DeadlineUnmeetable { .. } => "deadline",
            _ => "",
        };
        let message = match &refusal {
            Refusal::InvalidField { .. } => refusal.to_string(),
            _ if field.is_empty() => refusal.to_string(),
            _ => format!("{field}: {refusal}"),
        };
        Self { field, retry_after_ms: refusal.retry_after_ms(), ..Self::new(code(&refusal), message) }
    }
}

/// The core's code, or a nearer one.
const fn code(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::DependencyCycle { .. } => ErrorCode::DependencyCycle,
        Refusal::DependencyNotFound { .. } => ErrorCode::DependencyNotFound,
        Refusal::DependencyFailed { .. } => ErrorCode::DependencyFailed,
        Refusal::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
        other => other.code(),
    }
}

impl From<&aion_task_journal::Error> for Error {
    fn from(error: &aion_task_journal::Error) -> Self {
        use aion_task_journal::Error as E;
        match error {
            E::DiskFull { .. } => Self::disk_full(error),
            E::CheckpointTooLarge { .. } => Self::too_large("checkpoint", error.to_string()),
            E::CheckpointCorrupt { .. } | E::Corrupt { .. } => {
                tracing::error!(%error, "the journal of the tasks is damaged");
                Self::new(error.code(), error.to_string())
                    .hint("`aionctl journal check` says what is damaged")
            }
            E::NotEmpty { .. } | E::Import { .. } => Self::new(ErrorCode::JournalBroken, error.to_string()),
            _ => Self::internal("the journal of the tasks failed", error),
        }
    }
}

impl Error {
    pub(crate) fn disk_full(error: &aion_task_journal::Error) -> Self {
        Self {
            retry_after_ms: Some(10_000),
            ..Self::new(ErrorCode::DiskFull, error.to_string())
                .hint("free space on the disk that holds the state folder; nothing was changed")
        }
    }
}

impl From<aion_task_journal::Error> for Error {
    fn from(error: aion_task_journal::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Arc<aion_task_journal::Error>> for Error {
    fn from(error: &Arc<aion_task_journal::Error>) -> Self {
        Self::from(error.as_ref())
    }
}
