//! What the host gives, and who is talking.

use aion_client::api;
use comfy_table::Table;
use serde::Serialize;

use crate::output::{cell, state_cell, table};

/// The JSON of one check of `doctor`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckView {
    pub(crate) name: String,
    /// ok, degraded or missing.
    pub(crate) state: String,
    pub(crate) detail: String,
    /// How to get it; empty when nothing is to be done.
    pub(crate) fix: String,
}

impl CheckView {
    pub(crate) fn new(name: &str, state: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: state.to_owned(), detail: detail.into(), fix: fix.into() }
    }
}

impl From<api::Check> for CheckView {
    fn from(check: api::Check) -> Self {
        Self { name: check.name, state: check.state, detail: check.detail, fix: check.fix }
    }
}

pub(crate) fn checks_table(checks: &[CheckView]) -> Table {
    let mut rows = table(&["CHECK", "STATE", "DETAIL", "FIX"]);
    for check in checks {
        let fix = if check.fix.is_empty() { "-" } else { &check.fix };
        rows.add_row([cell(&check.name), state_cell(&check.state), cell(&check.detail), cell(fix)]);
    }
    rows
}
