//! `task.yml` as it is written. The comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::manifest::ApiVersion;
use super::shapes::{Scalar, TextOrList, Usd};
use super::span::Span;

/// A task for an agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "AION task")]
pub(crate) struct Task {
    /// The version of this format.
    #[serde(default, rename = "apiVersion")]
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: Option<ApiVersion>,
    /// What this file is.
    #[serde(default)]
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: Option<TaskKind>,
    /// 1 to 64 of A-Z, a-z, 0-9, '.', '_', ':' and '-'; made by AION when absent.
    #[serde(default)]
    pub(crate) task_id: Option<String>,
    /// The agent's name; or `selector`.
    #[serde(default)]
    pub(crate) agent: Option<String>,
    /// Labels that the agent must have.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) selector: BTreeMap<String, String>,
    /// What is wanted: free text, or a name that the agent knows.
    #[serde(default)]
    pub(crate) intent: Option<String>,
    /// The queue.
    #[serde(default)]
    pub(crate) queue: Option<QueueName>,
    /// Within the queue; 9 is first.
    #[serde(default)]
    #[schemars(range(max = 9))]
    pub(crate) priority: Option<u32>,
    /// Whatever the agent takes.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    #[expect(dead_code, reason = "read from the tree, where numbers are not yet texts")]
    pub(crate) params: Option<IgnoredAny>,
    /// When it must be done: a time as 2026-01-31T12:00:00Z, or from now, as 10m.
    #[serde(default)]
    pub(crate) deadline: Option<String>,
    /// Of one attempt.
    #[serde(default)]
    pub(crate) timeout: Option<Span>,
    /// When attempts fail.
    #[serde(default)]
    pub(crate) retry: Option<Retry>,
    /// What it may cost.
    #[serde(default)]
    pub(crate) budget: Option<TaskBudget>,
    /// Tasks that must have succeeded first.
    #[serde(default)]
    pub(crate) after: Option<TextOrList>,
    /// What it takes.
    #[serde(default)]
    pub(crate) needs: Option<Needs>,
    /// Anything to find it by.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether its effects may be repeated without harm.
    #[serde(default)]
    pub(crate) idempotent: bool,
    /// How long it is expected to run.
    #[serde(default)]
    pub(crate) estimate: Option<Span>,
}

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum TaskKind {
    /// A task.
    Task,
}

/// The queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueueName {
    /// For what cannot wait.
    High,
    /// For everything else.
    Normal,
    /// For what may take its time.
    Low,
}

/// When attempts fail.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// Attempts that may fail.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) max_attempts: u32,
    /// Before the second.
    #[serde(default)]
    pub(crate) backoff: Option<Span>,
    /// At most.
    #[serde(default)]
    pub(crate) max_backoff: Option<Span>,
    /// How it grows.
    #[serde(default)]
    #[schemars(with = "Option<f64>")]
    pub(crate) factor: Option<String>,
}

/// What a task may cost.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskBudget {
    /// US dollars.
    #[serde(default)]
    pub(crate) usd_max: Option<Usd>,
    /// Tokens.
    #[serde(default)]
    pub(crate) tokens_max: Option<u64>,
}

/// What a task takes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Needs {
    /// Slots.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65536))]
    pub(crate) slots: Option<u32>,
    /// GPUs.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub(crate) gpu: Option<u32>,
}
