//! `summary.json`, and the same as a table: what is in the bundle, what is not and why, and how much was redacted.

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::bundle::Part;
use crate::output::{cell, state_cell, table};
use crate::when::Moment;

/// Its name in the bundle.
pub(super) const NAME: &str = "summary.json";

/// What is known of the whole.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    /// RFC 3339.
    pub(super) made: String,
    pub(super) aionctl: &'static str,
    pub(super) daemon: Daemon,
    /// What was collected begins here.
    pub(super) since: String,
    /// The agents that were asked for; empty: all of the tenant.
    pub(super) agents: Vec<String>,
    /// Of all files.
    pub(super) redactions: u64,
    /// How many could not be collected.
    pub(super) missing: usize,
    pub(super) files: Vec<FileView>,
}

/// Whether aiond answered at all.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Daemon {
    pub(super) socket: String,
    pub(super) answers: bool,
    /// Null when it does.
    pub(super) why: Option<String>,
}

/// One file.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FileView {
    pub(super) name: String,
    /// ok, cut or missing.
    pub(super) state: &'static str,
    pub(super) bytes: u64,
    pub(super) redactions: u64,
    /// Why it is missing; null when it is not.
    pub(super) why: Option<String>,
    /// What collecting it might have taken.
    pub(super) limit_s: u64,
    pub(super) limit_bytes: u64,
}

impl From<&Part> for FileView {
    fn from(part: &Part) -> Self {
        let bytes = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let held = part.held.as_ref();
        Self {
            name: part.name.clone(),
            state: held.map_or("missing", |held| if held.cut { "cut" } else { "ok" }),
            bytes: held.map_or(0, |held| bytes(held.text.len())),
            redactions: held.map_or(0, |held| held.redactions),
            why: held.err().cloned(),
            limit_s: part.limits.time.as_secs(),
            limit_bytes: bytes(part.limits.bytes),
        }
    }
}

impl Summary {
    pub(super) fn new(
        daemon: Daemon,
        made: Moment,
        since: Moment,
        agents: &[String],
        parts: &[Part],
    ) -> Self {
        let files: Vec<FileView> = parts.iter().map(FileView::from).collect();
        Self {
            made: made.rfc3339(),
            aionctl: env!("CARGO_PKG_VERSION"),
            daemon,
            since: since.rfc3339(),
            agents: agents.to_vec(),
            redactions: files.iter().map(|file| file.redactions).sum(),
            missing: files.iter().filter(|file| file.state == "missing").count(),
            files,
        }
    }

    pub(super) fn table(&self) -> Table {
        let number = |text: String| cell(text).set_alignment(CellAlignment::Right);
        let mut rows = table(&["FILE", "STATE", "SIZE", "REDACTED", "WHY"]);
        for file in &self.files {
            let missing = file.state == "missing";
            rows.add_row([
                cell(&file.name),
                state_cell(file.state),
                number(if missing { "-".to_owned() } else { crate::text::bytes(file.bytes) }),
                number(if missing { "-".to_owned() } else { file.redactions.to_string() }),
                cell(file.why.as_deref().unwrap_or(match file.state {
                    "cut" => "only its end: it was longer than the limit",
                    _ => "-",
                })),
            ]);
        }
        rows
    }
}
