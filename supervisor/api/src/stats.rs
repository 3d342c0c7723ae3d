//! Stats: samples of what agents use, at an interval, for some agents or all that run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_launcher_proto::v1 as launcher;
use aion_store::{AgentRecord, AgentState, ListQuery};
use aion_types::{AgentId, ErrorCode};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::clock::{from_duration, now_ns, timestamp};
use crate::core::Core;
use crate::lifecycle::{self, Command};
use crate::logs::Answers;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::syscalls;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// Agents in one stream.
const MAX_AGENTS: usize = 1000;
const AHEAD: usize = 64;

/// The CPU time of the sample before.
type Before = HashMap<AgentId, (Instant, u64)>;

impl Core {
    pub(crate) fn stats(
        self: Arc<Self>,
        principal: Principal,
        request: &api::StatsRequest,
    ) -> Outcome<Answers<api::StatsSample>> {
        let every = match &request.interval {
            None => DEFAULT_INTERVAL,
            Some(given) => from_duration(given)
                .ok_or_else(|| Problem::field("interval", "it is negative"))?
                .clamp(MIN_INTERVAL, MAX_INTERVAL),
        };
        let mut named = Vec::new();
        for agent in request.agents.iter().take(MAX_AGENTS) {
            let record = self.agents.find(principal.tenant(), agent)?;
            // Usage can be read of what runs.
            lifecycle::check(&record, Command::Signal)?;
            named.push(record.id);
        }
        let permit = self.stream_permit()?;
        let once = request.once;
        let all = request.agents.is_empty();
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let _permit = permit;
            let sampling = async {
                let mut before = Before::new();
                let mut ticks = interval(every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                if once {
                    // A percentage needs two looks.
                    self.round(&principal, &named, all, &mut before, None).await?;
                    tokio::time::sleep(MIN_INTERVAL).await;
                }
                loop {
                    ticks.tick().await;
                    let left = self.round(&principal, &named, all, &mut before, Some(&send)).await?;
                    if once || (left == 0 && !all) || send.is_closed() {
                        return Ok::<_, Problem>(());
                    }
                }
            };
            let end = tokio::select! {
                done = sampling => done.map_err(Status::from),
                () = send.closed() => return,
                () = self.shutdown.cancelled() => Err(Self::going_down()),
            };
            if let Err(status) = end {
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receive)))
    }

    /// One sample of each; answers how many there were.
    async fn round(
        &self,
        principal: &Principal,
        named: &[AgentId],
        all: bool,
        before: &mut Before,
        send: Option<&mpsc::Sender<Result<api::StatsSample, Status>>>,
    ) -> Outcome<usize> {
        let records = if all { self.running(principal)? } else { self.named(principal, named)? };
        before.retain(|id, _| records.iter().any(|record| record.id == *id));
        let mut count = 0;
        for record in &records {
            let stats = match self.launcher.stats(record.id.as_str()).await {
                Ok(stats) => stats,
                // It has ended since.
                Err(error)
                    if matches!(error.code(), ErrorCode::AgentNotFound | ErrorCode::AgentNotRunning) =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let counters = if record.audit.starts_with("events") || send.is_none() {
                Vec::new()
            } else {
                // Counters are an extra: without them the sample is still one.
                self.launcher.counters(record.id.as_str()).await.unwrap_or_default()
            };
            count += 1;
            let now = Instant::now();
            let last = before.insert(record.id.clone(), (now, stats.cpu_usec));
            let Some(send) = send else { continue };
            let mut sample = self.sample(record, stats, counters);
            if let Some((at, usec)) = last {
                let passed = now.duration_since(at).as_micros();
                sample.cpu_percent = percent(sample.cpu_usec.saturating_sub(usec), passed);
            }
            if send.send(Ok(sample)).await.is_err() {
                break;
            }
        }
        Ok(count)
    }

    fn running(&self, principal: &Principal) -> Outcome<Vec<AgentRecord>> {
        let query = ListQuery {
            tenant: principal.tenant().clone(),
            states: vec![AgentState::Running, AgentState::Paused, AgentState::Stopping],
            name_prefix: String::new(),
            labels: Default::default(),
            after: None,
            limit: MAX_AGENTS,
        };
        Ok(self.store.list(&query)?.agents)
    }

    fn named(&self, principal: &Principal, ids: &[AgentId]) -> Outcome<Vec<AgentRecord>> {
        let mut records = Vec::new();
        for id in ids {
            records.extend(self.agents.get(principal.tenant(), id)?.filter(|record| record.pid != 0));
        }
        Ok(records)
    }

    fn sample(
        &self,
        record: &AgentRecord,
        stats: launcher::StatsOk,
        counters: Vec<launcher::SyscallCounter>,
    ) -> api::StatsSample {
        // Limits are what the launcher was asked for.
        let limits = self
            .store
            .launch_of(&record.tenant, &record.id)
            .ok()
            .flatten()
            .and_then(|bytes| launcher::Launch::decode(bytes.as_slice()).ok())
            .and_then(|launch| launch.limits)
            .unwrap_or_default();
        api::StatsSample {
            agent: record.id.to_string(),
            name: record.name.to_string(),
            time: timestamp(now_ns()),
            cpu_percent: 0.0,
            cpu_usec: stats.cpu_usec,
            mem_bytes: stats.mem_bytes,
            mem_limit_bytes: limits.mem_bytes,
            pids: stats.pids,
            pids_limit: u64::from(limits.pids),
            io_read_bytes: stats.io_read_bytes,
            io_write_bytes: stats.io_write_bytes,
            net_rx_bytes: stats.net_rx_bytes,
            net_tx_bytes: stats.net_tx_bytes,
            events: stats.events,
            dropped_events: stats.dropped_events,
            syscalls: counters
                .into_iter()
                .map(|counter| api::SyscallStat {
                    name: syscalls::name(counter.nr),
                    count: counter.count,
                    errors: counter.errors,
                    latency_log2_ns: counter.latency_log2_ns,
                })
                .collect(),
            oom_kills: stats.oom_kills,
            disk_bytes: stats.disk_bytes,
            network: stats.network.into_iter().map(network).collect(),
        }
    }
}

