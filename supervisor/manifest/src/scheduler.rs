//! `profiles/scheduler.yaml`: slots, shares, preemption, quotas.

use std::collections::BTreeMap;

use aion_types::{AgentName, ErrorCode, TenantId};

use crate::error::Error;
use crate::problems::Problems;
use crate::raw::{self, Span};
use crate::yaml;

/// The file as AION ships it.
const BUILTIN: &str = include_str!("../../../profiles/scheduler.yaml");

/// The scheduler's settings, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerFile {
    /// Slots of the node; none: as many as its processors suggest.
    pub slots: Option<u32>,
    /// GPUs of the node.
    pub gpus: u32,
    /// Shares of high, normal and low.
    pub queue_weights: [u32; 3],
    /// The share of a tenant that has none of its own.
    pub default_weight: u32,
    /// How long a task of priority 9 waits patiently.
    pub patience: Span,
    /// What a task of an unknown agent is thought to take.
    pub default_estimate: Span,
    /// Per cent of the slots that high tasks may take by preempting.
    pub high_cap_percent: u32,
    /// How long a task runs undisturbed.
    pub min_run: Span,
    /// How often a task is preempted at most.
    pub max_per_task: u32,
    /// What frozen agents may hold of the memory.
    pub frozen_memory_max: u64,
    /// How often running tasks leave a checkpoint; 0: never by themselves.
    pub checkpoint_every: Span,
    /// The largest checkpoint.
    pub checkpoint_max: u64,
    /// How many checkpoints of a task are kept.
    pub checkpoint_keep: u32,
    /// How long ended tasks are kept.
    pub keep_ended: Span,
    /// How many of them.
    pub max_ended: u64,
    /// The quotas of a tenant that has none of its own.
    pub quotas: Quotas,
    /// Tenants with settings of their own.
    pub tenants: BTreeMap<TenantId, TenantShare>,
}

/// What is not exceeded; none: not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Tasks that run at once.
    pub max_concurrency: Option<u32>,
    /// Tokens in a minute.
    pub token_rate: Option<u64>,
    /// Millionths of a US dollar in an hour.
    pub usd_micros_per_hour: Option<u64>,
    /// Tasks begun in a minute.
    pub tasks_per_minute: Option<u32>,
    /// Checkpoints that are kept.
    pub checkpoint_bytes: Option<u64>,
    /// Tasks that wait.
    pub max_queued: Option<u32>,
}

/// A tenant's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantShare {
    /// Its share of the node.
    pub weight: u32,
    /// Its quotas: its own, else the general ones.
    pub quotas: Quotas,
    /// Agents with quotas of their own.
    pub agents: BTreeMap<AgentName, Quotas>,
}

impl SchedulerFile {
    /// Reads the file's content; `file` is its name for messages.
    ///
    /// # Errors
    /// `PROFILE_INVALID` with every problem that the file has, its line, column and field.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let failed = |problems| Error::new(ErrorCode::ProfileInvalid, problems);
        let tree = yaml::parse(bytes, file).map_err(|m| failed(vec![*m.problem]))?;
        let raw: raw::Scheduler = yaml::whole_from_node(&tree, file).map_err(failed)?;
        let mut check = Problems::of(&tree, file);
        let general = check.quotas("quotas", &raw.quotas, Quotas::default());
        let default_weight =
            check.range("fairness.default_weight", raw.fairness.default_weight.unwrap_or(1), 1, 10_000);
        let mut tenants = BTreeMap::new();
        for (name, tenant) in &raw.tenants {
            let field = format!("tenants.{name}");
            let weight =
                check.range(&format!("{field}.weight"), tenant.weight.unwrap_or(default_weight), 1, 10_000);
            let quotas = check.quotas(&format!("{field}.quotas"), &tenant.quotas, general);
            let mut agents = BTreeMap::new();
            for (agent, limits) in &tenant.agents {
                let field = format!("{field}.agents.{agent}");
                let limits_of = check.quotas(&field, limits, Quotas::default());
                if limits.max_queued.is_some() {
                    check.wrong(
                        &format!("{field}.max_queued"),
                        "agents have no queue of their own",
                        "set it for the tenant",
                    );
                }
                match AgentName::parse(agent) {
                    Ok(name) => drop(agents.insert(name, limits_of)),
                    Err(error) => check.wrong(&field, format!("this is not an agent's name: {error}"), ""),
                }
            }
            match TenantId::parse(name) {
                Ok(id) => drop(tenants.insert(id, TenantShare { weight, quotas, agents })),
                Err(error) => check.wrong(&field, format!("this is not a tenant's name: {error}"), ""),
            }
        }
        let queues = &raw.queues;
        let done = Self {
            slots: raw.node.slots.map(|n| check.range("node.slots", n, 1, 65_536)),
            gpus: check.range("node.gpus", raw.node.gpus.unwrap_or(0), 0, 1024),
            queue_weights: [
                check.range("queues.high.weight", queues.high.weight.unwrap_or(8), 1, 1000),
                check.range("queues.normal.weight", queues.normal.weight.unwrap_or(3), 1, 1000),
                check.range("queues.low.weight", queues.low.weight.unwrap_or(1), 1, 1000),
            ],
            default_weight,
            patience: check.span(
                "fairness.patience",
                raw.fairness.patience.unwrap_or(Span(1000)),
                1,
                3_600_000,
            ),
            default_estimate: check.span(
                "fairness.default_estimate",
                raw.fairness.default_estimate.unwrap_or(Span(10_000)),
                1,
                86_400_000,
            ),
            high_cap_percent: check.range(
                "preemption.high_cap_percent",
                raw.preemption.high_cap_percent.unwrap_or(50),
                0,
                100,
            ),
            min_run: check.span(
                "preemption.min_run",
                raw.preemption.min_run.unwrap_or(Span(1000)),
                0,
                86_400_000,
            ),
            max_per_task: check.range(
                "preemption.max_per_task",
                raw.preemption.max_per_task.unwrap_or(5),
                0,
                1000,
            ),
            frozen_memory_max: raw.preemption.frozen_memory_max.map_or(1 << 30, |size| size.0),
            checkpoint_every: check.span(
                "checkpoints.every",
                raw.checkpoints.every.unwrap_or(Span(60_000)),
                0,
                86_400_000,
            ),
            checkpoint_max: raw.checkpoints.max_size.map_or(256 << 20, |size| size.0),
            checkpoint_keep: check.range("checkpoints.keep", raw.checkpoints.keep.unwrap_or(2), 1, 100),
            keep_ended: check.span(
                "retention.ended",
                raw.retention.ended.unwrap_or(Span(7 * 86_400_000)),
                0,
                u64::MAX,
            ),
            max_ended: raw.retention.max_ended.unwrap_or(1_000_000),
            quotas: general,
            tenants,
        };
        let limit = 4 << 30;
        if done.checkpoint_max == 0 || done.checkpoint_max > limit {
            check.wrong("checkpoints.max_size", "it is out of range", "use 1 to 4Gi");
        }
        check.or(ErrorCode::ProfileInvalid, done)
    }

    /// The settings that AION ships.
    #[must_use]
    pub fn builtin() -> Self {
        match Self::parse(BUILTIN.as_bytes(), "scheduler.yaml") {
            Ok(settings) => settings,
            // A test reads the file as it is compiled in, so this cannot be reached.
            Err(error) => unreachable!("the built-in scheduler settings are wrong: {error}"),
        }
    }
}

