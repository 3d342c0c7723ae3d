//! Why a system call was not done, or did not come to its end.

use std::fmt;

use aion_types::ErrorCode;

/// What kind of refusal it is: decides the status, and the number on HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The signature, the time or the nonce is not right, or there is none.
    Unauthenticated,
    /// The caller may not do this.
    Denied,
    /// The request is not valid.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// It does not fit what is there.
    Conflict,
    /// Too large.
    TooLarge,
    /// A rate, a quota or a budget leaves no room.
    Exhausted,
    /// It took longer than it may.
    Timeout,
    /// What should do the work failed: a tool, a model, a host.
    Failed,
    /// A part of the kernel is not there just now.
    Unavailable,
    /// A defect.
    Internal,
}

/// Why a call was refused or failed. Nothing in it is secret: all of it is told to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub reason: Reason,
    /// The stable code, with a page in `docs/errors/`.
    pub code: ErrorCode,
    /// In words.
    pub message: String,
    /// The field of the request that it is about; may be empty.
    pub field: String,
    /// The rule that decided, with its file; may be empty.
    pub rule: String,
    /// What to do; may be empty.
    pub hint: String,
    /// When it may be tried again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// With a message alone.
    #[must_use]
    pub fn new(reason: Reason, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            reason,
            code,
            message: message.into(),
            field: String::new(),
            rule: String::new(),
            hint: String::new(),
            retry_after_ms: None,
        }
    }

    /// A field that is not valid.
    #[must_use]
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, ErrorCode::InvalidField, message).at(field)
    }

    /// A denial by a rule.
    #[must_use]
    pub fn denied(message: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::new(Reason::Denied, ErrorCode::PolicyDenied, message).by(rule)
    }

    /// Names the rule.
    #[must_use]
    pub fn by(mut self, rule: impl Into<String>) -> Self {
        self.rule = rule.into();
        self
    }

    /// Names the field. A name that the caller has made up may hold anything; terminals and logs are spared its control characters.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        let field: String = field.into();
        self.field = if field.contains(char::is_control) { field.escape_debug().to_string() } else { field };
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Says when to try again.
    #[must_use]
    pub const fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}
