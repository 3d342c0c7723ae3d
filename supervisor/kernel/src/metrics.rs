//! Counters and histograms of the kernel API, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use aion_syscall::Layer;

/// Upper bounds, in milliseconds.
const BOUNDS: [f64; 14] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2500.0, 10_000.0, 60_000.0];
/// Names of calls and agents that are told apart; what comes after them is counted as `other`.
const MOST: usize = 2000;

#[derive(Debug, Clone, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum_ms: f64,
}

#[derive(Debug, Default)]
struct State {
    latency: BTreeMap<String, Histogram>,
    refusals: BTreeMap<(String, String), u64>,
    auth: BTreeMap<&'static str, u64>,
    denials: BTreeMap<&'static str, u64>,
    budgets: BTreeMap<&'static str, u64>,
    heartbeats: BTreeMap<(String, String), u64>,
    usd_micros: u64,
    tokens: u64,
    in_flight: u64,
}

/// The kernel's figures.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<State>);

fn bounded<K: Ord, V>(map: &BTreeMap<K, V>, key: K, other: K) -> K {
    if map.len() < MOST || map.contains_key(&key) { key } else { other }
}

impl Metrics {
    pub(crate) fn began(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).in_flight += 1;
    }

    pub(crate) fn ended(&self, syscall: &str, ms: f64, refused: Option<&str>, usd_micros: u64, tokens: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_flight = state.in_flight.saturating_sub(1);
        state.usd_micros = state.usd_micros.saturating_add(usd_micros);
        state.tokens = state.tokens.saturating_add(tokens);
        let name = bounded(&state.latency, syscall.to_owned(), "other".to_owned());
        let histogram = state.latency.entry(name).or_default();
        histogram.count += 1;
        histogram.sum_ms += ms;
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(ms <= bound);
        }
        if let Some(code) = refused {
            let key = (syscall.to_owned(), code.to_owned());
            let key = bounded(&state.refusals, key, ("other".to_owned(), code.to_owned()));
            *state.refusals.entry(key).or_default() += 1;
        }
    }

    /// A call that a rule did not allow, by the layer whose rule it was.
    pub(crate) fn denied(&self, layer: Layer) {
        let word = match layer {
            Layer::Door => "door",
            Layer::Syscalls => "syscalls",
            Layer::Manifest => "manifest",
            Layer::Global => "global",
            Layer::Tenant => "tenant",
            Layer::Request => "request",
            Layer::Privacy => "privacy",
            Layer::Approval => "approval",
            // It has a figure of its own.
            Layer::Budget => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).denials.entry(word).or_default() += 1;
    }

    /// A call that a budget did not allow; `rule` begins with the account.
    pub(crate) fn over_budget(&self, rule: &str) {
        let of = rule.trim_start_matches("budget: ");
        let account =
            ["agent", "tenant", "task"].into_iter().find(|word| of.starts_with(word)).unwrap_or("call");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).budgets.entry(account).or_default() += 1;
    }

    /// A request that was not let in.
    pub(crate) fn unauthenticated(&self, why: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).auth.entry(why).or_default() += 1;
    }

    pub(crate) fn heartbeat(&self, tenant: &str, agent: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let other = || ("other".to_owned(), "other".to_owned());
        let key = bounded(&state.heartbeats, (tenant.to_owned(), agent.to_owned()), other());
        *state.heartbeats.entry(key).or_default() += 1;
    }

    /// All of it as text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = write_all(&mut out, &state);
        out
    }
}