impl Problems<'_> {
    fn quotas(&mut self, field: &str, given: &raw::SchedulerQuotas, general: Quotas) -> Quotas {
        let zero = [
            ("max_concurrency", given.max_concurrency == Some(0)),
            ("token_rate", given.token_rate == Some(0)),
            ("tasks_per_minute", given.tasks_per_minute == Some(0)),
            ("max_queued", given.max_queued == Some(0)),
        ];
        for (name, is_zero) in zero {
            if is_zero {
                self.wrong(
                    &format!("{field}.{name}"),
                    "0 would let nothing run",
                    "use at least 1, or leave it out",
                );
            }
        }
        Quotas {
            max_concurrency: given.max_concurrency.or(general.max_concurrency),
            token_rate: given.token_rate.or(general.token_rate),
            usd_micros_per_hour: given.usd_per_hour.map(|usd| usd.micros).or(general.usd_micros_per_hour),
            tasks_per_minute: given.tasks_per_minute.or(general.tasks_per_minute),
            checkpoint_bytes: given.checkpoint_bytes.map(|size| size.0).or(general.checkpoint_bytes),
            max_queued: given.max_queued.or(general.max_queued),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: aion.os/v1\nkind: Scheduler\n";

    #[test]
    fn what_ships_parses_and_says_what_an_empty_file_says() {
        let builtin = SchedulerFile::builtin();
        let empty = SchedulerFile::parse(HEAD.as_bytes(), "s.yaml").unwrap();
        assert_eq!(builtin.queue_weights, [8, 3, 1]);
        assert_eq!(SchedulerFile { quotas: builtin.quotas, ..empty }, builtin);
    }

    #[test]
    fn tenants_inherit_what_they_do_not_say() {
        let text = format!(
            "{HEAD}quotas: {{max_queued: 10, token_rate: 5}}\ntenants:\n  acme: {{weight: 4, quotas: {{token_rate: 9}}, agents: {{w: {{max_concurrency: 2}}}}}}\n"
        );
        let file = SchedulerFile::parse(text.as_bytes(), "s.yaml").unwrap();
        let acme = &file.tenants[&TenantId::parse("acme").unwrap()];
        assert_eq!((acme.weight, acme.quotas.token_rate, acme.quotas.max_queued), (4, Some(9), Some(10)));
        assert_eq!(acme.agents.values().next().unwrap().max_concurrency, Some(2));
    }

    #[test]
    fn every_problem_has_its_place() {
        let text = format!(
            "{HEAD}node: {{slots: 0}}\npreemption:\n  high_cap_percent: 101\ntenants: {{Acme Co: {{weight: 0}}}}\n"
        );
        let said = SchedulerFile::parse(text.as_bytes(), "s.yaml").unwrap_err().to_string();
        for part in [
            "s.yaml:3:15: node.slots",
            "s.yaml:5:21: preemption.high_cap_percent",
            "tenants.Acme Co.weight",
            "not a tenant's name",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let unknown = SchedulerFile::parse(format!("{HEAD}slots: 3\n").as_bytes(), "s.yaml").unwrap_err();
        assert!(unknown.to_string().contains("slots"), "{unknown}");
    }
}
