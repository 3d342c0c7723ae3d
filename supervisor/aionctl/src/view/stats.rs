//! What agents use, for `stats` and `top`.

use aion_client::api;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

use crate::output::{cell, table};
use crate::text::bytes;
use crate::when::Moment;

/// The JSON of a sample.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatsView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) time: String,
    pub(crate) cpu_percent: f64,
    pub(crate) cpu_usec: u64,
    pub(crate) mem_bytes: u64,
    pub(crate) mem_limit_bytes: u64,
    pub(crate) pids: u64,
    pub(crate) pids_limit: u64,
    pub(crate) io_read_bytes: u64,
    pub(crate) io_write_bytes: u64,
    pub(crate) net_rx_bytes: u64,
    pub(crate) net_tx_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) events: u64,
    pub(crate) dropped_events: u64,
    pub(crate) oom_kills: u64,
    /// In all, then each destination; of agents with limits of the network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) network: Vec<NetworkView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) syscalls: Vec<SyscallView>,
}

/// What is used of a limit of the network; limits are null where there are none.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NetworkView {
    /// HOST:PORT; null for the agent as a whole.
    pub(crate) destination: Option<String>,
    pub(crate) bytes_out_per_hour: Option<u64>,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_out_frees_ms: Option<u64>,
    pub(crate) bytes_in_per_hour: Option<u64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_in_frees_ms: Option<u64>,
    pub(crate) connections_per_second: Option<u32>,
    pub(crate) connections_per_minute: Option<u32>,
    pub(crate) connections_burst: Option<u32>,
    pub(crate) connections: u64,
    pub(crate) refused: u64,
    pub(crate) dropped_packets: u64,
    pub(crate) bytes_out_total: u64,
    pub(crate) bytes_in_total: u64,
}

