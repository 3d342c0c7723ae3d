//! Why a command was refused. A refused command changed nothing.

use aion_types::ErrorCode;

use crate::State;

/// The reason, with what a client needs to do better.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field is not valid.
    #[error("{field}: {reason}")]
    InvalidField {
        /// Which, as the request names it.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// No such agent.
    #[error("there is no agent {agent}")]
    AgentNotFound {
        /// The name.
        agent: String,
    },
    /// The node or the agents do not have what the task needs.
    #[error("nothing here serves it: {reason}")]
    NotServed {
        /// What is missing.
        reason: String,
    },
    /// No such task in memory; the engine looks into the journal for one that has ended.
    #[error("there is no task {task}")]
    TaskNotFound {
        /// The id.
        task: String,
    },
    /// Another task has this id.
    #[error("task {task} exists and was submitted with other fields")]
    TaskExists {
        /// The id.
        task: String,
    },
    /// The task has ended.
    #[error("task {task} has ended: {}", state.as_str())]
    TaskEnded {
        /// The id.
        task: String,
        /// How.
        state: State,
    },
    /// The token is not of an attempt that counts.
    #[error("attempt {attempt} does not count any more")]
    AttemptStale {
        /// The token.
        attempt: crate::Attempt,
    },
    /// The deadline cannot be met.
    #[error("the deadline cannot be met: {reason}; the earliest that can is in {earliest_ms} ms")]
    DeadlineUnmeetable {
        /// What is in the way.
        reason: String,
        /// From now, by estimates.
        earliest_ms: u64,
    },
    /// A task that this one waits for does not exist.
    #[error("there is no task {task} to wait for")]
    DependencyNotFound {
        /// The id.
        task: String,
    },
    /// A task that this one waits for ended badly, so it could never run.
    #[error("task {task}, which must succeed first, has ended: {}", state.as_str())]
    DependencyFailed {
        /// The id.
        task: String,
        /// How it ended.
        state: State,
    },
    /// The task waits for itself.
    #[error("task {task} would wait for itself")]
    DependencyCycle {
        /// The id.
        task: String,
    },
    /// A bounded queue is full.
    #[error("the queue of tenant {tenant} is full: {limit} tasks wait")]
    QueueFull {
        /// Whose.
        tenant: String,
        /// Its limit.
        limit: u64,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The node holds all the tasks that it may.
    #[error("the node holds {limit} tasks, which is its limit")]
    NodeFull {
        /// Its limit.
        limit: u64,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A quota leaves no room for it, now or ever.
    #[error("quota {quota} of {limit} is used up ({used})")]
    QuotaExceeded {
        /// Which.
        quota: &'static str,
        /// How much there is.
        limit: u64,
        /// How much would be used.
        used: u64,
    },
    /// The configuration is not valid.
    #[error("configuration: {0}")]
    Config(#[from] crate::ConfigError),
    /// The epoch is not above the last one.
    #[error("epoch {epoch} is not above {last}")]
    EpochNotNew {
        /// The one that was given.
        epoch: u64,
        /// The last one.
        last: u64,
    },
}

impl Refusal {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidField { .. } | Self::DependencyCycle { .. } | Self::Config(_) => {
                ErrorCode::InvalidField
            }
            Self::AgentNotFound { .. } => ErrorCode::AgentNotFound,
            Self::TaskNotFound { .. } => ErrorCode::TaskNotFound,
            Self::TaskExists { .. } => ErrorCode::TaskExists,
            Self::TaskEnded { .. } => ErrorCode::TaskEnded,
            Self::AttemptStale { .. } => ErrorCode::AttemptStale,
            Self::DeadlineUnmeetable { .. } => ErrorCode::DeadlineUnmeetable,
            Self::DependencyNotFound { .. } => ErrorCode::TaskNotFound,
            Self::DependencyFailed { .. } => ErrorCode::TaskEnded,
            Self::NotServed { .. } => ErrorCode::NotServed,
            Self::QueueFull { .. } | Self::NodeFull { .. } | Self::QuotaExceeded { .. } => {
                ErrorCode::ResourceExhausted
            }
            Self::EpochNotNew { .. } => ErrorCode::Internal,
        }
    }

    /// When it is worth another try.
    #[must_use]
    pub const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::QueueFull { retry_after_ms, .. } | Self::NodeFull { retry_after_ms, .. } => {
                Some(*retry_after_ms)
            }
            _ => None,
        }
    }
}
