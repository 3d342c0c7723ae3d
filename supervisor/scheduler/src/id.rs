//! Identities of tasks and attempts, and the two small enumerations that every part uses.

use std::fmt;
use std::sync::Arc;

/// A name that comes out: shared, so that events and effects cost no copy.
pub type Name = Arc<str>;

/// A task's number: unique on the node, in order of submission, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TaskNumber(pub u64);

impl fmt::Display for TaskNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A fencing token. The epoch grows with each start of the daemon, the sequence within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Attempt {
    /// The start of the daemon that issued it.
    pub epoch: u64,
    /// Its number within the epoch, from 1.
    pub seq: u64,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl std::str::FromStr for Attempt {
    type Err = TaskIdError;
    fn from_str(text: &str) -> Result<Self, TaskIdError> {
        let parts = text.split_once('-').and_then(|(e, s)| Some((e.parse().ok()?, s.parse().ok()?)));
        parts.map(|(epoch, seq)| Self { epoch, seq }).ok_or(TaskIdError::NotAttempt)
    }
}

/// Why a text is not a task's id or an attempt's token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskIdError {
    /// Empty or too long.
    #[error("it has {len} characters, 1 to 64 are allowed")]
    Length {
        /// How long it is.
        len: usize,
    },
    /// A character that is not allowed.
    #[error("character {ch:?} is not allowed: use A-Z, a-z, 0-9, '.', '_', ':' and '-'")]
    BadChar {
        /// The character.
        ch: char,
    },
    /// Not two numbers with a '-' between them.
    #[error("it is not an attempt's token")]
    NotAttempt,
}

/// A task's id, unique within its tenant: 1 to 64 of A-Z a-z 0-9 . _ : -
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// Checks the text.
    ///
    /// # Errors
    /// [`TaskIdError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, TaskIdError> {
        if text.is_empty() || text.len() > 64 {
            return Err(TaskIdError::Length { len: text.chars().count() });
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-'))) {
            Some(ch) => Err(TaskIdError::BadChar { ch }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn name(&self) -> Name {
        self.0.clone()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The queue that a task stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Class {
    /// The only one that preempts.
    High,
    /// What a task is in when it says nothing.
    #[default]
    Normal,
    /// Preempted first.
    Low,
}

impl Class {
    /// All, highest first.
    pub const ALL: [Class; 3] = [Class::High, Class::Normal, Class::Low];

    /// The word in requests and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum State {
    /// Waits for tasks that it depends on.
    Blocked,
    /// Ready; waits for a slot.
    #[default]
    Queued,
    /// Waits for a backoff or a quota.
    Waiting,
    /// An attempt is assigned or runs.
    Running,
    /// Its attempt was asked to make room.
    Preempting,
    /// Its attempt is frozen in place.
    Frozen,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Its deadline passed before it could run.
    Expired,
}

impl State {
    /// All of them.
    pub const ALL: [State; 10] = [
        State::Blocked,
        State::Queued,
        State::Waiting,
        State::Running,
        State::Preempting,
        State::Frozen,
        State::Succeeded,
        State::Failed,
        State::Cancelled,
        State::Expired,
    ];

    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Preempting => "preempting",
            Self::Frozen => "frozen",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Nothing follows.
    #[must_use]
    pub const fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }
}
