//! Settings, as plain data. They come from `scheduler.yaml`, are checked here once more, and can change at any time.

use std::collections::BTreeMap;

use aion_types::{AgentName, TenantId};

/// A field that is not valid, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    /// Which field.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// All settings of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Slots of the node: how much runs at once.
    pub slots: u32,
    /// GPUs of the node.
    pub gpus: u32,
    /// Shares of the classes within a lane.
    pub queues: QueueWeights,
    /// How long a task of priority 9 waits before those that came later stand behind it; each step down doubles it.
    pub patience_ms: u64,
    /// How long a task runs, as long as nothing is known of it.
    pub default_estimate_ms: u64,
    /// Making room.
    pub preemption: Preemption,
    /// Added to each estimate when a deadline is admitted: dispatch and recording take time.
    pub deadline_margin_ms: u64,
    /// How long an attempt that was cancelled has before it is stopped.
    pub cancel_grace_ms: u64,
    /// How long a service agent has to attach again before its attempts are stopped.
    pub reattach_ms: u64,
    /// After how long `Stop` is said again.
    pub stop_retry_ms: u64,
    /// After how long `Wake` is said again while tasks wait.
    pub wake_retry_ms: u64,
    /// How many checkpoints of a task are kept.
    pub checkpoint_keep: u32,
    /// How many ended tasks' ids stay in memory: at least as many as can end while two batches are on their way to the disk.
    pub ended_in_memory: usize,
    /// Sizes and counts that are refused.
    pub limits: Limits,
    /// Of tenants that are not named.
    pub tenant_default: TenantConfig,
    /// Of tenants by name.
    pub tenants: BTreeMap<TenantId, TenantConfig>,
    /// Keys the table of ids, so that nobody can choose ids that collide. Changes nothing that comes out.
    pub hash_seed: u64,
}

/// Shares of the three classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueWeights {
    /// Of high.
    pub high: u32,
    /// Of normal.
    pub normal: u32,
    /// Of low.
    pub low: u32,
}

/// How high tasks get room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preemption {
    /// Per cent of the slots up to which high tasks may preempt; 0: never. A node has at least one such slot else.
    pub high_cap_percent: u32,
    /// How long an attempt runs before it may be preempted.
    pub min_run_ms: u64,
    /// How often a task is preempted at most.
    pub max_per_task: u32,
    /// Bytes of agents that may be frozen at once.
    pub frozen_memory_max: u64,
}

/// What one tenant may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantConfig {
    /// Its share of the node.
    pub weight: u32,
    /// What it does not exceed.
    pub quotas: Quotas,
    /// Tasks that wait or run, at most.
    pub max_queued: u64,
    /// Quotas of its agents by name.
    pub agents: BTreeMap<AgentName, Quotas>,
}

/// What is not exceeded; none: not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Tasks that run at once.
    pub max_concurrency: Option<u32>,
    /// Tokens in any minute.
    pub token_rate: Option<u64>,
    /// Millionths of a dollar in any hour.
    pub usd_micros_per_hour: Option<u64>,
    /// Attempts begun in any minute.
    pub tasks_per_minute: Option<u64>,
    /// Bytes of checkpoints that are kept.
    pub checkpoint_bytes: Option<u64>,
}

/// Sizes and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tasks on the node.
    pub tasks: u64,
    /// Tasks that one task waits for.
    pub after: usize,
    /// Tasks that wait for one task.
    pub dependants: usize,
    /// Labels of a selector or an agent.
    pub labels: usize,
    /// Failed attempts of a task.
    pub attempts: u32,
    /// How far ahead a deadline, and how long a timeout or an estimate may be.
    pub horizon_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            slots: 4,
            gpus: 0,
            queues: QueueWeights { high: 8, normal: 3, low: 1 },
            patience_ms: 1000,
            default_estimate_ms: 10_000,
            preemption: Preemption {
                high_cap_percent: 50,
                min_run_ms: 1000,
                max_per_task: 5,
                frozen_memory_max: 1 << 30,
            },
            deadline_margin_ms: 50,
            cancel_grace_ms: 5000,
            reattach_ms: 30_000,
            stop_retry_ms: 5000,
            wake_retry_ms: 30_000,
            checkpoint_keep: 2,
            ended_in_memory: 65_536,
            limits: Limits {
                tasks: 10_000_000,
                after: 64,
                dependants: 1024,
                labels: 16,
                attempts: 1000,
                horizon_ms: 366 * 86_400_000,
            },
            tenant_default: TenantConfig::default(),
            tenants: BTreeMap::new(),
            hash_seed: 0,
        }
    }
}

impl Default for TenantConfig {
    fn default() -> Self {
        Self { weight: 1, quotas: Quotas::default(), max_queued: 1_000_000, agents: BTreeMap::new() }
    }
}

