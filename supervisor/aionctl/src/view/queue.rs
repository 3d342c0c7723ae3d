//! The queues and the tenants' shares, as `queue` shows them.

use std::fmt::Write as _;

use aion_client::api;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::output::{cell, table};

/// The JSON of `queue`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct QueuesView {
    pub(crate) slots: u32,
    pub(crate) slots_used: u32,
    pub(crate) frozen_bytes: u64,
    pub(crate) queues: Vec<QueueView>,
    pub(crate) tenants: Vec<TenantView>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct QueueView {
    pub(crate) name: String,
    pub(crate) depth: u64,
    pub(crate) running: u64,
    pub(crate) submitted_per_s: f64,
    pub(crate) finished_per_s: f64,
    pub(crate) oldest_wait_ms: f64,
    pub(crate) wait_p50_ms: f64,
    pub(crate) wait_p99_ms: f64,
    pub(crate) preemptions: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct TenantView {
    pub(crate) tenant: String,
    pub(crate) weight: u32,
    pub(crate) queued: u64,
    pub(crate) running: u64,
    /// Of what was used in the last minute.
    pub(crate) share: f64,
    /// What its weight gives it.
    pub(crate) fair_share: f64,
    pub(crate) limited_by: Option<String>,
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds with a fraction")]
fn millis(length: Option<prost_types::Duration>) -> f64 {
    length.map_or(0.0, |length| length.seconds as f64 * 1e3 + f64::from(length.nanos) / 1e6)
}

impl From<api::QueuesResponse> for QueuesView {
    fn from(answer: api::QueuesResponse) -> Self {
        Self {
            slots: answer.slots,
            slots_used: answer.slots_used,
            frozen_bytes: answer.frozen_bytes,
            queues: answer
                .queues
                .into_iter()
                .map(|queue| QueueView {
                    name: queue.name,
                    depth: queue.depth,
                    running: queue.running,
                    submitted_per_s: queue.submitted_per_s,
                    finished_per_s: queue.finished_per_s,
                    oldest_wait_ms: millis(queue.oldest_wait),
                    wait_p50_ms: millis(queue.wait_p50),
                    wait_p99_ms: millis(queue.wait_p99),
                    preemptions: queue.preemptions,
                })
                .collect(),
            tenants: answer
                .tenants
                .into_iter()
                .map(|tenant| TenantView {
                    tenant: tenant.tenant,
                    weight: tenant.weight,
                    queued: tenant.queued,
                    running: tenant.running,
                    share: tenant.share,
                    fair_share: tenant.fair_share,
                    limited_by: (!tenant.limited_by.is_empty()).then_some(tenant.limited_by),
                })
                .collect(),
        }
    }
}

/// A wait for people.
fn wait(ms: f64) -> String {
    match ms {
        ms if ms < 1000.0 => format!("{ms:.0}ms"),
        ms if ms < 120_000.0 => format!("{:.1}s", ms / 1e3),
        ms => format!("{:.0}m", ms / 6e4),
    }
}

/// The text; `render` turns tables into text with or without colours.
pub(crate) fn queues_text(view: &QueuesView, render: impl Fn(Table) -> String) -> String {
    let number = |text: String| cell(text).set_alignment(CellAlignment::Right);
    let mut queues = table(&[
        "QUEUE",
        "DEPTH",
        "RUNNING",
        "IN/S",
        "OUT/S",
        "OLDEST",
        "WAIT P50",
        "WAIT P99",
        "PREEMPTIONS",
    ]);
    for queue in &view.queues {
        queues.add_row([
            cell(&queue.name),
            number(queue.depth.to_string()),
            number(queue.running.to_string()),
            number(format!("{:.1}", queue.submitted_per_s)),
            number(format!("{:.1}", queue.finished_per_s)),
            number(wait(queue.oldest_wait_ms)),
            number(wait(queue.wait_p50_ms)),
            number(wait(queue.wait_p99_ms)),
            number(queue.preemptions.to_string()),
        ]);
    }
    let mut tenants = table(&["TENANT", "WEIGHT", "QUEUED", "RUNNING", "SHARE", "FAIR", "LIMITED BY"]);
    for tenant in &view.tenants {
        tenants.add_row([
            cell(&tenant.tenant),
            number(tenant.weight.to_string()),
            number(tenant.queued.to_string()),
            number(tenant.running.to_string()),
            number(format!("{:.1}%", tenant.share * 100.0)),
            number(format!("{:.1}%", tenant.fair_share * 100.0)),
            cell(tenant.limited_by.as_deref().unwrap_or("-")),
        ]);
    }
    let mut out = format!("{} of {} slots are in use", view.slots_used, view.slots);
    if view.frozen_bytes > 0 {
        let _ = write!(out, ", frozen agents hold {}", crate::text::bytes(view.frozen_bytes));
    }
    let _ = writeln!(out, "\n\n{}", render(queues));
    if !view.tenants.is_empty() {
        let _ = writeln!(out, "\n{}", render(tenants));
    }
    out
}
