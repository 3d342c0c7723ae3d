//! What is told of one finding.

use std::time::{Duration, UNIX_EPOCH};

use aion_detect::Severity;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Bytes of the hash that are an alert's id.
const ID_BYTES: usize = 16;

/// One finding, for people and machines elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// The same for the same finding, however often it is sent: see [`Alert::id_of`].
    pub id: String,
    /// When the last event happened that counted.
    pub time_ns: u64,
    /// The rule.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// ATT&CK ids, and words of the rule's author.
    pub tags: Vec<String>,
    /// The agent's tenant.
    pub tenant: String,
    /// The agent's id.
    pub agent: String,
    /// Its name; empty when it has none.
    pub agent_name: String,
    /// What the rule says is to be done.
    pub action: String,
    /// How that went: `none`, `done`, `skipped` or `failed`.
    pub result: String,
    /// Why it was skipped or failed.
    pub why: Option<String>,
    /// In one line.
    pub summary: String,
    /// The last event that counted, as the audit record of the finding has it.
    pub evidence: Value,
    /// How many, or how much.
    pub value: u64,
    /// The audit records of the first and the last event that counted.
    pub seqs: (u64, u64),
}

impl Alert {
    /// An id that depends on what was found alone, so that a daemon which finds the same once more, after a crash, tells it under the
    /// same id.
    #[must_use]
    pub fn id_of(agent: &str, rule: &str, seq: u64, time_ns: u64) -> String {
        let text = format!("{agent}\n{rule}\n{seq}\n{time_ns}");
        let digest = Sha256::digest(text.as_bytes());
        hex::encode(digest.get(..ID_BYTES).unwrap_or_default())
    }

    /// As it travels. `dropped` are alerts that this webhook had no room for before.
    pub(crate) fn body(&self, host: &str, dropped: u64) -> Vec<u8> {
        let time = UNIX_EPOCH + Duration::from_nanos(self.time_ns);
        let mut body = json!({
            "id": self.id, "time": humantime::format_rfc3339_millis(time).to_string(), "host": host,
            "rule": self.rule, "severity": self.severity.as_str(), "tags": self.tags,
            "tenant": self.tenant, "agent": self.agent, "agent_name": self.agent_name,
            "action": self.action, "action_taken": self.result == "done", "result": self.result,
            "summary": self.summary, "evidence": self.evidence,
            "value": self.value, "first_seq": self.seqs.0, "seq": self.seqs.1,
        });
        if let Some(why) = &self.why {
            body["why"] = json!(why);
        }
        if dropped > 0 {
            body["dropped"] = json!(dropped);
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_that_of_its_finding_alone() {
        let id = Alert::id_of("01J", "reverse-shell", 7, 9);
        assert_eq!(id, Alert::id_of("01J", "reverse-shell", 7, 9));
        assert_eq!(id.len(), 2 * ID_BYTES);
        for other in [
            Alert::id_of("01K", "reverse-shell", 7, 9),
            Alert::id_of("01J", "fork-bomb", 7, 9),
            Alert::id_of("01J", "reverse-shell", 8, 9),
            // Samples have no record: their time tells them apart.
            Alert::id_of("01J", "reverse-shell", 7, 10),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn a_body_says_what_was_found_and_what_was_done() {
        let mut alert = crate::webhooks::tests::alert("reverse-shell", Severity::Critical);
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let body = read(alert.body("node-1", 0));
        assert_eq!(body["time"], "2023-11-14T22:13:20.007Z");
        assert_eq!((&body["host"], &body["severity"]), (&json!("node-1"), &json!("critical")));
        assert_eq!((&body["action_taken"], &body["result"]), (&json!(true), &json!("done")));
        assert!(body.get("dropped").is_none() && body.get("why").is_none(), "{body}");
        (alert.result, alert.why) = ("failed".to_owned(), Some("no answer".to_owned()));
        let body = read(alert.body("node-1", 3));
        assert_eq!((&body["action_taken"], &body["why"]), (&json!(false), &json!("no answer")));
        assert_eq!(body["dropped"], 3);
    }
}
