//! Decisions on disk, and in the audit log.
//!
//! Each call is a row, which `explain` shows for a week. The tamper-evident log gets one record for a group of calls of one agent
//! with one verdict: what comes while the two before are being written is told together. A call is answered after its group's
//! record was taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Decision, Engine, ErrorBody, Refusal, Status, Step, Usage};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::host::{AuditEntry, Host};
use crate::rows;

/// How long a decision can be explained.
const KEEP_NS: u64 = 7 * 86_400 * 1_000_000_000;
/// Calls of one record.
const TOGETHER: usize = 64;
/// Records of a group that are on their way at once: those that come together share a sync, and others find the launcher, too.
const AT_ONCE: usize = 2;
/// Groups that are being written at once: while one waits for the disk the next one's calls are put together, and none waits for two.
const GROUPS: usize = 2;
/// How many times others get their turn before a group is written.
const PATIENCE: usize = 8;
/// Bytes of what a call was about that are told.
const MAX_TARGET: usize = 256;
/// Characters of a rule that are told.
const MAX_RULE: usize = 1000;
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

/// What calls of one record have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Common {
    tenant: String,
    agent: String,
    verdict: &'static str,
    rule: String,
    task: String,
    trace: String,
}

/// A call that waits to be written. It was put into words by who made it: the group's turn is short.
struct Told {
    audit_id: String,
    until_ns: u64,
    /// The row, encoded.
    row: Vec<u8>,
    common: Common,
    /// What the log says of it: a JSON object.
    detail: String,
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
        if self.0.send(told(row, done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// What a call used, as it is stored. Versions before know four values and refuse more.
#[derive(Serialize)]
#[serde(untagged)]
enum Used {
    Told(u64, f64, u64, u64),
    Estimated(u64, f64, u64, u64, bool),
}

/// A row as it is stored: values without the names of their fields, in the order in which the types have them, which reads as the form
/// with names does. There is one for each call, and so it is half as long. Its own name is its key.
fn packed(row: &DecisionRow) -> serde_json::Result<Vec<u8>> {
    // Each type is named with all its fields: a new one does not compile before it has its place here.
    let DecisionRow {
        audit_id: _,
        time_ns,
        syscall,
        tenant,
        agent,
        agent_id,
        caller,
        task,
        trace,
        target,
        decision,
        status,
        error,
        usage,
        engine,
    } = row;
    let decision = decision.as_ref().map(|Decision { allowed, steps }| {
        let steps = steps.iter().map(|Step { layer, about, allowed, rule }| (layer, about, allowed, rule));
        (allowed, steps.collect::<Vec<_>>())
    });
    let error = error.as_ref().map(|ErrorBody { code, message, field, rule, hint, retry_after_ms }| {
        (code, message, field, rule, hint, retry_after_ms)
    });
    let Usage { latency_ms, cost_usd, tokens_in, tokens_out, estimated } = usage;
    let usage = match estimated {
        true => Used::Estimated(*latency_ms, *cost_usd, *tokens_in, *tokens_out, true),
        false => Used::Told(*latency_ms, *cost_usd, *tokens_in, *tokens_out),
    };
    let Engine { kind, name } = engine;
    let name_is_key = "";
    serde_json::to_vec(&(
        name_is_key,
        time_ns,
        syscall,
        tenant,
        agent,
        agent_id,
        caller,
        task,
        trace,
        target,
        decision,
        status,
        error,
        usage,
        (kind, name),
    ))
}

fn told(row: DecisionRow, done: oneshot::Sender<()>) -> Told {
    let encoded = packed(&row).unwrap_or_else(|error| {
        // Nothing in a row can fail to encode; were it so, the log still tells of the call.
        lost(&row.audit_id, &error);
        Vec::new()
    });
    let detail = detail(&row);
    let rule = row.error.map_or_else(String::new, |error| error.rule.chars().take(MAX_RULE).collect());
    Told {
        until_ns: row.time_ns.saturating_add(KEEP_NS),
        row: encoded,
        common: Common {
            tenant: row.tenant,
            agent: row.agent_id,
            verdict: verdict(row.status),
            rule,
            task: row.task,
            trace: row.trace,
        },
        audit_id: row.audit_id,
        detail,
        done,
    }
}

async fn run(store: Arc<Store>, host: Arc<dyn Host>, mut told: mpsc::Receiver<Told>) {
    let mut group = Vec::with_capacity(TOGETHER);
    let under_way = Arc::new(Semaphore::new(GROUPS));
    loop {
        // A group begins when there is room for it; what comes until then is in it.
        let Ok(turn) = Arc::clone(&under_way).acquire_owned().await else { return };
        if told.recv_many(&mut group, TOGETHER).await == 0 {
            return;
        }
        // Calls that are about to end come into the same group: each group costs a sync of the log's disk.
        for _ in 0..PATIENCE {
            let room = TOGETHER - group.len();
            tokio::task::yield_now().await;
            if room == 0 || told.is_empty() {
                break;
            }
            told.recv_many(&mut group, room).await;
        }
        let calls = std::mem::replace(&mut group, Vec::with_capacity(TOGETHER));
        let (store, host) = (Arc::clone(&store), Arc::clone(&host));
        tokio::spawn(async move {
            tell(store, host.as_ref(), calls).await;
            drop(turn);
        });
    }
}

/// Writes a group down and lets its calls be answered.
async fn tell(store: Arc<Store>, host: &dyn Host, calls: Vec<Told>) {
    let mut rows = Vec::with_capacity(calls.len());
    let mut waiting = Vec::with_capacity(calls.len());
    let mut records: BTreeMap<Common, Vec<String>> = BTreeMap::new();
    for call in calls {
        rows.push((call.audit_id, call.until_ns, call.row));
        records.entry(call.common).or_default().push(call.detail);
        waiting.push(call.done);
    }
    let written = tokio::task::spawn_blocking(move || write(&store, &rows));
    let entries = records.into_iter().flat_map(|(common, details)| {
        together(details).into_iter().map(move |detail_json| {
            let Common { tenant, agent, verdict, rule, task, trace } = common.clone();
            let kind = "api.syscall";
            AuditEntry { tenant, agent, task, trace, kind, verdict, rule, detail_json }
        })
    });
    // Calls of many agents are many records: one after the other, each would wait for a sync of its own.
    stream::iter(entries).for_each_concurrent(AT_ONCE, |entry| host.audit(entry)).await;
    let _ = written.await;
    for done in waiting {
        let _ = done.send(());
    }
}

fn lost(audit_id: &str, error: &dyn std::fmt::Display) {
    tracing::error!(audit_id, %error, "a decision cannot be explained later");
}

/// One write for all of them. One that cannot be written leaves the others alone.
fn write(store: &Store, rows: &[(String, u64, Vec<u8>)]) {
    let mut batch = Batch::new();
    for (audit_id, until_ns, row) in rows.iter().filter(|(_, _, row)| !row.is_empty()) {
        if let Err(error) = batch.put_row(Table::Decisions, &[audit_id], *until_ns, row) {
            lost(audit_id, &error);
        }
    }
    if let Err(error) = store.commit(batch, Durability::Process) {
        for (audit_id, ..) in rows {
            lost(audit_id, &error);
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

/// What the log says of a call: a JSON object.
fn detail(row: &DecisionRow) -> String {
    #[derive(Serialize)]
    struct Detail<'a> {
        audit_id: &'a str,
        syscall: &'a str,
        agent: &'a str,
        caller: &'a str,
        ms: u64,
        #[serde(skip_serializing_if = "str::is_empty")]
        target: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        usd: Option<f64>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        estimated: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'a str>,
    }
    let detail = Detail {
        audit_id: &row.audit_id,
        syscall: &row.syscall,
        agent: &row.agent,
        caller: &row.caller,
        ms: row.usage.latency_ms,
        target: short(&row.target),
        usd: Some(row.usage.cost_usd).filter(|usd| *usd > 0.0),
        estimated: row.usage.estimated,
        code: row.error.as_ref().map(|error| error.code.as_str()),
    };
    // Texts and numbers cannot fail to encode.
    serde_json::to_string(&detail).unwrap_or_else(|_| "{}".to_owned())
}

/// Bytes of a record's detail at most; the audit log takes a few more.
const MAX_DETAIL: usize = 60_000;

/// The details of the records: that of the one call, or those of as many as fit.
fn together(details: Vec<String>) -> Vec<String> {
    let mut records: Vec<Vec<String>> = Vec::new();
    let mut length = MAX_DETAIL;
    for detail in details {
        length += detail.len() + 1;
        match records.last_mut().filter(|_| length <= MAX_DETAIL) {
            Some(record) => record.push(detail),
            None => {
                length = detail.len() + 1;
                records.push(vec![detail]);
            }
        }
    }
    let told = |mut details: Vec<String>| match details.len() {
        1 => details.pop().unwrap_or_default(),
        _ => format!("{{\"calls\":[{}]}}", details.join(",")),
    };
    records.into_iter().map(told).collect()
}

/// A decision.
pub(crate) fn find(store: &Store, audit_id: &str, now_ns: u64) -> Result<Option<DecisionRow>, Refusal> {
    let found: Option<DecisionRow> = rows::get(store, Table::Decisions, &[audit_id], now_ns)?;
    Ok(found.map(|row| DecisionRow { audit_id: audit_id.to_owned(), ..row }))
}

#[cfg(test)]
mod tests {
    use aion_store::Options;
    use aion_syscall::Layer;
    use serde_json::{Value, json};

    use super::*;

    fn widest() -> DecisionRow {
        DecisionRow {
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
        }
    }

    /// Rows with and without what may be missing.
    fn samples() -> [DecisionRow; 3] {
        let step = |layer, allowed| Step {
            layer,
            about: "memory:query:short".to_owned(),
            allowed,
            rule: "policies/agent.capabilities.yaml:12: \"memory:*\"".to_owned(),
        };
        let decided = |allowed| Decision {
            allowed,
            steps: vec![
                step(Layer::Syscalls, true),
                step(Layer::Manifest, true),
                step(Layer::Budget, allowed),
            ],
        };
        let denied = Refusal::denied("no", "a rule").at("params.key").hint("ask").retry_after(7);
        [
            widest(),
            DecisionRow { decision: Some(decided(true)), status: Status::Ok, error: None, ..widest() },
            DecisionRow {
                time_ns: u64::MAX,
                agent_id: "01J".to_owned(),
                task: "t-1".to_owned(),
                trace: "x".to_owned(),
                decision: Some(decided(false)),
                status: Status::Denied,
                error: Some(ErrorBody::from(&denied)),
                usage: Usage {
                    latency_ms: 1,
                    cost_usd: 0.000_001,
                    tokens_in: 2,
                    tokens_out: 3,
                    estimated: true,
                },
                ..widest()
            },
        ]
    }

    #[test]
    fn rows_read_as_they_were_written_with_and_without_names() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), Options::default()).unwrap();
        for (i, row) in samples().into_iter().enumerate() {
            let named = serde_json::to_vec(&row).unwrap();
            let short = packed(&row).unwrap();
            assert!(short.starts_with(b"[") && short.len() + 200 < named.len());
            let values: Value = serde_json::from_slice(&short).unwrap();
            // Versions before read four, and no more.
            let used = values[13].as_array().unwrap().len();
            assert_eq!(used, if row.usage.estimated { 5 } else { 4 });
            // As this version writes it, and as those before did.
            for (form, bytes) in [("short", short), ("named", named)] {
                let audit_id = format!("sc-{i}-{form}");
                write(&store, &[(audit_id.clone(), u64::MAX, bytes)]);
                let found = find(&store, &audit_id, 1).unwrap().unwrap();
                assert_eq!(found, DecisionRow { audit_id, ..row.clone() });
            }
        }
    }

    #[test]
    fn a_group_of_the_widest_calls_fits_into_a_record() {
        let row = widest();
        for target in ["\u{1f600}".repeat(1000), "\u{1}".repeat(1000), "\"\\".repeat(500)] {
            let row = DecisionRow { target, ..row.clone() };
            let all = together(vec![detail(&row); TOGETHER]);
            let expected: Value = serde_json::from_str(&detail(&row)).unwrap();
            assert!(expected["target"].as_str().is_some_and(|told| row.target.starts_with(told)));
            assert_eq!((&expected["code"], &expected["usd"]), (&json!("INVALID_FIELD"), &json!(0.123_456)));
            let mut calls = 0;
            for one in &all {
                // As much as the audit log takes.
                assert!(one.len() <= 65_536, "{}", one.len());
                let read: Value = serde_json::from_str(one).unwrap();
                let told = read["calls"].as_array().cloned().unwrap_or_else(|| vec![read.clone()]);
                assert!(told.iter().all(|call| *call == expected));
                calls += told.len();
            }
            assert_eq!(calls, TOGETHER);
        }
        assert_eq!(together(vec!["{}".to_owned()]), ["{}"]);
    }
}
