//! Calls that wait for a person, as their commands show them.

use aion_client::api;
use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;

use crate::output::{cell, table};
use crate::when::Moment;

/// Letters of what an agent says that the table shows; `-o json` has all of it.
const SHOWN: usize = 80;

/// The JSON of a call that waits.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ApprovalView {
    pub(crate) id: String,
    tenant: String,
    pub(crate) agent: String,
    pub(crate) syscall: String,
    target: String,
    reason: String,
    subject: Value,
    since: String,
    until: String,
}

impl From<api::Approval> for ApprovalView {
    fn from(approval: api::Approval) -> Self {
        let moment = |at: Option<&_>| Moment::from_api(at).map_or_else(String::new, Moment::rfc3339);
        let (since, until) = (moment(approval.since.as_ref()), moment(approval.until.as_ref()));
        let subject = serde_json::from_str(&approval.subject_json).unwrap_or(Value::Null);
        let api::Approval { id, tenant, agent, syscall, target, reason, .. } = approval;
        Self { id, tenant, agent, syscall, target, reason, subject, since, until }
    }
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

pub(crate) fn approvals_table(approvals: &[ApprovalView]) -> Table {
    let mut table = table(&["ID", "AGENT", "CALL", "ABOUT", "GIVEN", "UNTIL"]);
    for approval in approvals {
        let about = if approval.target.is_empty() { &approval.reason } else { &approval.target };
        let given = if approval.subject.is_null() { String::new() } else { approval.subject.to_string() };
        table.add_row(vec![
            cell(&approval.id),
            cell(&approval.agent),
            cell(&approval.syscall),
            cell(short(about)),
            cell(short(&given)),
            cell(&approval.until),
        ]);
    }
    table
}