fn network(used: launcher::NetworkUse) -> api::NetworkUse {
    let limit = used.limit.unwrap_or_default();
    api::NetworkUse {
        destination: used.destination,
        bytes_out_per_hour: limit.bytes_out_per_hour,
        bytes_out: used.bytes_out,
        bytes_out_frees_ms: used.out_frees_ms,
        bytes_in_per_hour: limit.bytes_in_per_hour,
        bytes_in: used.bytes_in,
        bytes_in_frees_ms: used.in_frees_ms,
        connections_per_second: limit.connections_per_second,
        connections_per_minute: limit.connections_per_minute,
        connections_burst: limit.connections_burst,
        connections: used.connections,
        refused: used.refused,
        dropped_packets: used.dropped_packets,
        bytes_out_total: used.bytes_out_total,
        bytes_in_total: used.bytes_in_total,
    }
}

/// Of one CPU.
fn percent(used_usec: u64, passed_usec: u128) -> f64 {
    let exact = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let passed = u64::try_from(passed_usec).unwrap_or(u64::MAX).max(1);
    // Both fit 32 bits for any interval below an hour; above, thousandths do.
    if passed > u64::from(u32::MAX) || used_usec > u64::from(u32::MAX) {
        return exact(used_usec / 1000) * 100.0 / exact(passed / 1000).max(1.0);
    }
    exact(used_usec) * 100.0 / exact(passed)
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percentages() {
        assert!((percent(500_000, 1_000_000) - 50.0).abs() < 1e-9);
        assert!((percent(8_000_000_000, 4_000_000_000) - 200.0).abs() < 1e-9);
        assert!(percent(5, 0) > 0.0);
    }
}
