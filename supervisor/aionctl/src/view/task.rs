//! A task and its history, as `task ps`, `inspect`, `watch` and `history` show them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aion_client::api;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::Value;

use crate::output::{cell, table};
use crate::text::{clean, clean_line, shorten};
use crate::view::record::detail_words;
use crate::when::Moment;

/// The JSON of a task.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TaskView {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) state: String,
    /// The one that runs or ran it.
    pub(crate) agent: Option<String>,
    pub(crate) queue: String,
    pub(crate) priority: u32,
    pub(crate) attempts: u32,
    pub(crate) preemptions: u32,
    pub(crate) checkpoints: u32,
    /// Null until it has succeeded.
    pub(crate) result: Value,
    pub(crate) error: Option<ErrorView>,
    /// Why it does not run.
    pub(crate) why: Option<String>,
    pub(crate) progress: f64,
    pub(crate) progress_note: Option<String>,
    pub(crate) submitted: Option<String>,
    pub(crate) started: Option<String>,
    pub(crate) finished: Option<String>,
    pub(crate) deadline: Option<String>,
    pub(crate) retry_at: Option<String>,
    /// The token of the attempt that runs.
    pub(crate) attempt: Option<String>,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) tokens: u64,
    pub(crate) usd: f64,
    pub(crate) may_repeat: bool,
    pub(crate) spec: SpecView,
    /// Only from `inspect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<Vec<EventView>>,
    #[serde(skip)]
    submitted_at: Option<Moment>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ErrorView {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
}

/// What was asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct SpecView {
    pub(crate) agent: Option<String>,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) intent: String,
    pub(crate) params: Value,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) estimate_ms: Option<u64>,
    pub(crate) max_attempts: u32,
    pub(crate) usd_max: f64,
    pub(crate) tokens_max: u64,
    pub(crate) after: Vec<String>,
    pub(crate) slots: u32,
    pub(crate) gpu: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) idempotent: bool,
}

/// The JSON of a transition.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventView {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) task: String,
    pub(crate) kind: String,
    pub(crate) attempt: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) detail: Value,
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn time(at: Option<&prost_types::Timestamp>) -> Option<String> {
    Moment::from_api(at).map(Moment::rfc3339)
}

/// JSON as it was sent; text that is none stays a text.
fn json(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => Value::String(text.to_owned()),
    }
}

fn millis(length: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(length.seconds).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(length.nanos / 1_000_000).unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "shown to six digits")]
fn usd(micros: u64) -> f64 {
    micros as f64 / 1e6
}

impl From<api::Task> for TaskView {
    fn from(task: api::Task) -> Self {
        let spec = task.spec.unwrap_or_default();
        let usage = task.usage.unwrap_or_default();
        let budget = spec.budget.unwrap_or_default();
        let needs = spec.needs.unwrap_or_default();
        Self {
            id: task.id,
            tenant: task.tenant,
            state: task.state,
            agent: some(task.agent),
            queue: spec.queue,
            priority: spec.priority.unwrap_or(5),
            attempts: task.attempts,
            preemptions: task.preemptions,
            checkpoints: task.checkpoints,
            result: json(&task.result_json),
            error: task.error.filter(|error| !error.code.is_empty()).map(|error| ErrorView {
                code: error.code,
                message: error.message,
                retryable: error.retryable,
            }),
            why: some(task.why),
            progress: task.progress,
            progress_note: some(task.progress_note),
            submitted: time(task.submitted.as_ref()),
            started: time(task.started.as_ref()),
            finished: time(task.finished.as_ref()),
            deadline: time(spec.deadline.as_ref()),
            retry_at: time(task.retry_at.as_ref()),
            attempt: some(task.attempt),
            checkpoint_bytes: task.checkpoint_bytes,
            tokens: usage.tokens,
            usd: usd(usage.usd_micros),
            may_repeat: task.may_repeat,
            spec: SpecView {
                agent: some(spec.agent),
                selector: spec.selector.into_iter().collect(),
                intent: spec.intent,
                params: json(&spec.params_json),
                timeout_ms: spec.timeout.as_ref().map(millis),
                estimate_ms: spec.estimate.as_ref().map(millis),
                max_attempts: spec.retry.map_or(1, |retry| retry.max_attempts),
                usd_max: budget.usd_max,
                tokens_max: budget.tokens_max,
                after: spec.after,
                slots: needs.slots.max(1),
                gpu: needs.gpu,
                labels: spec.labels.into_iter().collect(),
                idempotent: spec.idempotent,
            },
            history: None,
            submitted_at: Moment::from_api(task.submitted.as_ref()),
        }
    }
}

impl From<api::TaskEvent> for EventView {
    fn from(event: api::TaskEvent) -> Self {
        Self {
            seq: event.seq,
            time: time(event.time.as_ref()).unwrap_or_default(),
            task: event.task,
            kind: event.kind,
            attempt: some(event.attempt),
            agent: some(event.agent),
            detail: if event.detail_json.is_empty() {
                Value::Object(Default::default())
            } else {
                json(&event.detail_json)
            },
        }
    }
}

impl EventView {
    /// One line for people; the task is left out when all lines are of one.
    pub(crate) fn line(&self, with_task: bool) -> String {
        let task = if with_task { format!("{:<26} ", self.task) } else { String::new() };
        let text = format!(
            "{} {:>6} {task}{:<13} {:<8} {:<16} {}",
            self.time.get(..23).unwrap_or(&self.time),
            self.seq,
            self.kind,
            self.attempt.as_deref().unwrap_or("-"),
            self.agent.as_deref().unwrap_or("-"),
            shorten(&detail_words(&self.detail), 160),
        );
        clean_line(text.trim_end())
    }
}

