//! API calls in the audit log, through the launcher, which is its only writer.
//!
//! A mutation is answered after its record was appended. While the launcher is away records wait in a bounded backlog; what
//! does not fit is counted, and the count itself becomes a record.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aion_launcher_client::Client;
use aion_launcher_proto::v1::AppendAudit;
use serde_json::json;

use crate::principal::{Principal, Stranger};
use crate::problem::Problem;

/// Records that wait for the launcher.
const BACKLOG: usize = 4096;
/// Refused peers that are recorded one by one in a second; the rest is counted.
const DENIALS_PER_SECOND: u32 = 20;

/// What is told about one call.
pub(crate) struct Entry<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) kind: &'static str,
    /// The agent's id; empty when there is none.
    pub(crate) agent: &'a str,
    pub(crate) detail: serde_json::Value,
}

#[derive(Default)]
struct State {
    backlog: VecDeque<AppendAudit>,
    dropped: u64,
    window: Option<(Instant, u32)>,
    uncounted_denials: u64,
}

/// The trail.
pub(crate) struct Trail {
    launcher: Client,
    state: Mutex<State>,
}

impl Trail {
    pub(crate) fn new(launcher: Client) -> Self {
        Self { launcher, state: Mutex::default() }
    }

    /// Records how a call ended.
    pub(crate) async fn record(&self, entry: Entry<'_>, outcome: Result<(), &Problem>) {
        let mut detail = entry.detail;
        if let Some(fields) = detail.as_object_mut() {
            fields.insert("subject".to_owned(), json!(entry.principal.subject()));
            fields.insert("uid".to_owned(), json!(entry.principal.uid()));
            fields.insert("pid".to_owned(), json!(entry.principal.pid()));
            if let Err(problem) = outcome {
                fields.insert("code".to_owned(), json!(problem.code().as_str()));
                let message: String = problem.message().chars().take(500).collect();
                fields.insert("message".to_owned(), json!(message));
            }
        }
        let verdict = match outcome {
            Ok(()) => "allowed",
            Err(problem) if is_denial(problem) => "denied",
            Err(_) => "error",
        };
        let record = AppendAudit {
            tenant: entry.principal.tenant().to_string(),
            agent: entry.agent.to_owned(),
            kind: entry.kind.to_owned(),
            verdict: verdict.to_owned(),
            rule: outcome.err().map_or(String::new(), |problem| plain(problem.meta("rule"))),
            detail_json: detail.to_string(),
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    /// Records what the daemon does by itself.
    pub(crate) async fn own(
        &self,
        tenant: &str,
        agent: &str,
        kind: &str,
        rule: &str,
        detail: serde_json::Value,
    ) {
        let record = AppendAudit {
            tenant: tenant.to_owned(),
            agent: agent.to_owned(),
            kind: kind.to_owned(),
            verdict: "allowed".to_owned(),
            rule: rule.to_owned(),
            detail_json: detail.to_string(),
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    /// Records what the daemon refused an agent by itself.
    pub(crate) async fn refused(
        &self,
        tenant: &str,
        agent: &str,
        kind: &str,
        rule: &str,
        detail: serde_json::Value,
    ) {
        let record = AppendAudit {
            tenant: tenant.to_owned(),
            agent: agent.to_owned(),
            kind: kind.to_owned(),
            verdict: "denied".to_owned(),
            rule: rule.to_owned(),
            detail_json: detail.to_string(),
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    /// Records what a detection found and what was done.
    pub(crate) async fn finding(
        &self,
        tenant: &str,
        agent: &str,
        verdict: &str,
        rule: &str,
        detail: &serde_json::Value,
    ) {
        let record = AppendAudit {
            tenant: tenant.to_owned(),
            agent: agent.to_owned(),
            kind: "detection.finding".to_owned(),
            verdict: verdict.to_owned(),
            rule: format!("detection: {rule}"),
            detail_json: detail.to_string(),
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    /// Records an alert that a webhook did not take.
    pub(crate) async fn undelivered(&self, alert: aion_webhook::Undelivered) {
        let detail = json!({
            "webhook": alert.webhook, "id": alert.id, "rule": alert.rule, "tries": alert.tries, "why": alert.why,
        });
        let record = AppendAudit {
            tenant: alert.tenant,
            agent: alert.agent,
            kind: "detection.undelivered".to_owned(),
            verdict: "error".to_owned(),
            rule: format!("webhook: {}", alert.webhook),
            detail_json: detail.to_string(),
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    /// Records what became of tasks.
    pub(crate) async fn task(&self, told: aion_tasks::AuditRecord) {
        let record = AppendAudit {
            tenant: told.tenant,
            task: told.task,
            kind: told.kind,
            verdict: "allowed".to_owned(),
            rule: String::new(),
            detail_json: told.detail_json,
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    /// Records system calls.
    pub(crate) async fn syscalls(&self, entry: aion_kernel::AuditEntry) {
        let record = AppendAudit {
            tenant: entry.tenant,
            agent: entry.agent,
            task: entry.task,
            trace: entry.trace,
            kind: entry.kind.to_owned(),
            verdict: entry.verdict.to_owned(),
            rule: plain(&entry.rule),
            detail_json: entry.detail_json,
        };
        self.append(record).await;
    }

    /// Records a peer that was turned away.
    pub(crate) async fn denied(&self, stranger: &Stranger, kind: &str) {
        let uncounted = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let (since, count) = state.window.get_or_insert((now, 0));
            if now.duration_since(*since) >= Duration::from_secs(1) {
                (*since, *count) = (now, 0);
            }
            *count += 1;
            if *count > DENIALS_PER_SECOND {
                state.uncounted_denials += 1;
                return;
            }
            std::mem::take(&mut state.uncounted_denials)
        };
        let mut detail = json!({"uid": stranger.uid, "pid": stranger.pid});
        if uncounted > 0 {
            detail["more_denied_before"] = json!(uncounted);
        }
        let record = AppendAudit {
            kind: kind.to_owned(),
            verdict: "denied".to_owned(),
            rule: "door:operators".to_owned(),
            detail_json: detail.to_string(),
            ..AppendAudit::default()
        };
        self.append(record).await;
    }

    async fn append(&self, record: AppendAudit) {
        let waiting = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            !state.backlog.is_empty()
        };
        // Order is kept: nothing overtakes what waits.
        if !waiting {
            match self.launcher.append_audit(record.clone()).await {
                Ok(_) => return,
                Err(error) if is_too_many(&error) => {
                    tracing::error!(%error, kind = record.kind, "the audit log takes no more just now");
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
                    return;
                }
                Err(error) if error.refusal().is_some() => {
                    tracing::error!(%error, kind = record.kind, "the audit log refused a record");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, kind = record.kind, "an audit record waits for the launcher")
                }
            }
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.backlog.len() < BACKLOG {
            state.backlog.push_back(record);
        } else {
            state.dropped += 1;
        }
    }

    /// Appends what waits. Called when the launcher is there again.
    pub(crate) async fn flush(&self) {
        loop {
            let next = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.backlog.is_empty() && state.dropped > 0 {
                    let dropped = std::mem::take(&mut state.dropped);
                    state.backlog.push_back(AppendAudit {
                        kind: "api.audit.dropped".to_owned(),
                        verdict: "error".to_owned(),
                        detail_json: json!({"records": dropped}).to_string(),
                        ..AppendAudit::default()
                    });
                }
                state.backlog.front().cloned()
            };
            let Some(record) = next else { return };
            match self.launcher.append_audit(record).await {
                Err(error) if error.refusal().is_none() => {
                    tracing::warn!(%error, "audit records wait on");
                    return;
                }
                Ok(_) | Err(_) => {
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).backlog.pop_front();
                }
            }
        }
    }
}

/// Over the rate that the launcher takes. It counts them too; waiting here would hold up every call.
fn is_too_many(error: &aion_launcher_client::Error) -> bool {
    error.refusal().is_some_and(|refusal| refusal.code == aion_types::ErrorCode::ResourceExhausted)
}

const fn is_denial(problem: &Problem) -> bool {
    use aion_types::ErrorCode as C;
    matches!(problem.code(), C::PermissionDenied | C::PolicyDenied | C::SignatureInvalid)
}

/// Bytes of a rule that the launcher takes.
const MAX_RULE: usize = 1024;

/// A rule as the launcher takes one. It may have a path or an operator's words in it, and a record that is refused for its rule would
/// be none.
fn plain(rule: &str) -> String {
    let mut plain: String = rule.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.truncate((0..=MAX_RULE.min(plain.len())).rev().find(|&at| plain.is_char_boundary(at)).unwrap_or(0));
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_short_and_on_one_line() {
        assert_eq!(plain("policy.yaml:8: deny x"), "policy.yaml:8: deny x");
        assert_eq!(plain("a\nb\u{1b}c"), "a b c");
        let long = plain(&"é€".repeat(1000));
        assert!(long.len() <= MAX_RULE && long.len() > MAX_RULE - 4, "{}", long.len());
    }
}
