//! What becomes of tasks, in the audit log: what comes in one moment is told together, so that the log keeps up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_scheduler::{Event, EventKind, Name};
use serde_json::json;

use crate::host::Host;

/// How long events are gathered.
const MOMENT: Duration = Duration::from_millis(250);
/// Tasks that are named in one record; more are counted.
const NAMED: usize = 64;

/// A record for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Whose.
    pub tenant: String,
    /// The task, when there is only one.
    pub task: String,
    /// `task.submitted`, …
    pub kind: String,
    /// A JSON object.
    pub detail_json: String,
}

#[derive(Default)]
struct Gathered {
    count: u64,
    tasks: Vec<Name>,
    agents: BTreeMap<Name, u64>,
    reason: String,
}

/// Gathers events.
#[derive(Default)]
pub(crate) struct Audit {
    gathered: Mutex<BTreeMap<(Name, &'static str), Gathered>>,
}

impl Audit {
    /// Takes events in that are on disk.
    pub(crate) fn events(&self, events: &[Event]) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let Some(kind) = kind(&event.kind) else { continue };
            let entry = gathered.entry((Arc::clone(&event.tenant), kind)).or_default();
            entry.count += 1;
            if entry.tasks.len() < NAMED {
                entry.tasks.push(Arc::clone(&event.id));
            }
            if let Some(agent) = &event.agent
                && (entry.agents.len() < NAMED || entry.agents.contains_key(agent))
            {
                *entry.agents.entry(Arc::clone(agent)).or_default() += 1;
            }
            if entry.reason.is_empty()
                && let EventKind::Failed { message: text, .. }
                | EventKind::Cancelled { reason: text }
                | EventKind::Lost { reason: text } = &event.kind
            {
                entry.reason = text.chars().take(200).collect();
            }
        }
    }

    fn take(&self) -> Vec<AuditRecord> {
        let gathered = std::mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
        let records = gathered.into_iter().map(|((tenant, kind), entry)| {
            let tasks: Vec<&str> = entry.tasks.iter().map(|task| &**task).collect();
            let agents: BTreeMap<&str, u64> = entry.agents.iter().map(|(agent, n)| (&**agent, *n)).collect();
            let mut detail = json!({"count": entry.count, "tasks": tasks, "agents": agents});
            if !entry.reason.is_empty() {
                detail["reason"] = json!(entry.reason);
            }
            let task = match entry.tasks.as_slice() {
                [only] if entry.count == 1 => only.to_string(),
                _ => String::new(),
            };
            AuditRecord {
                tenant: tenant.to_string(),
                task,
                kind: kind.to_owned(),
                detail_json: detail.to_string(),
            }
        });
        records.collect()
    }

    /// Tells the audit log again and again, until it is dropped.
    pub(crate) async fn tell(self: Arc<Self>, host: Arc<dyn Host>) {
        loop {
            tokio::time::sleep(MOMENT).await;
            let records = self.take();
            if !records.is_empty() {
                host.audit(records).await;
            }
        }
    }
}

const fn kind(kind: &EventKind) -> Option<&'static str> {
    Some(match kind {
        EventKind::Submitted { .. } => "task.submitted",
        EventKind::Dispatched { .. } => "task.dispatched",
        EventKind::Preempted { .. } => "task.preempted",
        EventKind::Succeeded => "task.succeeded",
        EventKind::Failed { .. } => "task.failed",
        EventKind::Retried { .. } => "task.retried",
        EventKind::Lost { .. } => "task.lost",
        EventKind::Cancelled { .. } => "task.cancelled",
        EventKind::Expired => "task.expired",
        _ => return None,
    })
}