/// Whether nothing follows.
pub(crate) fn has_ended(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled" | "expired")
}

/// Tasks for people.
pub(crate) fn tasks_table(tasks: &[TaskView], wide: bool, now: Moment) -> Table {
    let mut header = vec!["ID", "AGENT", "QUEUE", "STATE", "AGE", "ATTEMPTS", "PROGRESS", "WHY"];
    if wide {
        header.extend(["PREEMPTIONS", "CHECKPOINTS", "INTENT"]);
    }
    let mut rows = table(&header);
    for task in tasks {
        let why = task.why.clone().or_else(|| task.error.as_ref().map(|error| error.message.clone()));
        let agent = task.agent.as_deref().or(task.spec.agent.as_deref()).unwrap_or("-");
        let mut row = vec![
            cell(&task.id),
            cell(agent),
            cell(format!("{}/{}", task.queue, task.priority)),
            crate::output::state_cell(&task.state),
            cell(task.submitted_at.map_or_else(String::new, |at| at.age(now))),
            cell(task.attempts.to_string()).set_alignment(CellAlignment::Right),
            cell(format!("{:.0}%", task.progress * 100.0)).set_alignment(CellAlignment::Right),
            cell(shorten(&why.unwrap_or_default(), if wide { 200 } else { 60 })),
        ];
        if wide {
            row.extend([
                cell(task.preemptions.to_string()),
                cell(task.checkpoints.to_string()),
                cell(shorten(&task.spec.intent, 60)),
            ]);
        }
        rows.add_row(row);
    }
    rows
}

/// `inspect` for people.
pub(crate) fn inspect_text(task: &TaskView) -> String {
    let mut out = String::new();
    let mut line = |title: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{title:<13}{}", clean_line(value));
        }
    };
    line("Id", &task.id);
    line("Tenant", &task.tenant);
    line("State", &task.state);
    line("Why", task.why.as_deref().unwrap_or_default());
    line("Agent", task.agent.as_deref().or(task.spec.agent.as_deref()).unwrap_or_default());
    line("Queue", &format!("{}, priority {}", task.queue, task.priority));
    line("Intent", &task.spec.intent);
    line("Attempts", &task.attempts.to_string());
    if task.preemptions > 0 {
        line("Made room", &format!("{} times", task.preemptions));
    }
    match task.checkpoint_bytes {
        0 => line("Checkpoints", &task.checkpoints.to_string()),
        kept => {
            line("Checkpoints", &format!("{}, the newest {}", task.checkpoints, crate::text::bytes(kept)))
        }
    }
    let note = task.progress_note.as_deref().unwrap_or_default();
    line("Progress", &format!("{:.1}% {note}", task.progress * 100.0));
    if task.tokens > 0 || task.usd > 0.0 {
        line("Used", &format!("{} tokens, {} USD", task.tokens, task.usd));
    }
    for (title, value) in [
        ("Submitted", &task.submitted),
        ("Started", &task.started),
        ("Finished", &task.finished),
        ("Deadline", &task.deadline),
        ("Next attempt", &task.retry_at),
    ] {
        line(title, value.as_deref().unwrap_or_default());
    }
    if let Some(error) = &task.error {
        line("Error", &format!("{}: {}", error.code, error.message));
    }
    if task.may_repeat {
        line("May repeat", "an attempt was cut off, and what it did outside may happen again");
    }
    for (key, value) in &task.spec.labels {
        line("Label", &format!("{key}={value}"));
    }
    if !task.spec.params.is_null() {
        line("Params", &shorten(&task.spec.params.to_string(), 1000));
    }
    if !task.result.is_null() {
        line("Result", &shorten(&task.result.to_string(), 1000));
    }
    if let Some(history) = task.history.as_ref().filter(|history| !history.is_empty()) {
        let _ = writeln!(out, "\nHistory");
        for event in history {
            let _ = writeln!(out, "  {}", clean(&event.line(false)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> TaskView {
        TaskView::from(api::Task {
            id: "t-1".into(),
            tenant: "default".into(),
            state: "waiting".into(),
            attempts: 2,
            preemptions: 1,
            checkpoints: 3,
            why: "quota tasks_per_minute\x1b[2J".into(),
            result_json: r#"{"n":3}"#.into(),
            spec: Some(api::TaskSpec {
                queue: "low".into(),
                agent: "w".into(),
                params_json: "[1]".into(),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    #[test]
    fn the_contracts_fields_are_there() {
        let mut view = sample();
        view.history = Some(vec![EventView::from(api::TaskEvent {
            seq: 4,
            kind: "queued".into(),
            ..Default::default()
        })]);
        let json = serde_json::to_value(&view).unwrap();
        for field in ["id", "state", "attempts", "preemptions", "checkpoints", "result", "history"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!((&json["result"]["n"], &json["spec"]["params"][0]), (&3.into(), &1.into()));
        assert_eq!(json["history"][0]["kind"], "queued");
    }

    #[test]
    fn nothing_escapes() {
        let text = inspect_text(&sample());
        assert!(!text.contains('\x1b') && text.contains("quota tasks_per_minute\\u{1b}[2J"), "{text}");
    }
}
