//! What agents use of their limits of the network: shown with their statistics, and told in the audit log when something was refused.
//! The kernel holds them; nothing here has to run for that.

use std::time::{Duration, Instant};

use aion_launcher_proto::v1;
use aion_probes::{LimitKind, NetLimit, NetLimits, NetUse};
use serde_json::json;

use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::launcher::Launcher;
use crate::limits;
use crate::lock::lock;
use crate::request::NetworkLimits;

/// A flood meets its limit at every packet: once a second is told how many there were.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Packets that were told, or were there before the launch: an account outlives the run. Of a run that was taken over none: what was dropped
/// meanwhile is rather told twice than never.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Of each limit: sent, received.
    dropped: Vec<(u64, u64)>,
    at: Option<Instant>,
}

/// As a run begins.
pub(crate) fn told(launcher: &Launcher, cgroup_id: u64) -> Told {
    let used = launcher.probes.get().and_then(|probes| probes.net_use(cgroup_id).ok()).unwrap_or_default();
    Told { dropped: used.iter().map(|used| used.dropped).collect(), at: None }
}

/// The limits of an agent that has some, with what was used of each, in the order of the probes.
fn uses(launcher: &Launcher, agent: &Agent, run: &Run) -> Option<(NetworkLimits, Vec<NetUse>)> {
    let limits = agent.lock().spec.as_ref().and_then(|spec| spec.network_limits.clone())?;
    let used = launcher.probes.get().filter(|_| run.probed)?.net_use(run.held.group.id()).ok()?;
    Some((limits, used))
}

/// As statistics show it.
pub(crate) fn used(launcher: &Launcher, agent: &Agent, run: &Run) -> Vec<v1::NetworkUse> {
    let Some((limits, used)) = uses(launcher, agent, run) else { return Vec::new() };
    let names = limits.destinations.iter().map(|one| one.to.to_string());
    let names = std::iter::once(String::new()).chain(names);
    let shown = names.zip(limits.all()).zip(used);
    shown.map(|((destination, limit), used)| to_proto(destination, limit, &used)).collect()
}

fn to_proto(destination: String, limit: NetLimits, used: &NetUse) -> v1::NetworkUse {
    let ms = |time: Option<Duration>| {
        time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1))
    };
    let rate = |per_minute| limit.connections.filter(|rate| rate.per_minute == per_minute);
    v1::NetworkUse {
        destination,
        limit: Some(v1::NetworkLimit {
            bytes_out_per_hour: limit.bytes_out.unwrap_or(0),
            bytes_in_per_hour: limit.bytes_in.unwrap_or(0),
            connections_per_second: rate(false).map_or(0, |rate| rate.count),
            connections_per_minute: rate(true).map_or(0, |rate| rate.count),
            connections_burst: limit.connections.map_or(0, |rate| rate.burst),
        }),
        bytes_out: used.out,
        out_frees_ms: ms(used.out_frees_in),
        bytes_in: used.received,
        in_frees_ms: ms(used.in_frees_in),
        bytes_out_total: used.totals.0,
        bytes_in_total: used.totals.1,
        connections: used.connections,
        refused: used.refused_rate.saturating_add(used.refused_bytes),
        dropped_packets: used.dropped.0.saturating_add(used.dropped.1),
        refused_bytes: used.refused_bytes,
        dropped_in: used.dropped.1,
    }
}

/// Tells packets that found no room since they were last told. Refused connections have records of their own.
pub(crate) fn look(launcher: &Launcher, agent: &Agent, run: &Run, last: bool) {
    let Some((_, used)) = uses(launcher, agent, run) else { return };
    let mut entries = Vec::new();
    {
        let mut all = lock(&run.told);
        let told = &mut all.network;
        if !last && told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        told.dropped.resize(used.len(), (0, 0));
        for ((at, used), before) in (0u8..).zip(&used).zip(&mut told.dropped) {
            let destination = at.checked_sub(1);
            for (kind, now, before) in [
                (LimitKind::BytesOut, used.dropped.0, &mut before.0),
                (LimitKind::BytesIn, used.dropped.1, &mut before.1),
            ] {
                let more = now.saturating_sub(*before);
                *before = now;
                if more == 0 {
                    continue;
                }
                let rule = NetLimit { kind, destination }.to_string();
                let detail = json!({ "limit": kind.as_str(), "refused": more, "total": now });
                entries.push(Entry::new("limit.hit", "denied", &detail).rule(rule));
            }
        }
        if !entries.is_empty() {
            told.at = Some(Instant::now());
        }
    }
    limits::tell(launcher, agent, entries);
}
