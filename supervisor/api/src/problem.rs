//! Errors as the API tells them: a stable code, a message for people, and what a program needs to go on.

use std::collections::HashMap;

use aion_api_proto::ERROR_DOMAIN;
use aion_types::ErrorCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// Why a request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    code: ErrorCode,
    message: String,
    metadata: HashMap<String, String>,
    violations: Vec<(String, String)>,
}

/// The result of what a request does.
pub(crate) type Outcome<T> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), metadata: HashMap::new(), violations: Vec::new() }
    }

    /// A field of the request that cannot be.
    pub(crate) fn field(field: &str, why: impl Into<String>) -> Self {
        let why = why.into();
        let mut problem = Self::new(ErrorCode::InvalidField, format!("{field}: {why}")).with("field", field);
        problem.violations.push((field.to_owned(), why));
        problem
    }

    /// A defect; the details are for the log.
    pub(crate) fn internal(what: &str, error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain = format!("{chain}: {cause}");
            source = cause.source();
        }
        tracing::error!(code = ErrorCode::Internal.as_str(), what, error = %chain, "internal error");
        Self::new(ErrorCode::Internal, format!("{what}: {chain}"))
    }

    pub(crate) fn not_found(agent: &str) -> Self {
        let shown: String = agent.chars().take(80).collect();
        Self::new(ErrorCode::AgentNotFound, format!("no agent {shown:?}")).with("agent", shown)
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.metadata.insert(key.to_owned(), value);
        }
        self
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.with("hint", hint)
    }

    pub(crate) const fn code(&self) -> ErrorCode {
        self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn meta(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }

    /// Whether trying the same again may succeed, so that the outcome is not remembered under the request id.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::LauncherUnavailable
                | ErrorCode::DiskFull
                | ErrorCode::ResourceExhausted
                | ErrorCode::ProtocolMismatch
                | ErrorCode::Internal
        )
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// Details travel in headers, of which HTTP/2 clients accept 16 KiB in all; other alphabets take three times the room.
const MAX_MESSAGE: usize = 2000;
const MAX_VALUE: usize = 300;
const MAX_VIOLATIONS: usize = 6;

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let code = grpc_code(problem.code);
        let metadata: HashMap<_, _> =
            problem.metadata.into_iter().map(|(key, value)| (key, cut(value, MAX_VALUE))).collect();
        let mut details = ErrorDetails::with_error_info(problem.code.as_str(), ERROR_DOMAIN, metadata);
        if !problem.violations.is_empty() {
            let shown = problem.violations.into_iter().take(MAX_VIOLATIONS);
            details.set_bad_request(
                shown
                    .map(|(field, why)| FieldViolation::new(cut(field, MAX_VALUE), cut(why, MAX_VALUE)))
                    .collect::<Vec<_>>(),
            );
        }
        Self::with_error_details(code, cut(problem.message, MAX_MESSAGE), details)
    }
}

/// Shortens a text, at a character.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let at = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(at);
        text.push('…');
    }
    text
}

const fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::ManifestInvalid
        | ErrorCode::InvalidField
        | ErrorCode::TooLarge
        | ErrorCode::RequestIdReused
        | ErrorCode::DependencyCycle
        | ErrorCode::SyscallUnknown
        | ErrorCode::ProfileNotFound
        | ErrorCode::WorkspaceInvalid => Code::InvalidArgument,
        ErrorCode::AgentNotFound
        | ErrorCode::TaskNotFound
        | ErrorCode::DependencyNotFound
        | ErrorCode::TenantNotFound
        | ErrorCode::ToolNotFound
        | ErrorCode::ModelNotFound
        | ErrorCode::KeyNotFound
        | ErrorCode::DecisionNotFound
        | ErrorCode::ApprovalNotFound
        | ErrorCode::FileNotFound => Code::NotFound,
        ErrorCode::FileExists | ErrorCode::NameTaken | ErrorCode::TaskExists | ErrorCode::TenantExists => {
            Code::AlreadyExists
        }
        ErrorCode::AgentNotRunning
        | ErrorCode::AgentRunning
        | ErrorCode::AgentPaused
        | ErrorCode::LayerFailed
        | ErrorCode::LayerUnavailable
        | ErrorCode::CommandNotFound
        | ErrorCode::CommandNotExecutable
        | ErrorCode::ProfileInvalid
        | ErrorCode::SecretNotFound
        | ErrorCode::TaskEnded
        | ErrorCode::DependencyFailed
        | ErrorCode::NotServed
        | ErrorCode::AttemptStale
        | ErrorCode::DeadlineUnmeetable
        | ErrorCode::ToolFailed
        | ErrorCode::ModelFailed
        | ErrorCode::FetchFailed
        | ErrorCode::FileRefused
        | ErrorCode::BackupNewer
        | ErrorCode::StateNotEmpty
        | ErrorCode::ProtocolMismatch => Code::FailedPrecondition,
        ErrorCode::PermissionDenied
        | ErrorCode::PolicyDenied
        | ErrorCode::SignatureInvalid
        | ErrorCode::BackupLocked => Code::PermissionDenied,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::LauncherUnavailable | ErrorCode::DaemonUnavailable => Code::Unavailable,
        ErrorCode::DiskFull
        | ErrorCode::ResourceExhausted
        | ErrorCode::QuotaExceeded
        | ErrorCode::BudgetExceeded => Code::ResourceExhausted,
        ErrorCode::CursorExpired => Code::OutOfRange,
        ErrorCode::AuditBroken
        | ErrorCode::BackupBroken
        | ErrorCode::CheckpointCorrupt
        | ErrorCode::JournalBroken => Code::DataLoss,
        ErrorCode::WaitTimeout | ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Internal => Code::Internal,
    }
}

impl From<aion_store::Error> for Problem {
    fn from(error: aion_store::Error) -> Self {
        match &error {
            aion_store::Error::DiskFull { free, .. } => Self::new(ErrorCode::DiskFull, error.to_string())
                .with("free_bytes", free.to_string())
                .hint("free space on the disk that holds the state folder; nothing was changed"),
            aion_store::Error::NameTaken { name, owner } => {
                Self::new(ErrorCode::NameTaken, format!("the name {name} belongs to another agent"))
                    .with("agent", owner)
                    .with("field", "metadata.name")
                    .hint(format!("choose another name, or remove the other with `aionctl rm {name}`"))
            }
            aion_store::Error::CursorExpired { oldest, .. } => {
                Self::new(ErrorCode::CursorExpired, error.to_string())
                    .with("oldest", oldest.to_string())
                    .hint(
                        "begin at the oldest record that is kept; the audit log on disk may hold older ones",
                    )
            }
            _ => Self::internal("the store failed", &error),
        }
    }
}

impl From<aion_launcher_client::Error> for Problem {
    fn from(error: aion_launcher_client::Error) -> Self {
        let code = error.code();
        if let Some(refusal) = error.refusal() {
            let named = !refusal.field.is_empty() && !refusal.message.contains(&refusal.field);
            let message = if named {
                format!("{}: {}", refusal.field, refusal.message)
            } else {
                refusal.message.clone()
            };
            let mut problem =
                Self::new(code, message).with("layer", &refusal.layer).with("field", &refusal.field);
            if refusal.errno != 0 {
                problem = problem.with("errno", refusal.errno.to_string());
            }
            if !refusal.field.is_empty() {
                problem.violations.push((refusal.field.clone(), refusal.message.clone()));
            }
            return problem;
        }
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message = format!("{message}: {source}");
        }
        let problem = Self::new(code, message);
        if code == ErrorCode::LauncherUnavailable {
            return problem.hint("is aion-launcher running? agents that run go on running without it");
        }
        problem
    }
}

