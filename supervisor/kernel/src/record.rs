//! Decisions on disk, and in the audit log.
//!
//! Each call is a row, which `explain` shows for a week. The tamper-evident log gets one record for a group of calls of one agent
//! with one verdict: what comes while the record before is being written is told together. A call is answered after its group's
//! record was taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Decision, Engine, ErrorBody, Refusal, Status, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::host::{AuditEntry, Host};
use crate::rows;

/// How long a decision can be explained.
const KEEP_NS: u64 = 7 * 86_400 * 1_000_000_000;
/// Calls of one record.
const TOGETHER: usize = 64;
/// Bytes of what a call was about that are told.
const MAX_TARGET: usize = 256;
/// Calls that wait to be recorded; more wait for them.
const AHEAD: usize = 4096;

/// A call, as it was decided and as it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// Its name.
    pub audit_id: String,
    /// When it came, nanoseconds since 1970.
    pub time_ns: u64,
    /// What was asked for.
    pub syscall: String,
    /// Whose.
    pub tenant: String,
    /// The agent's address; empty: an operator's own call.
    pub agent: String,
    /// The agent's id.
    pub agent_id: String,
    /// Who was at the door.
    pub caller: String,
    /// The task that it was made for.
    pub task: String,
    /// The caller's trace.
    pub trace: String,
    /// What it was about: a tool, a model, a key, a host.
    pub target: String,
    /// How it was decided; none: it was not valid.
    pub decision: Option<Decision>,
    /// How it ended.
    pub status: Status,
    /// Why there was no result.
    pub error: Option<ErrorBody>,
    /// What it used.
    pub usage: Usage,
    /// What did the work.
    pub engine: Engine,
}

struct Told {
    row: DecisionRow,
    done: oneshot::Sender<()>,
}

/// Writes decisions down. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<Told>);

impl Recorder {
    /// Begins; ends when the last of it is dropped.
    pub(crate) fn start(store: Arc<Store>, host: Arc<dyn Host>) -> Self {
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(run(store, host, receive));
        Self(send)
    }

    /// Writes a call down, and waits until that is done.
    pub(crate) async fn record(&self, row: DecisionRow) {
        let (done, wait) = oneshot::channel();
        if self.0.send(Told { row, done }).await.is_ok() {
            let _ = wait.await;
        }
    }
}

async fn run(store: Arc<Store>, host: Arc<dyn Host>, mut told: mpsc::Receiver<Told>) {
    let mut group = Vec::with_capacity(TOGETHER);
    while told.recv_many(&mut group, TOGETHER).await > 0 {
        let calls = std::mem::replace(&mut group, Vec::with_capacity(TOGETHER));
        tell(Arc::clone(&store), host.as_ref(), calls).await;
    }
}

/// Writes a group down and lets its calls be answered.
async fn tell(store: Arc<Store>, host: &dyn Host, calls: Vec<Told>) {
    let (rows, waiting): (Vec<_>, Vec<_>) = calls.into_iter().map(|told| (told.row, told.done)).unzip();
    let rows = Arc::new(rows);
    let all = Arc::clone(&rows);
    let written = tokio::task::spawn_blocking(move || write(&store, &all));
    let mut entries: BTreeMap<_, Vec<&DecisionRow>> = BTreeMap::new();
    for row in rows.iter() {
        let rule = row.error.as_ref().map_or("", |error| error.rule.as_str());
        let key = (&row.tenant, &row.agent_id, verdict(row.status), rule, &row.task, &row.trace);
        entries.entry(key).or_default().push(row);
    }
    for ((tenant, agent, verdict, rule, task, trace), rows) in entries {
        let entry = AuditEntry {
            tenant: tenant.clone(),
            agent: agent.clone(),
            task: task.clone(),
            trace: trace.clone(),
            kind: "api.syscall",
            verdict,
            rule: rule.chars().take(1000).collect(),
            detail: detail(&rows),
        };
        host.audit(entry).await;
    }
    let _ = written.await;
    for done in waiting {
        let _ = done.send(());
    }
}

/// One write for all of them. One that cannot be written leaves the others alone.
fn write(store: &Store, rows: &[DecisionRow]) {
    let lost = |row: &DecisionRow, error: &dyn std::fmt::Display| {
        tracing::error!(audit_id = row.audit_id, %error, "a decision cannot be explained later");
    };
    let mut batch = Batch::new();
    for row in rows {
        let until = row.time_ns.saturating_add(KEEP_NS);
        if let Err(refusal) = rows::add(&mut batch, Table::Decisions, &[&row.audit_id], until, row) {
            lost(row, &refusal);
        }
    }
    if let Err(error) = store.commit(batch, Durability::Process) {
        for row in rows {
            lost(row, &error);
        }
    }
}

const fn verdict(status: Status) -> &'static str {
    match status {
        Status::Ok => "allowed",
        Status::Denied => "denied",
        Status::Error => "error",
    }
}

/// The start of a target: so few bytes, however wide its letters are, that a whole group fits into a record.
fn short(target: &str) -> &str {
    let at = (0..=MAX_TARGET.min(target.len())).rev().find(|&at| target.is_char_boundary(at));
    target.get(..at.unwrap_or(0)).unwrap_or_default()
}

fn detail(rows: &[&DecisionRow]) -> Value {
    let call = |row: &DecisionRow| {
        let mut call = json!({
            "audit_id": row.audit_id, "syscall": row.syscall, "agent": row.agent, "caller": row.caller,
            "ms": row.usage.latency_ms,
        });
        if let Some(map) = call.as_object_mut() {
            if !row.target.is_empty() {
                map.insert("target".to_owned(), json!(short(&row.target)));
            }
            if row.usage.cost_usd > 0.0 {
                map.insert("usd".to_owned(), json!(row.usage.cost_usd));
            }
            if let Some(error) = &row.error {
                map.insert("code".to_owned(), json!(error.code));
            }
        }
        call
    };
    match rows {
        [one] => call(one),
        many => json!({"calls": many.iter().map(|row| call(row)).collect::<Vec<_>>()}),
    }
}

/// A decision.
pub(crate) fn find(store: &Store, audit_id: &str, now_ns: u64) -> Result<Option<DecisionRow>, Refusal> {
    rows::get(store, Table::Decisions, &[audit_id], now_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_the_widest_calls_fits_into_a_record() {
        let row = DecisionRow {
            audit_id: format!("sc-{}", "0".repeat(32)),
            time_ns: 0,
            syscall: "approval.request".to_owned(),
            tenant: "t".repeat(64),
            agent: format!("agent://{}/{}", "t".repeat(64), "a".repeat(64)),
            agent_id: String::new(),
            caller: format!("agent://{}/{}", "t".repeat(64), "a".repeat(64)),
            task: String::new(),
            trace: String::new(),
            target: "\u{1f600}".repeat(1000),
            decision: None,
            status: Status::Error,
            error: Some(ErrorBody::from(&Refusal::field("x", "y"))),
            usage: Usage { latency_ms: u64::MAX, cost_usd: 0.123_456, ..Usage::default() },
            engine: crate::plan::kernel_engine(),
        };
        let rows = vec![&row; TOGETHER];
        // As much as the audit log takes.
        assert!(detail(&rows).to_string().len() <= 65_536);
    }
}
