//! The sums in Prometheus' text format. Tenants and agents are names, which hold nothing that would have to be quoted.

use std::fmt::Write as _;

use super::latency::{Calls, Latency};
use super::sums::{Sums, Whose};

pub(super) fn text(sums: &Sums) -> String {
    let mut out = String::new();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    let name = "aion_agent_network_bytes_total";
    head(&mut out, name, "counter", "Bytes of agents' packets, from the network header on.");
    for (whose, bytes) in &sums.bytes {
        for (direction, count) in [("out", bytes.sent), ("in", bytes.received)] {
            let _ = writeln!(out, "{name}{{{},direction=\"{direction}\"}} {count}", labels(whose));
        }
    }
    let name = "aion_agent_network_refused_total";
    head(&mut out, name, "counter", "Connections and packets that a limit of the network had no room for.");
    for (whose, limits) in &sums.limits {
        for (limit, count) in &limits.refused {
            let _ = writeln!(out, "{name}{{{},limit=\"{limit}\"}} {count}", labels(whose));
        }
    }
    let name = "aion_agent_network_limit_ratio";
    head(&mut out, name, "gauge", "How much of a limit of the network is used; of several the fullest.");
    for (whose, limits) in &sums.limits {
        for (limit, ratio) in &limits.ratio {
            let _ = writeln!(out, "{name}{{{},limit=\"{limit}\"}} {ratio}", labels(whose));
        }
    }
    let by_kind = |kind: fn(Calls) -> bool| {
        let all = sums.calls.iter().flat_map(|(whose, calls)| calls.iter().map(move |of| (whose, of)));
        all.filter(move |(_, (calls, _))| kind(**calls))
    };
    let name = "aion_agent_syscall_latency_seconds";
    head(&mut out, name, "histogram", "How long the system calls of agents took; the sum is nearly right.");
    for (whose, (_, latency)) in by_kind(|calls| calls.op().is_none()) {
        histogram(&mut out, name, &labels(whose), latency);
    }
    let name = "aion_agent_io_latency_seconds";
    head(&mut out, name, "histogram", "Of these, the calls that read, write and sync.");
    for (whose, (calls, latency)) in by_kind(|calls| calls.op().is_some()) {
        let labels = format!("{},op=\"{}\"", labels(whose), calls.op().unwrap_or_default());
        histogram(&mut out, name, &labels, latency);
    }
    out
}

fn labels(whose: &Whose) -> String {
    format!("tenant=\"{}\",agent=\"{}\"", whose.tenant, whose.agent)
}

fn histogram(out: &mut String, name: &str, labels: &str, latency: &Latency) {
    for (bound, count) in latency.cumulative() {
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
    }
    let count = latency.count();
    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "{name}_sum{{{labels}}} {}", latency.sum_seconds());
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

#[cfg(test)]
mod tests {
    use aion_launcher_proto::v1 as launcher;

    use super::super::latency::of_counters;
    use super::super::limits::Limits;
    use super::super::sums::{Bytes, Used};
    use super::*;

    #[test]
    fn each_agent_has_its_lines() {
        let mut sums = Sums::new(0);
        let whose = Whose { tenant: "acme".into(), agent: "crawler".into() };
        let state = launcher::AgentState { id: "1".into(), started_ns: 1, ..Default::default() };
        // Calls of 2 to 3 ns: the number of `read` is that of each machine.
        let read = (0..500).find(|nr| crate::syscalls::name(*nr) == "read").unwrap();
        let counter =
            launcher::SyscallCounter { nr: read, latency_log2_ns: vec![0, 2], ..Default::default() };
        let used = Used { bytes: Bytes { sent: 5, received: 7 }, calls: of_counters(&[counter]) };
        sums.looked(&state, &whose, &used);
        let limit = launcher::NetworkLimit { bytes_out_per_hour: 10, ..Default::default() };
        let limits =
            launcher::NetworkUse { limit: Some(limit), bytes_out: 5, refused: 3, ..Default::default() };
        sums.limited(&whose, Limits::of(&[limits]));
        let text = text(&sums);
        let of = "tenant=\"acme\",agent=\"crawler\"";
        for line in [
            format!("aion_agent_network_bytes_total{{{of},direction=\"out\"}} 5\n"),
            format!("aion_agent_network_bytes_total{{{of},direction=\"in\"}} 7\n"),
            format!("aion_agent_network_refused_total{{{of},limit=\"connections\"}} 3\n"),
            format!("aion_agent_network_limit_ratio{{{of},limit=\"bytes_out_per_hour\"}} 0.5\n"),
            format!("aion_agent_syscall_latency_seconds_bucket{{{of},le=\"0.000001024\"}} 2\n"),
            format!("aion_agent_syscall_latency_seconds_count{{{of}}} 2\n"),
            format!("aion_agent_io_latency_seconds_bucket{{{of},op=\"read\",le=\"+Inf\"}} 2\n"),
            format!("aion_agent_io_latency_seconds_sum{{{of},op=\"read\"}} 0.000000006\n"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("bytes_in_per_hour\"} 0."), "there is no such limit\n{text}");
    }
}
