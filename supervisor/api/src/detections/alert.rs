//! Findings for webhooks: told once they are recorded, and what was not taken is recorded, too.

use std::sync::Arc;

use aion_detect::Action;
use aion_types::TenantId;
use aion_webhook::Alert;
use serde_json::Value;

use super::Found;
use crate::core::Core;

impl Core {
    /// Tells whoever wants to know. `detail` is that of the record. Never waits.
    pub(super) fn alert(&self, found: &Found, result: &str, detail: &Value) {
        let finding = &found.finding;
        let rule = &finding.rule;
        let webhooks = &self.options.webhooks;
        if !webhooks.want(rule.severity, &rule.name) {
            return;
        }
        let tenant = TenantId::parse(&finding.tenant).ok();
        let name = tenant.and_then(|tenant| self.store.name_of(&tenant, &finding.agent).ok().flatten());
        let agent_name = name.unwrap_or_default();
        webhooks.tell(Alert {
            id: Alert::id_of(&finding.agent, &rule.name, finding.seq, finding.time_ns),
            time_ns: finding.time_ns,
            rule: rule.name.clone(),
            severity: rule.severity,
            tags: rule.tags.clone(),
            tenant: finding.tenant.clone(),
            agent: finding.agent.clone(),
            summary: summary(found, &agent_name, result),
            agent_name,
            action: rule.action.as_str().to_owned(),
            result: result.to_owned(),
            why: detail.get("why").and_then(Value::as_str).map(str::to_owned),
            evidence: detail.get("evidence").cloned().unwrap_or_default(),
            value: finding.value,
            seqs: (finding.first_seq, finding.seq),
        });
    }

    /// Records alerts that were given up, until shutdown.
    pub(crate) async fn record_undelivered(self: Arc<Self>) {
        while let Some(alert) = self.options.webhooks.undelivered().await {
            self.trail.undelivered(alert).await;
        }
    }
}

/// In one line: what, of whom, and what was done.
fn summary(found: &Found, name: &str, result: &str) -> String {
    let finding = &found.finding;
    let rule = &finding.rule;
    let what = if rule.description.is_empty() { &rule.name } else { &rule.description };
    let whom = if name.is_empty() { finding.agent.as_str() } else { name };
    let done = match rule.action {
        Action::Alert => String::new(),
        action => format!("; {action}: {result}"),
    };
    format!("{what} (agent {whom}, tenant {}{done})", finding.tenant)
}

#[cfg(test)]
mod tests {
    use aion_detect::{Filter, Finding, Rule, Severity, When};

    use super::*;

    fn found(description: &str, action: Action) -> Found {
        let rule = Rule {
            name: "reverse-shell".to_owned(),
            description: description.to_owned(),
            severity: Severity::Critical,
            tags: Vec::new(),
            window_ns: 1,
            when: When::Count { of: Filter { kinds: Vec::new(), tests: Vec::new() }, at_least: 1 },
            action,
            exceptions: Vec::new(),
            enabled: true,
        };
        let finding = Finding {
            rule: Arc::new(rule),
            agent: "01J".to_owned(),
            tenant: "acme".to_owned(),
            time_ns: 1,
            seq: 1,
            first_ns: 1,
            first_seq: 1,
            value: 1,
            suppressed: 0,
        };
        Found { finding, kind: "proc.exec", detail: serde_json::Map::new() }
    }

    #[test]
    fn a_summary_says_what_of_whom_and_what_was_done() {
        let said = summary(&found("A shell on a socket", Action::Freeze), "web-1", "done");
        assert_eq!(said, "A shell on a socket (agent web-1, tenant acme; freeze: done)");
        let said = summary(&found("", Action::Alert), "", "none");
        assert_eq!(said, "reverse-shell (agent 01J, tenant acme)");
    }
}
