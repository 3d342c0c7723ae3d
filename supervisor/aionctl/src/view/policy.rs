//! Agents that are held to the rules, as `policy reload` shows them.

use aion_client::api;
use comfy_table::Table;
use serde::Serialize;

use crate::output::{cell, table};
use crate::text::clean_line;

/// The JSON of an agent that has more than the rules leave it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HeldView {
    tenant: String,
    id: String,
    pub(crate) name: String,
    withheld: Vec<HostView>,
    given_back: Vec<String>,
    withheld_files: Vec<FileView>,
    files_given_back: Vec<String>,
    until_restart: Vec<String>,
    pub(crate) error: String,
}

#[derive(Debug, Clone, Serialize)]
struct HostView {
    host: String,
    why: String,
}

#[derive(Debug, Clone, Serialize)]
struct FileView {
    rule: String,
    why: String,
}

impl From<api::HeldAgent> for HeldView {
    fn from(held: api::HeldAgent) -> Self {
        let host = |one: api::WithheldHost| HostView { host: one.host, why: one.why };
        let file = |one: api::WithheldFile| FileView { rule: one.rule, why: one.why };
        Self {
            tenant: held.tenant,
            id: held.id,
            name: held.name,
            withheld: held.withheld.into_iter().map(host).collect(),
            given_back: held.given_back,
            withheld_files: held.withheld_files.into_iter().map(file).collect(),
            files_given_back: held.files_given_back,
            until_restart: held.until_restart,
            error: held.error,
        }
    }
}

pub(crate) fn held_table(views: &[HeldView]) -> Table {
    let mut all = table(&["TENANT", "AGENT", "NOW", "WHAT", "WHY"]);
    for view in views {
        let mut row = |now: &str, what: &str, why: &str| {
            all.add_row(vec![
                cell(&view.tenant),
                cell(&view.name),
                cell(now),
                cell(clean_line(what)),
                cell(clean_line(why)),
            ]);
        };
        for host in &view.withheld {
            row("withheld", &format!("net:connect:{}", host.host), &host.why);
        }
        for host in &view.given_back {
            row("given back", &format!("net:connect:{host}"), "");
        }
        for file in &view.withheld_files {
            row("withheld", &file.rule, &file.why);
        }
        for rule in &view.files_given_back {
            row("given back", rule, "");
        }
        for why in &view.until_restart {
            row("keeps until its next start", "", why);
        }
        if !view.error.is_empty() {
            row("failed", "", &view.error);
        }
    }
    all
}
