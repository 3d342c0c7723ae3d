//! Detections and what they found, as their commands show them.

use std::fmt::Write as _;

use aion_client::api;
use aion_detect::{Rule, When};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::Value;

use super::record::{RecordView, detail_words};
use crate::output::{cell, table};
use crate::text::shorten;
use crate::when::Moment;

/// The JSON of `detections ls`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RulesView {
    pub(crate) loaded: Option<String>,
    /// Records that were gone before they could be looked at.
    pub(crate) lost_records: u64,
    pub(crate) detections: Vec<RuleView>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RuleView {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) severity: String,
    pub(crate) tags: Vec<String>,
    /// count, distinct, sum, sequence, beacon or deviation.
    pub(crate) kind: String,
    pub(crate) window_ms: u64,
    pub(crate) action: String,
    pub(crate) enabled: bool,
    /// Since the daemon began.
    pub(crate) fired: u64,
    pub(crate) suppressed: u64,
    pub(crate) last: Option<String>,
}

/// The JSON of a finding.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FindingView {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) tenant: String,
    pub(crate) agent: String,
    pub(crate) agent_name: String,
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) action: String,
    /// none, done, skipped or failed.
    pub(crate) result: String,
    pub(crate) detail: Value,
}

impl From<api::ListDetectionsResponse> for RulesView {
    fn from(answer: api::ListDetectionsResponse) -> Self {
        Self {
            loaded: Moment::from_api(answer.loaded.as_ref()).map(Moment::rfc3339),
            lost_records: answer.lost_records,
            detections: answer.detections.into_iter().map(RuleView::from).collect(),
        }
    }
}

impl From<api::Detection> for RuleView {
    fn from(rule: api::Detection) -> Self {
        Self {
            last: Moment::from_api(rule.last.as_ref()).map(Moment::rfc3339),
            name: rule.name,
            description: rule.description,
            severity: rule.severity,
            tags: rule.tags,
            kind: rule.kind,
            window_ms: rule.window_ms,
            action: rule.action,
            enabled: rule.enabled,
            fired: rule.fired,
            suppressed: rule.suppressed,
        }
    }
}

impl From<&Rule> for RuleView {
    fn from(rule: &Rule) -> Self {
        let kind = match rule.when {
            When::Count { .. } => "count",
            When::Distinct { .. } => "distinct",
            When::Sum { .. } => "sum",
            When::Sequence(_) => "sequence",
            When::Beacon(_) => "beacon",
            When::Deviation(_) => "deviation",
        };
        Self {
            name: rule.name.clone(),
            description: rule.description.clone(),
            severity: rule.severity.to_string(),
            tags: rule.tags.clone(),
            kind: kind.to_owned(),
            window_ms: rule.window_ns / 1_000_000,
            action: rule.action.to_string(),
            enabled: rule.enabled,
            fired: 0,
            suppressed: 0,
            last: None,
        }
    }
}

impl From<api::Record> for FindingView {
    fn from(record: api::Record) -> Self {
        let record = RecordView::from(record);
        let word = |field: &str| record.detail[field].as_str().unwrap_or_default().to_owned();
        Self {
            rule: word("rule"),
            severity: word("severity"),
            action: word("action"),
            result: word("result"),
            seq: record.seq,
            time: record.time,
            tenant: record.tenant,
            agent: record.agent,
            agent_name: record.agent_name,
            detail: record.detail,
        }
    }
}

/// The text; `render` turns tables into text with or without colours.
pub(crate) fn rules_text(view: &RulesView, wide: bool, render: impl Fn(Table) -> String) -> String {
    let number = |n: u64| cell(n.to_string()).set_alignment(CellAlignment::Right);
    let mut header = vec!["NAME", "SEVERITY", "ACTION", "FOUND", "LAST", "TAGS"];
    if wide {
        header.extend(["KIND", "WINDOW", "SUPPRESSED", "DESCRIPTION"]);
    }
    let mut rows = table(&header);
    for rule in &view.detections {
        let name = if rule.enabled { rule.name.clone() } else { format!("{} (off)", rule.name) };
        let last = rule.last.as_deref().map_or("-", |last| last.get(..19).unwrap_or(last));
        let mut row = vec![
            cell(name),
            cell(&rule.severity),
            cell(&rule.action),
            number(rule.fired),
            cell(last),
            cell(rule.tags.join(" ")),
        ];
        if wide {
            row.extend([
                cell(&rule.kind),
                cell(format!("{}s", rule.window_ms / 1000)),
                number(rule.suppressed),
                cell(&rule.description),
            ]);
        }
        rows.add_row(row);
    }
    let mut out = format!("{}\n", render(rows));
    if view.lost_records > 0 {
        let _ = writeln!(out, "\n{} records were gone before they were looked at", view.lost_records);
    }
    out
}

pub(crate) fn checked_table(rules: &[RuleView]) -> Table {
    let mut rows = table(&["NAME", "SEVERITY", "ACTION", "KIND", "WINDOW", "DESCRIPTION"]);
    for rule in rules {
        let window = format!("{}s", rule.window_ms / 1000);
        rows.add_row(
            [&rule.name, &rule.severity, &rule.action, &rule.kind, &window, &rule.description].map(cell),
        );
    }
    rows
}

pub(crate) fn findings_table(findings: &[FindingView], wide: bool) -> Table {
    let mut rows = table(&["TIME", "AGENT", "DETECTION", "SEVERITY", "ACTION", "RESULT", "EVIDENCE"]);
    for finding in findings {
        let who = if finding.agent_name.is_empty() { &finding.agent } else { &finding.agent_name };
        let evidence = &finding.detail["evidence"];
        let kind = evidence["kind"].as_str().unwrap_or_default();
        let words = format!("{kind} {}", detail_words(&evidence["detail"]));
        rows.add_row([
            cell(finding.time.get(..19).unwrap_or(&finding.time)),
            cell(who),
            cell(&finding.rule),
            cell(&finding.severity),
            cell(&finding.action),
            cell(&finding.result),
            cell(if wide { words } else { shorten(&words, 80) }),
        ]);
    }
    rows
}
