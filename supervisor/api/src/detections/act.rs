//! What is done about a finding, and how it is told.

use std::sync::Arc;

use aion_detect::Action;
use aion_launcher_client::Error as LauncherError;
use aion_launcher_proto::v1 as launcher;
use aion_store::{AgentRecord, Batch};
use aion_types::{AgentId, ErrorCode, TenantId};
use serde_json::{Map, Value, json};

use super::Found;
use crate::core::Core;
use crate::figures::Whose;
use crate::lifecycle::{self, Command};
use crate::problem::{Outcome, Problem};

/// What a throttled agent has left: a tenth of a processor.
const THROTTLED_MILLIS: u32 = 100;
/// Bytes of a text of the event that go into the record, and fields.
const TEXT: usize = 200;
const FIELDS: usize = 24;

/// An event's time comes from another clock than a start's: it may seem to be so much before the start that it belongs to.
const CLOCKS_APART_NS: u64 = 20_000_000;

/// How an action went.
enum Ended {
    /// Nothing was to be done.
    None,
    Done,
    Skipped(&'static str),
    Failed(String),
}

impl Ended {
    const fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Done => "done",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }
}

impl Core {
    /// Acts upon one finding, then tells.
    pub(super) async fn act(self: Arc<Self>, found: Found) {
        let rule = Arc::clone(&found.finding.rule);
        let done = self.take_action(&found).await;
        let (agent, tenant) = (found.finding.agent.clone(), found.finding.tenant.clone());
        if let Ended::Failed(why) = &done {
            tracing::error!(agent, rule = rule.name, action = %rule.action, why, "a detection's action failed");
        } else {
            tracing::warn!(agent, rule = rule.name, severity = %rule.severity, action = %rule.action, "detected");
        }
        let whose = self.whose(&tenant, &agent);
        if let Some(mut state) = self.detections.lock() {
            state.figures.found(&found.finding, whose, done.word());
        }
        let verdict = match &done {
            Ended::Failed(_) => "error",
            Ended::Done => "denied",
            Ended::None | Ended::Skipped(_) => "allowed",
        };
        let detail = describe(&found, &done);
        self.trail.finding(&tenant, &agent, verdict, &rule.name, &detail).await;
        self.alert(&found, done.word(), &detail);
    }

    /// Whose figures a finding is of.
    fn whose(&self, tenant: &str, id: &str) -> Option<Whose> {
        let (tenant, id) = (TenantId::parse(tenant).ok()?, AgentId::parse(id).ok()?);
        let record = self.agents.get(&tenant, &id).ok().flatten()?;
        Some(Whose::of(&record))
    }

    async fn take_action(&self, found: &Found) -> Ended {
        let finding = &found.finding;
        let action = finding.rule.action;
        if action == Action::Alert {
            return Ended::None;
        }
        let (Ok(tenant), Ok(id)) = (TenantId::parse(&finding.tenant), AgentId::parse(&finding.agent)) else {
            return Ended::Skipped("it is no agent");
        };
        let _op = self.agents.lock(&id).await;
        let record = match self.agents.get(&tenant, &id) {
            Ok(record) => record,
            Err(problem) => return Ended::Failed(problem.to_string()),
        };
        if let Some(record) = &record
            && record.started_ns > finding.time_ns.saturating_add(CLOCKS_APART_NS)
        {
            return Ended::Skipped("it was launched anew since");
        }
        let reason = format!("detection {}", finding.rule.name);
        match self.do_it(action, &tenant, &id, record.as_ref(), &reason).await {
            Ok(()) => Ended::Done,
            Err(problem)
                if matches!(problem.code(), ErrorCode::AgentNotRunning | ErrorCode::AgentNotFound) =>
            {
                Ended::Skipped("it does not run any more")
            }
            Err(problem) => Ended::Failed(problem.to_string()),
        }
    }

    /// The caller holds the agent's lock.
    async fn do_it(
        &self,
        action: Action,
        tenant: &TenantId,
        id: &AgentId,
        record: Option<&AgentRecord>,
        reason: &str,
    ) -> Outcome<()> {
        let at = id.as_str();
        let state = match action {
            Action::Alert => return Ok(()),
            Action::Throttle => self.launcher.throttle(at, THROTTLED_MILLIS, reason).await,
            Action::IsolateNetwork => self.launcher.isolate(at, true, reason).await,
            Action::Freeze => self.launcher.freeze(at, reason).await,
            Action::Kill => return self.end(tenant, id, record, reason).await,
        };
        self.taken(tenant, id, record.is_some(), state)
    }

    /// A run of a tool is in no record; the launcher has it all the same.
    fn taken(
        &self,
        tenant: &TenantId,
        id: &AgentId,
        known: bool,
        state: Result<launcher::AgentState, LauncherError>,
    ) -> Outcome<()> {
        let state = state?;
        if known {
            self.take_in(tenant, id, &state)?;
        }
        Ok(())
    }

    /// Ends the agent for good: no restart follows.
    async fn end(
        &self,
        tenant: &TenantId,
        id: &AgentId,
        record: Option<&AgentRecord>,
        reason: &str,
    ) -> Outcome<()> {
        if record.is_none() {
            return self.taken(tenant, id, false, self.launcher.kill(id.as_str(), reason).await);
        }
        let now = self.agents.update(tenant, id, Batch::new(), |record, _| {
            lifecycle::check(record, Command::Stop)?;
            lifecycle::begin_stop(record);
            Ok(())
        })?;
        if !now.state.is_live() {
            self.set_clocks(&now);
            return Err(Problem::new(ErrorCode::AgentNotRunning, "it waited for its restart"));
        }
        self.kill_all(tenant, id, reason).await.map(drop)
    }
}

fn describe(found: &Found, done: &Ended) -> Value {
    let finding = &found.finding;
    let rule = &finding.rule;
    let mut detail = json!({
        "rule": rule.name, "severity": rule.severity.as_str(), "tags": rule.tags, "action": rule.action.as_str(),
        "result": done.word(), "value": finding.value, "window_ms": rule.window_ns / 1_000_000,
        "first_seq": finding.first_seq, "seq": finding.seq, "event_ns": finding.time_ns,
        "evidence": { "kind": found.kind, "detail": shortened(&found.detail) },
    });
    match done {
        Ended::Skipped(why) => detail["why"] = json!(why),
        Ended::Failed(why) => detail["why"] = json!(cut(why)),
        Ended::None | Ended::Done => {}
    }
    if finding.suppressed > 0 {
        detail["suppressed"] = json!(finding.suppressed);
    }
    detail
}

/// The event's fields, none of them long: the record of its number has the whole.
fn shortened(detail: &Map<String, Value>) -> Map<String, Value> {
    let short = |value: &Value| match value {
        Value::String(text) => json!(cut(text)),
        Value::Array(items) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            json!(cut(&words.join(" ")))
        }
        Value::Object(_) => Value::Null,
        other => other.clone(),
    };
    detail.iter().take(FIELDS).map(|(name, value)| (name.clone(), short(value))).collect()
}

fn cut(text: &str) -> &str {
    let end = (0..=TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_short_whatever_the_agent_chose() {
        let detail = json!({"argv": ["é".repeat(500), "x"], "comm": "sh", "pid": 7, "deep": {"a": 1}});
        let short = shortened(detail.as_object().unwrap());
        assert!(short["argv"].as_str().unwrap().len() <= TEXT);
        assert_eq!((&short["comm"], &short["pid"], &short["deep"]), (&json!("sh"), &json!(7), &Value::Null));
    }
}