impl From<api::NetworkUse> for NetworkView {
    fn from(used: api::NetworkUse) -> Self {
        let some = |n: u64| (n != 0).then_some(n);
        let rate = |n: u32| (n != 0).then_some(n);
        Self {
            destination: (!used.destination.is_empty()).then_some(used.destination),
            bytes_out_per_hour: some(used.bytes_out_per_hour),
            bytes_out: used.bytes_out,
            bytes_out_frees_ms: some(used.bytes_out_frees_ms),
            bytes_in_per_hour: some(used.bytes_in_per_hour),
            bytes_in: used.bytes_in,
            bytes_in_frees_ms: some(used.bytes_in_frees_ms),
            connections_per_second: rate(used.connections_per_second),
            connections_per_minute: rate(used.connections_per_minute),
            connections_burst: rate(used.connections_burst),
            connections: used.connections,
            refused: used.refused,
            dropped_packets: used.dropped_packets,
            bytes_out_total: used.bytes_out_total,
            bytes_in_total: used.bytes_in_total,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct SyscallView {
    pub(crate) name: String,
    pub(crate) count: u64,
    pub(crate) errors: u64,
    /// Upper bounds of the buckets that hold the quantiles; null without latencies.
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    /// Entry i counts calls that took 2^i to 2^(i+1) ns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) latency_log2_ns: Vec<u64>,
}

impl From<api::StatsSample> for StatsView {
    fn from(sample: api::StatsSample) -> Self {
        let mut syscalls: Vec<SyscallView> = sample
            .syscalls
            .into_iter()
            .map(|call| SyscallView {
                p50_ns: quantile(&call.latency_log2_ns, 50),
                p99_ns: quantile(&call.latency_log2_ns, 99),
                name: call.name,
                count: call.count,
                errors: call.errors,
                latency_log2_ns: call.latency_log2_ns,
            })
            .collect();
        syscalls.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        Self {
            id: sample.agent,
            name: sample.name,
            time: Moment::from_api(sample.time.as_ref()).unwrap_or(Moment(0)).rfc3339(),
            cpu_percent: sample.cpu_percent,
            cpu_usec: sample.cpu_usec,
            mem_bytes: sample.mem_bytes,
            mem_limit_bytes: sample.mem_limit_bytes,
            pids: sample.pids,
            pids_limit: sample.pids_limit,
            io_read_bytes: sample.io_read_bytes,
            io_write_bytes: sample.io_write_bytes,
            net_rx_bytes: sample.net_rx_bytes,
            net_tx_bytes: sample.net_tx_bytes,
            disk_bytes: sample.disk_bytes,
            events: sample.events,
            dropped_events: sample.dropped_events,
            oom_kills: sample.oom_kills,
            network: sample.network.into_iter().map(NetworkView::from).collect(),
            syscalls,
        }
    }
}

/// The upper bound of the bucket that holds the given hundredth.
fn quantile(buckets: &[u64], percent: u64) -> Option<u64> {
    let total: u128 = buckets.iter().map(|&count| u128::from(count)).sum();
    if total == 0 {
        return None;
    }
    let wanted = (total * u128::from(percent)).div_ceil(100).max(1);
    let mut seen = 0;
    for (i, &count) in buckets.iter().enumerate() {
        seen += u128::from(count);
        if seen >= wanted {
            let bits = u32::try_from(i + 1).unwrap_or(u32::MAX);
            return Some(1u64.checked_shl(bits).unwrap_or(u64::MAX));
        }
    }
    None
}

fn number(text: impl AsRef<str>) -> Cell {
    cell(text).set_alignment(CellAlignment::Right)
}

fn of(used: String, limit: Option<String>) -> String {
    limit.map_or_else(|| used.clone(), |limit| format!("{used} / {limit}"))
}

fn limit(value: u64, show: impl Fn(u64) -> String) -> Option<String> {
    (value != 0).then(|| show(value))
}

/// One row for each agent.
pub(crate) fn stats_table(samples: &[StatsView]) -> Table {
    let mut rows = table(&[
        "NAME", "CPU %", "MEMORY", "PIDS", "DISK", "IO READ", "IO WRITE", "NET IN", "NET OUT", "EVENTS",
        "DROPPED",
    ]);
    for sample in samples {
        rows.add_row([
            cell(&sample.name),
            number(format!("{:.1}", sample.cpu_percent)),
            number(of(bytes(sample.mem_bytes), limit(sample.mem_limit_bytes, bytes))),
            number(of(sample.pids.to_string(), limit(sample.pids_limit, |n| n.to_string()))),
            number(bytes(sample.disk_bytes)),
            number(bytes(sample.io_read_bytes)),
            number(bytes(sample.io_write_bytes)),
            number(bytes(sample.net_rx_bytes)),
            number(bytes(sample.net_tx_bytes)),
            number(sample.events.to_string()),
            number(sample.dropped_events.to_string()),
        ]);
    }
    rows
}

/// One row for each agent with limits of the network, and for each destination of it.
pub(crate) fn network_table(samples: &[StatsView]) -> Option<Table> {
    let mut rows = table(&[
        "NAME",
        "TO",
        "OUT / HOUR",
        "FREES",
        "IN / HOUR",
        "FREES",
        "CONNECTIONS",
        "REFUSED",
        "DROPPED",
    ]);
    let frees =
        |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{} min", ms.div_ceil(60_000)));
    let all = samples.iter().flat_map(|sample| sample.network.iter().map(move |used| (&sample.name, used)));
    for (name, used) in all {
        let rate = match (used.connections_per_second, used.connections_per_minute) {
            (Some(n), _) => Some(format!("{n} / s")),
            (None, Some(n)) => Some(format!("{n} / min")),
            (None, None) => None,
        };
        let connections = used.connections.to_string();
        rows.add_row([
            cell(name),
            cell(used.destination.as_deref().unwrap_or("*")),
            number(of(bytes(used.bytes_out), used.bytes_out_per_hour.map(bytes))),
            number(frees(used.bytes_out_frees_ms)),
            number(of(bytes(used.bytes_in), used.bytes_in_per_hour.map(bytes))),
            number(frees(used.bytes_in_frees_ms)),
            number(rate.map_or_else(|| connections.clone(), |rate| format!("{connections} ({rate})"))),
            number(used.refused.to_string()),
            number(used.dropped_packets.to_string()),
        ]);
    }
    (!rows.is_empty()).then_some(rows)
}

/// One row for each system call of an agent.
pub(crate) fn syscalls_table(sample: &StatsView) -> Table {
    let mut rows = table(&["SYSTEM CALL", "COUNT", "ERRORS", "P50", "P99"]);
    let time = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| format!("≤ {}", nanoseconds(ns)));
    for call in &sample.syscalls {
        rows.add_row([
            cell(&call.name),
            number(call.count.to_string()),
            number(call.errors.to_string()),
            number(time(call.p50_ns)),
            number(time(call.p99_ns)),
        ]);
    }
    rows
}

fn nanoseconds(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1000),
        10_000_000..10_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bucket_bounds() {
        assert_eq!(quantile(&[], 50), None);
        assert_eq!(quantile(&[0, 0], 50), None);
        assert_eq!(quantile(&[0, 98, 1, 1], 50), Some(4));
        assert_eq!(quantile(&[0, 98, 1, 1], 99), Some(8));
        assert_eq!(quantile(&[0, 98, 1, 1], 100), Some(16));
        let mut last = [0u64; 64];
        last[63] = 1;
        assert_eq!(quantile(&last, 50), Some(u64::MAX));
    }

    #[test]
    fn limits_of_the_network_have_a_table_where_there_are_some() {
        let used = |destination: &str, limit| api::NetworkUse {
            destination: destination.to_owned(),
            bytes_out_per_hour: limit,
            bytes_out: 3 << 20,
            bytes_out_frees_ms: 60_001,
            connections_per_minute: 30,
            connections: 4,
            ..api::NetworkUse::default()
        };
        let network = vec![used("", 0), used("api.example.com:443", 5 << 20)];
        let sample = StatsView::from(api::StatsSample {
            name: "calm-otter".to_owned(),
            network,
            ..api::StatsSample::default()
        });
        let mut table = network_table(std::slice::from_ref(&sample)).unwrap();
        table.force_no_tty();
        let text = table.trim_fmt();
        for part in ["calm-otter", "api.example.com:443", "2 min", "4 (30 / min)"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!((sample.network[0].bytes_out_per_hour, &sample.network[0].destination), (None, &None));
        assert!(network_table(&[StatsView::from(api::StatsSample::default())]).is_none());
    }

    #[test]
    fn tables() {
        let sample = StatsView::from(api::StatsSample {
            name: "calm-otter".to_owned(),
            cpu_percent: 12.345,
            mem_bytes: 5 << 20,
            mem_limit_bytes: 512 << 20,
            pids: 3,
            pids_limit: 256,
            syscalls: vec![
                api::SyscallStat { name: "read".to_owned(), count: 1, errors: 0, latency_log2_ns: vec![] },
                api::SyscallStat {
                    name: "write".to_owned(),
                    count: 9,
                    errors: 2,
                    latency_log2_ns: vec![0, 5, 0, 4],
                },
            ],
            ..api::StatsSample::default()
        });
        let show = |mut table: Table| {
            table.force_no_tty();
            table.trim_fmt()
        };
        insta::assert_snapshot!(format!(
            "{}\n\n{}",
            show(stats_table(std::slice::from_ref(&sample))),
            show(syscalls_table(&sample))
        ));
    }
}