impl Quotas {
    /// Of each the smaller one.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            max_concurrency: least(self.max_concurrency, other.max_concurrency),
            token_rate: least(self.token_rate, other.token_rate),
            usd_micros_per_hour: least(self.usd_micros_per_hour, other.usd_micros_per_hour),
            tasks_per_minute: least(self.tasks_per_minute, other.tasks_per_minute),
            checkpoint_bytes: least(self.checkpoint_bytes, other.checkpoint_bytes),
        }
    }

    fn check(&self, field: &str) -> Result<(), ConfigError> {
        let zero = [
            ("max_concurrency", self.max_concurrency == Some(0)),
            ("token_rate", self.token_rate == Some(0)),
            ("usd_per_hour", self.usd_micros_per_hour == Some(0)),
            ("tasks_per_minute", self.tasks_per_minute == Some(0)),
        ];
        match zero.into_iter().find(|(_, zero)| *zero) {
            Some((name, _)) => Err(wrong(format!("{field}.{name}"), "it is 0, so nothing could ever run")),
            None => Ok(()),
        }
    }
}

fn wrong(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError { field: field.into(), reason: reason.into() }
}

fn range(field: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(wrong(field, format!("it is {value}, and must be {min} to {max}")))
}

impl TenantConfig {
    fn check(&self, field: &str) -> Result<(), ConfigError> {
        range(&format!("{field}.weight"), self.weight.into(), 1, 10_000)?;
        range(&format!("{field}.max_queued"), self.max_queued, 1, u64::MAX)?;
        self.quotas.check(&format!("{field}.quotas"))?;
        self.agents.iter().try_for_each(|(name, quotas)| quotas.check(&format!("{field}.agents.{name}")))
    }
}

impl Config {
    const DAY: u64 = 86_400_000;

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not valid.
    pub fn validate(&self) -> Result<(), ConfigError> {
        range("node.slots", self.slots.into(), 1, 65_536)?;
        range("node.gpus", self.gpus.into(), 0, 1024)?;
        range("queues.high.weight", self.queues.high.into(), 1, 1000)?;
        range("queues.normal.weight", self.queues.normal.into(), 1, 1000)?;
        range("queues.low.weight", self.queues.low.into(), 1, 1000)?;
        range("fairness.patience", self.patience_ms, 1, Self::DAY)?;
        range("fairness.default_estimate", self.default_estimate_ms, 1, Self::DAY)?;
        range("preemption.high_cap_percent", self.preemption.high_cap_percent.into(), 0, 100)?;
        range("preemption.min_run", self.preemption.min_run_ms, 0, Self::DAY)?;
        range("preemption.max_per_task", self.preemption.max_per_task.into(), 0, 1000)?;
        range("deadline_margin", self.deadline_margin_ms, 0, Self::DAY)?;
        range("cancel_grace", self.cancel_grace_ms, 0, Self::DAY)?;
        range("reattach", self.reattach_ms, 1, Self::DAY)?;
        range("stop_retry", self.stop_retry_ms, 1, Self::DAY)?;
        range("wake_retry", self.wake_retry_ms, 1, Self::DAY)?;
        range("checkpoints.keep", self.checkpoint_keep.into(), 1, 100)?;
        range("limits.tasks", self.limits.tasks, 1, 1 << 31)?;
        range("limits.horizon", self.limits.horizon_ms, 1, 3660 * Self::DAY)?;
        self.tenant_default.check("quotas")?;
        self.tenants.iter().try_for_each(|(name, tenant)| tenant.check(&format!("tenants.{name}")))
    }

    pub(crate) fn weight(&self, class: crate::Class) -> u32 {
        match class {
            crate::Class::High => self.queues.high,
            crate::Class::Normal => self.queues.normal,
            crate::Class::Low => self.queues.low,
        }
    }

    /// Slots up to which high tasks may preempt.
    pub(crate) fn high_cap(&self) -> u32 {
        match self.preemption.high_cap_percent {
            0 => 0,
            percent => {
                u32::try_from(u64::from(self.slots) * u64::from(percent) / 100).unwrap_or(u32::MAX).max(1)
            }
        }
    }

    pub(crate) fn tenant(&self, name: &str) -> &TenantConfig {
        TenantId::parse(name).ok().and_then(|id| self.tenants.get(&id)).unwrap_or(&self.tenant_default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().unwrap_err().field
        };
        assert_eq!(wrong(|c| c.slots = 0), "node.slots");
        assert_eq!(wrong(|c| c.queues.low = 0), "queues.low.weight");
        assert_eq!(wrong(|c| c.preemption.high_cap_percent = 101), "preemption.high_cap_percent");
        assert_eq!(wrong(|c| c.tenant_default.quotas.token_rate = Some(0)), "quotas.quotas.token_rate");
        assert_eq!(
            wrong(|c| {
                let tenant = TenantConfig { weight: 0, ..TenantConfig::default() };
                c.tenants.insert(TenantId::parse("acme").unwrap(), tenant);
            }),
            "tenants.acme.weight"
        );
    }
}
