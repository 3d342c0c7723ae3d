//! What agents use, as events: the difference of two looks at the launcher's figures.

use std::collections::HashMap;
use std::sync::Arc;

use aion_detect::{Engine, Event, KindId, Rule, SAMPLE, Who};
use aion_launcher_proto::v1 as launcher;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Found;
use crate::clock::now_ns;
use crate::core::Core;

/// The last look at each agent that runs.
#[derive(Default)]
pub(super) struct Samples(HashMap<String, Last>);

struct Last {
    incarnation: u32,
    at: Instant,
    stats: launcher::StatsOk,
    syscalls: u64,
}

impl Core {
    /// Looks at all agents that run.
    pub(super) async fn sample_all(self: &Arc<Self>, samples: &mut Samples) -> Vec<Found> {
        let mut found = Vec::new();
        // The launcher may be away: the next look is over a longer time.
        let Ok(agents) = self.launcher.list().await else { return found };
        let (counted, grams) = (self.some_rule(Rule::wants_syscalls), self.some_rule(Rule::wants_grams));
        let deleted_programs = self.some_rule(Rule::wants_deleted_programs);
        let running: Vec<_> = agents.into_iter().filter(|agent| agent.state == "running").collect();
        samples.0.retain(|id, _| running.iter().any(|agent| agent.id == *id));
        for agent in running {
            let asked = launcher::Stats { id: agent.id.clone(), grams, deleted_programs };
            let Ok(stats) = self.launcher.stats_with(asked).await else { continue };
            let syscalls = if counted {
                let counters = self.launcher.counters(&agent.id).await.unwrap_or_default();
                counters.iter().fold(0, |sum: u64, counter| sum.saturating_add(counter.count))
            } else {
                0
            };
            let now = Last { incarnation: agent.incarnation, at: Instant::now(), stats, syscalls };
            let before = samples.0.get(&agent.id).filter(|last| last.incarnation == agent.incarnation);
            let Some(detail) = before.map(|before| difference(before, &now, &agent)) else {
                samples.0.insert(agent.id, now);
                continue;
            };
            self.look_at(&agent, detail, &mut found);
            samples.0.insert(agent.id, now);
        }
        found
    }

    fn some_rule(&self, wants: fn(&Rule) -> bool) -> bool {
        let any = |engine: &Engine| engine.status().iter().any(|status| wants(&status.rule));
        self.detections.lock().is_some_and(|state| any(&state.engine))
    }

    fn look_at(&self, agent: &launcher::AgentState, detail: Map<String, Value>, found: &mut Vec<Found>) {
        let (Some(kind), Some(mut state)) = (KindId::parse(SAMPLE), self.detections.lock()) else { return };
        let who = Who { agent: &agent.id, name: &agent.name, tenant: &agent.tenant };
        let (time_ns, seq, verdict) = (now_ns(), 0, "allowed");
        let mut findings = Vec::new();
        state.engine.observe(&Event { who, kind, verdict, time_ns, seq, detail: &detail }, &mut findings);
        let of = |finding| Found { finding, kind: SAMPLE, detail: detail.clone() };
        found.extend(findings.into_iter().map(of));
    }
}

fn difference(before: &Last, now: &Last, agent: &launcher::AgentState) -> Map<String, Value> {
    let span = now.at.duration_since(before.at);
    let (old, new) = (&before.stats, &now.stats);
    let network = match agent.network() {
        launcher::Network::None => "none",
        launcher::Network::Host => "host",
        launcher::Network::Egress => "egress",
    };
    let used_us = new.cpu_usec.saturating_sub(old.cpu_usec);
    let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
    let [looked, new_grams, unkept, learned] = grams(old, new);
    let detail = json!({
        "network": network,
        "span_ms": span_us / 1000,
        "cpu_percent": used_us.saturating_mul(100) / span_us,
        "bytes_out": new.net_tx_bytes.saturating_sub(old.net_tx_bytes),
        "bytes_in": new.net_rx_bytes.saturating_sub(old.net_rx_bytes),
        "disk_written": new.io_write_bytes.saturating_sub(old.io_write_bytes),
        "pids": new.pids,
        "deleted_programs": new.deleted_programs,
        "syscalls": now.syscalls.saturating_sub(before.syscalls),
        "syscall_grams": looked,
        "novel_grams": new_grams,
        "unkept_grams": unkept,
        "learned_grams": learned,
    });
    match detail {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Sequences of system calls: looked at, new, and without room in this span, and looked at before it. All 0 where there are none, or none
/// to compare with.
fn grams(old: &launcher::StatsOk, new: &launcher::StatsOk) -> [u64; 4] {
    let (Some(old), Some(new)) = (&old.grams, &new.grams) else { return [0; 4] };
    [
        new.looked.saturating_sub(old.looked),
        new.known.saturating_sub(old.known),
        new.unkept.saturating_sub(old.unkept),
        old.looked,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_those_of_the_span_and_what_was_learned_is_of_before() {
        let stats = |looked, known, unkept| launcher::StatsOk {
            grams: Some(launcher::Grams { looked, known, unkept }),
            ..launcher::StatsOk::default()
        };
        assert_eq!(grams(&stats(1000, 40, 2), &stats(1500, 47, 3)), [500, 7, 1, 1000]);
        let none = launcher::StatsOk::default();
        assert_eq!(grams(&none, &stats(1500, 47, 3)), [0; 4], "the first look finds all of it new");
        assert_eq!(grams(&stats(1500, 47, 3), &none), [0; 4]);
        assert_eq!(grams(&stats(1500, 47, 3), &stats(1500, 47, 0)), [0, 0, 0, 1500], "it was begun anew");
    }
}