/// The servers of tools that are kept warm.
pub(crate) fn gauges_text(servers: usize, approvals: usize) -> String {
    format!(
        "# HELP aion_kernel_tool_servers Servers of tools that are kept warm.\n\
         # TYPE aion_kernel_tool_servers gauge\naion_kernel_tool_servers {servers}\n\
         # HELP aion_kernel_approvals_waiting Calls that wait for a person.\n\
         # TYPE aion_kernel_approvals_waiting gauge\naion_kernel_approvals_waiting {approvals}\n"
    )
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn write_all(out: &mut String, state: &State) -> std::fmt::Result {
    for (name, scale, unit) in [
        ("aion_kernel_syscall_latency_ms", 1.0, "milliseconds"),
        ("aion_kernel_syscall_latency_seconds", 0.001, "seconds"),
    ] {
        head(
            out,
            name,
            "histogram",
            &format!("Time from a system call's arrival to its answer, in {unit}."),
        )?;
        for (syscall, histogram) in &state.latency {
            let syscall = quoted(syscall);
            for (bucket, bound) in histogram.buckets.iter().zip(BOUNDS) {
                writeln!(out, "{name}_bucket{{syscall=\"{syscall}\",le=\"{}\"}} {bucket}", bound * scale)?;
            }
            writeln!(out, "{name}_bucket{{syscall=\"{syscall}\",le=\"+Inf\"}} {}", histogram.count)?;
            writeln!(out, "{name}_sum{{syscall=\"{syscall}\"}} {}", histogram.sum_ms * scale)?;
            writeln!(out, "{name}_count{{syscall=\"{syscall}\"}} {}", histogram.count)?;
        }
    }
    head(
        out,
        "aion_kernel_syscall_refusals_total",
        "counter",
        "System calls that were refused or failed, by code.",
    )?;
    for ((syscall, code), n) in &state.refusals {
        let (syscall, code) = (quoted(syscall), quoted(code));
        writeln!(out, "aion_kernel_syscall_refusals_total{{syscall=\"{syscall}\",code=\"{code}\"}} {n}")?;
    }
    head(
        out,
        "aion_kernel_unauthenticated_total",
        "counter",
        "Requests whose signature was not accepted, by reason.",
    )?;
    for (why, n) in &state.auth {
        writeln!(out, "aion_kernel_unauthenticated_total{{reason=\"{why}\"}} {n}")?;
    }
    let counted = [
        (
            "aion_kernel_denials_total",
            "layer",
            "System calls that a rule did not allow, by layer.",
            &state.denials,
        ),
        (
            "aion_kernel_budget_refusals_total",
            "account",
            "System calls that a budget did not allow, by whose it was.",
            &state.budgets,
        ),
    ];
    for (name, label, help, values) in counted {
        head(out, name, "counter", help)?;
        for (value, n) in values {
            writeln!(out, "{name}{{{label}=\"{value}\"}} {n}")?;
        }
    }
    // The name is the contract's; it counts, and has no _total.
    head(out, "aion_agent_heartbeats", "gauge", "Heartbeats since the daemon started.")?;
    for ((tenant, agent), n) in &state.heartbeats {
        let (tenant, agent) = (quoted(tenant), quoted(agent));
        writeln!(out, "aion_agent_heartbeats{{tenant=\"{tenant}\",agent=\"{agent}\"}} {n}")?;
    }
    head(out, "aion_kernel_syscalls_in_flight", "gauge", "System calls that are under way.")?;
    writeln!(out, "aion_kernel_syscalls_in_flight {}", state.in_flight)?;
    head(
        out,
        "aion_kernel_cost_usd_micros_total",
        "counter",
        "Millionths of a US dollar spent by system calls.",
    )?;
    writeln!(out, "aion_kernel_cost_usd_micros_total {}", state.usd_micros)?;
    head(out, "aion_kernel_tokens_total", "counter", "Tokens used by system calls.")?;
    writeln!(out, "aion_kernel_tokens_total {}", state.tokens)
}

/// The models' figures.
pub(crate) fn models_text(models: &[aion_models::ModelMetrics]) -> String {
    type Column = (&'static str, &'static str, fn(&aion_models::ModelMetrics) -> u64);
    const COLUMNS: [Column; 7] = [
        ("aion_model_calls_total", "Calls of a model.", |m| m.calls),
        ("aion_model_errors_total", "Calls of a model that failed.", |m| m.errors),
        ("aion_model_retries_total", "Attempts that were repeated.", |m| m.retries),
        ("aion_model_cache_hits_total", "Calls that were answered from the cache.", |m| m.cache_hits),
        ("aion_model_tokens_in_total", "Tokens read.", |m| m.tokens_in),
        ("aion_model_tokens_out_total", "Tokens written.", |m| m.tokens_out),
        ("aion_model_cost_usd_micros_total", "Millionths of a US dollar.", |m| m.usd_micros),
    ];
    let mut out = String::new();
    for (name, help, value) in COLUMNS {
        // Writing to a String does not fail.
        let _ = head(&mut out, name, "counter", help);
        for model in models {
            let _ = writeln!(out, "{name}{{model=\"{}\"}} {}", quoted(&model.model), value(model));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_quotes() {
        let metrics = Metrics::default();
        metrics.began();
        metrics.ended("tool.invoke", 3.0, Some("TOOL_FAILED"), 5, 0);
        metrics.heartbeat("a\"b", "x");
        metrics.unauthenticated("mismatch");
        metrics.denied(Layer::Manifest);
        metrics.over_budget("budget: the call: tokens");
        metrics.over_budget("budget: tenant t: usd");
        let text = metrics.text();
        for line in [
            "aion_kernel_syscall_latency_ms_bucket{syscall=\"tool.invoke\",le=\"2\"} 0",
            "aion_kernel_syscall_latency_ms_bucket{syscall=\"tool.invoke\",le=\"5\"} 1",
            "aion_kernel_syscall_latency_seconds_count{syscall=\"tool.invoke\"} 1",
            "aion_kernel_syscall_refusals_total{syscall=\"tool.invoke\",code=\"TOOL_FAILED\"} 1",
            "aion_agent_heartbeats{tenant=\"a\\\"b\",agent=\"x\"} 1",
            "aion_kernel_unauthenticated_total{reason=\"mismatch\"} 1",
            "aion_kernel_syscalls_in_flight 0",
            "aion_kernel_denials_total{layer=\"manifest\"} 1",
            "aion_kernel_budget_refusals_total{account=\"call\"} 1",
            "aion_kernel_budget_refusals_total{account=\"tenant\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