impl From<aion_syscall::Refusal> for Problem {
    fn from(refusal: aion_syscall::Refusal) -> Self {
        let mut problem = Self::new(refusal.code, refusal.message.clone())
            .with("field", &refusal.field)
            .with("rule", &refusal.rule)
            .hint(&refusal.hint);
        if let Some(ms) = refusal.retry_after_ms {
            problem = problem.with("retry_after_ms", ms.to_string());
        }
        if !refusal.field.is_empty() {
            problem.violations.push((refusal.field, refusal.message));
        }
        problem
    }
}

impl From<Problem> for aion_syscall::Refusal {
    fn from(problem: Problem) -> Self {
        use aion_syscall::Reason;
        let reason = match grpc_code(problem.code) {
            _ if problem.code == ErrorCode::TooLarge => Reason::TooLarge,
            Code::InvalidArgument => Reason::Invalid,
            Code::NotFound => Reason::NotFound,
            Code::AlreadyExists => Reason::Conflict,
            Code::FailedPrecondition => Reason::Failed,
            Code::PermissionDenied => Reason::Denied,
            Code::Unauthenticated => Reason::Unauthenticated,
            Code::Unavailable => Reason::Unavailable,
            Code::ResourceExhausted if problem.code == ErrorCode::DiskFull => Reason::Unavailable,
            Code::ResourceExhausted => Reason::Exhausted,
            Code::DeadlineExceeded => Reason::Timeout,
            Code::OutOfRange => Reason::Conflict,
            _ => Reason::Internal,
        };
        let retry_after_ms = problem.meta("retry_after_ms").parse().ok();
        let (field, rule, hint) = (problem.meta("field"), problem.meta("rule"), problem.meta("hint"));
        let mut refusal =
            Self::new(reason, problem.code, problem.message.clone()).at(field).by(rule).hint(hint);
        refusal.retry_after_ms = retry_after_ms;
        refusal
    }
}

impl From<aion_tasks::Error> for Problem {
    fn from(error: aion_tasks::Error) -> Self {
        let mut problem =
            Self::new(error.code, error.message.clone()).with("field", error.field).hint(&error.hint);
        if let Some(ms) = error.retry_after_ms {
            problem = problem.with("retry_after_ms", ms.to_string());
        }
        if !error.field.is_empty() {
            problem.violations.push((error.field.to_owned(), error.message));
        }
        problem
    }
}

impl From<aion_manifest::Error> for Problem {
    fn from(error: aion_manifest::Error) -> Self {
        let mut problem = Self::new(error.code(), error.to_string());
        for found in error.problems() {
            let field = if found.field.is_empty() { "manifest" } else { &found.field };
            problem.violations.push((field.to_owned(), found.to_string()));
        }
        let Some(first) = error.problems().first() else { return problem };
        problem = problem.with("field", &first.field).with("file", &first.file).hint(&first.fix);
        if let Some(place) = first.place {
            problem = problem.with("line", place.line.to_string()).with("column", place.column.to_string());
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_code_domain_and_violations() {
        let status = Status::from(Problem::field("grace", "it is negative").hint("leave it out"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "aion"));
        assert_eq!(info.metadata.get("hint").unwrap(), "leave it out");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "grace");
    }

    #[test]
    fn what_the_launcher_refuses_names_the_field() {
        let refusal = aion_launcher_client::Refusal {
            code: ErrorCode::InvalidField,
            message: "1 is not within 2 and 9".into(),
            layer: String::new(),
            field: "limits.pids".into(),
            errno: 0,
        };
        let problem = Problem::from(aion_launcher_client::Error::Refused(refusal));
        assert_eq!(problem.message(), "limits.pids: 1 is not within 2 and 9");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut problem = Problem::new(ErrorCode::Internal, "é".repeat(4000)).with("field", "é".repeat(4000));
        problem.violations = vec![("é".repeat(4000), "é".repeat(4000)); 99];
        let status = Status::from(problem);
        assert!(status.message().len() < 2010 && status.message().ends_with('…'));
        assert!(status.details().len() < 9500, "{}", status.details().len());
    }
}
