//! From the core's views and events to the API's messages.

use aion_api_proto::v1 as api;
use aion_scheduler::{Event, EventKind, State, TaskNumber, TaskView};
use aion_task_journal::Journal;
use prost::Message as _;
use serde_json::json;

use crate::clock::{now_ms, timestamp};

/// A task, with what the journal keeps of it.
pub(crate) fn task(view: &TaskView, body: Option<&[u8]>, result: Option<Vec<u8>>) -> api::Task {
    let mut spec = body.and_then(|body| api::TaskSpec::decode(body).ok()).unwrap_or_default();
    view.class.as_str().clone_into(&mut spec.queue);
    spec.priority = Some(view.priority.into());
    let error = (!view.error_code.is_empty() && view.state != State::Succeeded).then(|| api::TaskError {
        code: view.error_code.clone(),
        message: view.error_message.clone(),
        retryable: view.error_retryable,
    });
    api::Task {
        id: view.id.to_string(),
        tenant: view.tenant.to_string(),
        state: view.state.as_str().to_owned(),
        spec: Some(spec),
        agent: view.agent.as_deref().unwrap_or_default().to_owned(),
        attempts: view.attempts,
        preemptions: view.preemptions,
        checkpoints: view.checkpoints,
        result_json: result.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default(),
        error,
        why: why(view),
        submitted: Some(timestamp(view.submitted)),
        started: view.started.map(timestamp),
        finished: view.finished.map(timestamp),
        progress: if view.state == State::Succeeded {
            1.0
        } else {
            f64::from(view.progress_permille) / 1000.0
        },
        progress_note: view.progress_note.clone(),
        usage: Some(api::Usage { tokens: view.tokens, usd_micros: view.usd_micros }),
        attempt: view.attempt.map_or_else(String::new, |attempt| attempt.to_string()),
        checkpoint_bytes: view.checkpoint_bytes,
        may_repeat: view.may_repeat,
        retry_at: view.retry_at.map(timestamp),
    }
}

/// Why it does not run; of a quota also when it frees up.
fn why(view: &TaskView) -> String {
    match view.retry_at.map(|at| at.saturating_sub(now_ms())) {
        Some(ms) if view.why.starts_with("quota ") => {
            format!("{}; it frees up in {}", view.why, span(ms))
        }
        _ => view.why.clone(),
    }
}

/// A length of time for people.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min", ms / 60_000),
    }
}

/// A transition. Other tasks are named in it by what they are called, not by their numbers in the journal.
pub(crate) fn event(event: &Event, journal: &Journal) -> api::TaskEvent {
    api::TaskEvent {
        seq: event.seq,
        task: event.id.to_string(),
        time: Some(timestamp(event.time)),
        kind: event.kind.as_str().to_owned(),
        attempt: event.attempt.map_or_else(String::new, |attempt| attempt.to_string()),
        agent: event.agent.as_deref().unwrap_or_default().to_owned(),
        detail_json: detail(&event.kind, journal).map_or_else(String::new, |detail| detail.to_string()),
    }
}

fn id_of(task: TaskNumber, journal: &Journal) -> Option<String> {
    let body = journal.body(task.0).ok().flatten()?;
    api::TaskSpec::decode(body.as_slice()).ok().map(|spec| spec.task_id)
}

fn detail(kind: &EventKind, journal: &Journal) -> Option<serde_json::Value> {
    Some(match kind {
        EventKind::Booted { epoch } => json!({"epoch": epoch}),
        EventKind::Attached { concurrency } => json!({"concurrency": concurrency}),
        EventKind::Submitted { blocked_by } if *blocked_by > 0 => json!({"blocked_by": blocked_by}),
        EventKind::Dispatched { number, resume: None } => json!({"number": number}),
        EventKind::Dispatched { number, resume } => json!({"number": number, "from_checkpoint": resume}),
        EventKind::Progress { permille, note } if note.is_empty() => {
            json!({"fraction": f64::from(*permille) / 1000.0})
        }
        EventKind::Progress { permille, note } => {
            json!({"fraction": f64::from(*permille) / 1000.0, "note": note})
        }
        EventKind::Checkpointed { number, bytes } => json!({"number": number, "bytes": bytes}),
        EventKind::CheckpointRefused { bytes } => json!({"bytes": bytes}),
        EventKind::Noted { text } => json!({"text": text}),
        EventKind::Preempting { by, grace_ms } => json!({"by": id_of(*by, journal), "grace_ms": grace_ms}),
        EventKind::Preempted { rung, lost_ms } => json!({"rung": rung.as_str(), "lost_ms": lost_ms}),
        EventKind::Retried { code, message, at } => json!({"code": code, "message": message, "at_ms": at}),
        EventKind::Lost { reason } | EventKind::Cancelled { reason } => json!({"reason": reason}),
        EventKind::Failed { code, message } => json!({"code": code, "message": message}),
        _ => return None,
    })
}

/// Whether a task's transitions end with this one.
pub(crate) const fn is_last(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Succeeded | EventKind::Failed { .. } | EventKind::Cancelled { .. } | EventKind::Expired
    )
}
