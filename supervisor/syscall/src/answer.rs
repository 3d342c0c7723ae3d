//! The answer of the contract `aion.syscall.v1`.

use serde::{Deserialize, Serialize};

use crate::refusal::{Reason, Refusal};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Done.
    Ok,
    /// A rule, a budget or a missing signature stopped it; nothing was done.
    Denied,
    /// It was not valid, or what should do it failed.
    Error,
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// From the request's arrival to its answer, in milliseconds.
    pub latency_ms: u64,
    /// US dollars.
    pub cost_usd: f64,
    /// Tokens read by a model.
    pub tokens_in: u64,
    /// Tokens written by a model.
    pub tokens_out: u64,
    /// Whether the model's backend did not say so, and cost and tokens are estimated.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// What did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The kernel itself.
    Kernel,
    /// A tool.
    Module,
    /// A model.
    Model,
}

/// What did the work: `tooling/web_search@1.2.0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// What kind of thing.
    pub kind: EngineKind,
    /// Name and version.
    pub name: String,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The stable code, with a page in `docs/errors/`.
    pub code: String,
    /// In words.
    pub message: String,
    /// The field of the request that it is about.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub field: String,
    /// The rule that decided, with its file.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub rule: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub hint: String,
    /// When it may be tried again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_after_ms: Option<u64>,
}

impl From<&Refusal> for ErrorBody {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            message: refusal.message.clone(),
            field: refusal.field.clone(),
            rule: refusal.rule.clone(),
            hint: refusal.hint.clone(),
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// How it ended.
    pub status: Status,
    /// What came of it; null when nothing did.
    pub result: serde_json::Value,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorBody>,
    /// What it used.
    pub usage: Usage,
    /// What did the work.
    pub engine: Engine,
    /// Names the call in the audit log; `aionctl explain` shows the decision.
    pub audit_id: String,
}

impl Refusal {
    /// The status of an answer with this refusal.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self.reason {
            Reason::Unauthenticated | Reason::Denied | Reason::Exhausted => Status::Denied,
            _ => Status::Error,
        }
    }
}
