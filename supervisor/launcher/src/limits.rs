//! Limits that were hit, told in the audit log: which, and how often. Running out of memory or time ends the
//! agent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_types::ExitReason;
use serde_json::json;

use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::failure::chain;
use crate::launcher::Launcher;
use crate::lock::lock;
use crate::state::Phase;

/// A fork bomb hits its limit a hundred thousand times a second: once a second is told how often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Compares the counters with what has been told. `last` tells all that is left.
pub(crate) fn look(launcher: &Arc<Launcher>, agent: &Agent, run: &Run, last: bool) {
    let now = run.held.group.limit_counters();
    let mut entries = Vec::new();
    let oom;
    {
        let mut told = lock(&run.told);
        oom = now.oom_kills > told.limits.oom_kills;
        if oom {
            let killed = now.oom_kills - told.limits.oom_kills;
            let detail = json!({ "limit": "memory", "killed": killed, "total": now.oom_kills });
            entries.push(Entry::new("limit.hit", "denied", &detail).rule("limits.mem_bytes"));
            told.limits.oom_kills = now.oom_kills;
        }
        let forks = now.pids_hits.saturating_sub(told.limits.pids_hits);
        let first = told.limits.pids_hits == 0;
        if forks > 0 && (first || last || told.at.elapsed() >= TELL_EVERY) {
            let detail = json!({ "limit": "pids", "refused": forks, "total": now.pids_hits });
            entries.push(Entry::new("limit.hit", "denied", &detail).rule("limits.pids"));
            told.limits.pids_hits = now.pids_hits;
            told.at = Instant::now();
        }
    }
    tell(launcher, agent, entries);
    // v2 kills the whole group by itself (memory.oom.group); in v1 one process is killed and the rest would
    // go on with an agent that is no longer whole.
    if oom && !last {
        end(launcher, agent, run, ExitReason::Oom);
    }
}

/// The wall-clock limit.
pub(crate) fn time_is_over(launcher: &Arc<Launcher>, agent: &Agent, run: &Run) {
    let limit = agent.lock().spec.as_ref().and_then(|s| s.limits.wall_ms);
    let detail = json!({ "limit": "wall_ms", "value": limit });
    tell(launcher, agent, vec![Entry::new("limit.hit", "denied", &detail).rule("limits.wall_ms")]);
    end(launcher, agent, run, ExitReason::Timeout);
}

/// Kills an agent for a reason, which the record keeps for whoever sees it end. The first reason stands.
pub(crate) fn end(launcher: &Arc<Launcher>, agent: &Agent, run: &Run, reason: ExitReason) {
    let record = {
        let mut inner = agent.lock();
        if inner.record.phase() != Phase::Running {
            return;
        }
        if inner.record.kill_reason.is_empty() {
            reason.as_str().clone_into(&mut inner.record.kill_reason);
        }
        inner.record.clone()
    };
    if let Err(failure) = launcher.table.write_record(&agent.id, &record) {
        tracing::error!(agent = %agent.id, tenant = record.agent.tenant, code = failure.code.as_str(), %failure, "the agent's record cannot be written");
    }
    if let Err(e) = run.held.group.kill() {
        tracing::error!(agent = %agent.id, tenant = record.agent.tenant, error = chain(&e), "the agent cannot be killed");
    }
}

/// Appends records about an agent.
pub(crate) fn tell(launcher: &Launcher, agent: &Agent, entries: Vec<Entry>) {
    if entries.is_empty() {
        return;
    }
    let tenant = agent.lock().record.agent.tenant.clone();
    launcher.audit.append(entries.into_iter().map(|e| e.of(&tenant, agent.id.as_str())).collect());
}
