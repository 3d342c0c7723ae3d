//! `scheduler.yaml` as it is written. The comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;

use aion_types::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use super::manifest::ApiVersion;
use super::shapes::Usd;
use super::span::Span;

/// Who runs next, who makes room, and what nobody gets more of. Every field may be left out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "AION scheduler")]
pub(crate) struct Scheduler {
    /// The version of this format.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: SchedulerKind,
    /// What runs at once on this node.
    #[serde(default)]
    pub(crate) node: Node,
    /// The queues' shares of what a tenant gets.
    #[serde(default)]
    pub(crate) queues: Queues,
    /// Between tenants.
    #[serde(default)]
    pub(crate) fairness: Fairness,
    /// When work makes room for work.
    #[serde(default)]
    pub(crate) preemption: Preemption,
    /// Checkpoints.
    #[serde(default)]
    pub(crate) checkpoints: Checkpoints,
    /// How long what has ended is kept.
    #[serde(default)]
    pub(crate) retention: Retention,
    /// What each tenant gets that `tenants` says nothing else about.
    #[serde(default)]
    pub(crate) quotas: Quotas,
    /// Tenants with shares and quotas of their own.
    #[serde(default)]
    pub(crate) tenants: BTreeMap<String, Tenant>,
}

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum SchedulerKind {
    /// The scheduler's settings.
    Scheduler,
}

/// What runs at once on this node.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    /// Slots: a task takes one, or as many as it needs. Twice the processors when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65536))]
    pub(crate) slots: Option<u32>,
    /// GPUs that tasks can have.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub(crate) gpus: Option<u32>,
}

/// The queues.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queues {
    /// For what cannot wait. The only one that preempts.
    #[serde(default)]
    pub(crate) high: Queue,
    /// For everything else.
    #[serde(default)]
    pub(crate) normal: Queue,
    /// For what may take its time.
    #[serde(default)]
    pub(crate) low: Queue,
}

/// A queue.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    /// Its share, in relation to the others'. 8, 3 and 1 when absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) weight: Option<u32>,
}

/// Between tenants, and within a queue.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fairness {
    /// The share of a tenant that has none of its own.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10000))]
    pub(crate) default_weight: Option<u32>,
    /// How long a task of priority 9 without a deadline waits patiently; each step down doubles it.
    #[serde(default)]
    pub(crate) patience: Option<Span>,
    /// What a task is thought to take before its agent has run any.
    #[serde(default)]
    pub(crate) default_estimate: Option<Span>,
}

/// When work makes room for work.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preemption {
    /// Per cent of the slots that high tasks may take by preempting.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub(crate) high_cap_percent: Option<u32>,
    /// How long a task runs undisturbed.
    #[serde(default)]
    pub(crate) min_run: Option<Span>,
    /// How often a task is preempted at most.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub(crate) max_per_task: Option<u32>,
    /// What frozen agents may hold of the memory.
    #[serde(default)]
    pub(crate) frozen_memory_max: Option<ByteSize>,
}

/// Checkpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoints {
    /// How often running tasks of services leave one, unless the manifest says; 0: only when they make room.
    #[serde(default)]
    pub(crate) every: Option<Span>,
    /// The largest.
    #[serde(default)]
    pub(crate) max_size: Option<ByteSize>,
    /// How many of a task are kept.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub(crate) keep: Option<u32>,
}

/// How long what has ended is kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retention {
    /// Tasks that have ended, with history and result.
    #[serde(default)]
    pub(crate) ended: Option<Span>,
    /// How many of them at most, of all tenants.
    #[serde(default)]
    pub(crate) max_ended: Option<u64>,
}

/// What is not exceeded: tasks wait instead. What is absent is not limited.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quotas {
    /// Tasks that run at once.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65536))]
    pub(crate) max_concurrency: Option<u32>,
    /// Tokens in a minute.
    #[serde(default)]
    pub(crate) token_rate: Option<u64>,
    /// US dollars in an hour.
    #[serde(default)]
    pub(crate) usd_per_hour: Option<Usd>,
    /// Tasks begun in a minute.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub(crate) tasks_per_minute: Option<u32>,
    /// Checkpoints that are kept.
    #[serde(default)]
    pub(crate) checkpoint_bytes: Option<ByteSize>,
    /// Tasks that wait; one more is refused. Only of tenants.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) max_queued: Option<u32>,
}

/// A tenant.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Its share of the node, in relation to the others'.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10000))]
    pub(crate) weight: Option<u32>,
    /// In place of the general ones.
    #[serde(default)]
    pub(crate) quotas: Quotas,
    /// Its agents that have limits of their own, by name.
    #[serde(default)]
    pub(crate) agents: BTreeMap<String, Quotas>,
}
