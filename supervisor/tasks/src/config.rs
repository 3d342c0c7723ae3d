//! From `scheduler.yaml` to what the core and the engine go by.

use aion_manifest::{Quotas as FileQuotas, SchedulerFile};
use aion_scheduler::{Config, Preemption, QueueWeights, Quotas, TenantConfig};

/// What the engine itself goes by; it may change while it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// The largest checkpoint.
    pub(crate) checkpoint_max: u64,
    /// Between two checkpoints of a running task whose agent's manifest says nothing.
    pub(crate) checkpoint_every_ms: u64,
    /// How long ended tasks are kept, in ms.
    pub(crate) keep_ended_ms: u64,
    /// How many of them.
    pub(crate) max_ended: u64,
}

impl Settings {
    pub(crate) const fn of(file: &SchedulerFile) -> Self {
        Self {
            checkpoint_max: file.checkpoint_max,
            checkpoint_every_ms: file.checkpoint_every.0,
            keep_ended_ms: file.keep_ended.0,
            max_ended: file.max_ended,
        }
    }
}

/// The core's configuration. `hash_seed` only keys its tables.
pub(crate) fn core(file: &SchedulerFile, hash_seed: u64) -> Config {
    let defaults = Config::default();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = file.slots.unwrap_or_else(|| u32::try_from(processors * 2).unwrap_or(2));
    let tenant = |weight, quotas: &FileQuotas| TenantConfig {
        weight,
        quotas: limits(quotas),
        max_queued: quotas.max_queued.map_or(1_000_000, u64::from),
        agents: std::collections::BTreeMap::new(),
    };
    let [high, normal, low] = file.queue_weights;
    Config {
        slots,
        gpus: file.gpus,
        queues: QueueWeights { high, normal, low },
        patience_ms: file.patience.0,
        default_estimate_ms: file.default_estimate.0,
        preemption: Preemption {
            high_cap_percent: file.high_cap_percent,
            min_run_ms: file.min_run.0,
            max_per_task: file.max_per_task,
            frozen_memory_max: file.frozen_memory_max,
        },
        checkpoint_keep: file.checkpoint_keep,
        tenant_default: tenant(file.default_weight, &file.quotas),
        tenants: file
            .tenants
            .iter()
            .map(|(id, share)| {
                let agents =
                    share.agents.iter().map(|(name, quotas)| (name.clone(), limits(quotas))).collect();
                (id.clone(), TenantConfig { agents, ..tenant(share.weight, &share.quotas) })
            })
            .collect(),
        hash_seed,
        ..defaults
    }
}

fn limits(quotas: &FileQuotas) -> Quotas {
    Quotas {
        max_concurrency: quotas.max_concurrency,
        token_rate: quotas.token_rate,
        usd_micros_per_hour: quotas.usd_micros_per_hour,
        tasks_per_minute: quotas.tasks_per_minute.map(u64::from),
        checkpoint_bytes: quotas.checkpoint_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_is_valid_for_the_core() {
        assert_eq!(core(&SchedulerFile::builtin(), 0).validate(), Ok(()));
    }
}
