//! An audit record, which is also what an event is.

use aion_client::api;
use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;

use crate::output::{cell, state_cell, table};
use crate::text::{clean_line, shorten};
use crate::when::Moment;

/// The JSON of a record.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RecordView {
    pub(crate) seq: u64,
    /// RFC 3339 with nanoseconds.
    pub(crate) time: String,
    pub(crate) tenant: String,
    /// The agent's id; empty when the record is about none.
    pub(crate) agent: String,
    pub(crate) agent_name: String,
    pub(crate) task: String,
    pub(crate) trace: String,
    pub(crate) kind: String,
    pub(crate) verdict: String,
    pub(crate) rule: String,
    pub(crate) detail: Value,
}

impl From<api::Record> for RecordView {
    fn from(record: api::Record) -> Self {
        // Always an object, so that `.detail.field` never fails.
        let detail = match serde_json::from_str(&record.detail_json) {
            Ok(Value::Object(fields)) => Value::Object(fields),
            Ok(Value::Null) | Err(_) if record.detail_json.trim().is_empty() => serde_json::json!({}),
            Ok(other) => serde_json::json!({ "value": other }),
            Err(_) => serde_json::json!({ "text": record.detail_json }),
        };
        Self {
            seq: record.seq,
            time: Moment::from_api(record.time.as_ref()).unwrap_or(Moment(0)).rfc3339(),
            tenant: record.tenant,
            agent: record.agent,
            agent_name: record.agent_name,
            task: record.task,
            trace: record.trace,
            kind: record.kind,
            verdict: record.verdict,
            rule: record.rule,
            detail,
        }
    }
}

impl RecordView {
    fn who(&self) -> &str {
        match (self.agent_name.as_str(), self.agent.as_str()) {
            ("", "") => "-",
            ("", id) => id,
            (name, _) => name,
        }
    }

    /// One line of a stream for people.
    pub(crate) fn line(&self, wide: bool) -> String {
        let detail = detail_words(&self.detail);
        let rule = if self.rule.is_empty() { String::new() } else { format!(" [{}]", self.rule) };
        let text = format!(
            "{} {:>6} {:<20} {:<16} {:<8}{rule} {}",
            self.time.get(..23).unwrap_or(&self.time),
            self.seq,
            self.who(),
            self.kind,
            self.verdict,
            if wide { detail } else { shorten(&detail, 120) }
        );
        clean_line(&text)
    }
}

/// Records for people.
pub(crate) fn records_table(records: &[RecordView], wide: bool) -> Table {
    let mut header = vec!["TIME", "SEQ", "AGENT", "KIND", "VERDICT", "RULE", "DETAIL"];
    if wide {
        header.extend(["TENANT", "TASK", "TRACE"]);
    }
    let mut rows = table(&header);
    for record in records {
        let detail = detail_words(&record.detail);
        let mut row = vec![
            cell(record.time.get(..23).unwrap_or(&record.time)),
            cell(record.seq.to_string()),
            cell(record.who()),
            cell(&record.kind),
            state_cell(&record.verdict),
            cell(if record.rule.is_empty() { "-" } else { &record.rule }),
            cell(if wide { detail } else { shorten(&detail, 96) }),
        ];
        if wide {
            row.extend([cell(&record.tenant), cell(&record.task), cell(&record.trace)]);
        }
        rows.add_row(row);
    }
    rows
}

/// `pid=42 argv="ls -l"`: a detail's fields in their order.
pub(crate) fn detail_words(detail: &Value) -> String {
    let Value::Object(fields) = detail else { return String::new() };
    let words: Vec<String> = fields
        .iter()
        .map(|(key, value)| match value {
            Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => {
                format!("{key}={text}")
            }
            other => format!("{key}={other}"),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(detail: &str) -> RecordView {
        RecordView::from(api::Record {
            seq: 7,
            time: Some(aion_client::timestamp(1_700_000_000_000_000_042)),
            tenant: "default".to_owned(),
            agent: "01JD5Z0000ABCDEFGHJKMNPQRS".to_owned(),
            agent_name: "calm-otter".to_owned(),
            kind: "net.connect".to_owned(),
            verdict: "denied".to_owned(),
            rule: "network:none".to_owned(),
            detail_json: detail.to_owned(),
            ..api::Record::default()
        })
    }

    #[test]
    fn the_json_of_a_record() {
        insta::assert_json_snapshot!(sample(r#"{"dst":"10.0.0.1","port":443}"#));
    }

    #[test]
    fn the_detail_is_an_object_whatever_comes() {
        for (sent, expected) in [
            ("", "{}"),
            ("null", r#"{"value":null}"#),
            ("[1]", r#"{"value":[1]}"#),
            ("{oops", r#"{"text":"{oops"}"#),
        ] {
            assert_eq!(sample(sent).detail.to_string(), expected);
        }
    }

    #[test]
    fn records_for_people() {
        let records = [sample(r#"{"argv":"ls -l \u001b[2J","pid":4}"#)];
        let mut rows = records_table(&records, false);
        rows.force_no_tty();
        insta::assert_snapshot!(format!("{}\n{}", rows.trim_fmt(), records[0].line(false)));
    }
}
