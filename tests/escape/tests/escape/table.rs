//! What there is to attempt, what came of it, and how it is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;

/// By the attempt's id.
pub(crate) type Results = BTreeMap<String, Outcome>;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) outcome: String,
    pub(crate) how: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) category: String,
    pub(crate) description: String,
    pub(crate) layer: String,
    pub(crate) place: String,
}

impl Listed {
    pub(crate) fn name(&self) -> String {
        format!("{}::{}", self.category.replace([' ', '\''], "-"), self.id)
    }
}

pub(crate) struct Row<'a> {
    pub(crate) listed: &'a Listed,
    pub(crate) attempt: Option<Outcome>,
    pub(crate) control: Option<Outcome>,
}

/// Ways out that are known and not closed yet, told in docs/threat-model.md under "Known and open". One that is found
/// blocked everywhere belongs out of this list.
const OPEN: &[&str] = &[];

impl Row<'_> {
    /// The control shows that the test can fail.
    pub(crate) fn is_shown(&self) -> bool {
        self.control.as_ref().is_some_and(|c| c.outcome == "escaped")
    }

    pub(crate) fn check(&self) {
        let id = &self.listed.id;
        let attempt = self.attempt.as_ref().unwrap_or_else(|| panic!("{id}: the agent said nothing of it"));
        let open = OPEN.contains(&id.as_str());
        if open && attempt.outcome != "blocked" {
            println!("{id}: known and open: {}", attempt.how);
        }
        assert!(
            open || attempt.outcome == "blocked",
            "{id} ESCAPED: {} ({}; expected to be stopped by {})",
            attempt.how,
            self.listed.description,
            self.listed.layer
        );
        let control = self.control.as_ref().unwrap_or_else(|| panic!("{id}: no control"));
        assert!(control.outcome != "blocked", "{id}: the control did not succeed: {}", control.how);
    }
}

/// The program that attempts.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_aion-escape"))
}

pub(crate) fn list() -> Vec<Listed> {
    let output = Command::new(program()).arg("list").output().expect("aion-escape list");
    serde_json::from_slice(&output.stdout).expect("a list")
}

/// One outcome a line; other lines are the program's own business.
pub(crate) fn outcomes(text: &[u8]) -> Vec<Outcome> {
    String::from_utf8_lossy(text).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub(crate) fn print(rows: &[Row<'_>]) {
    let text = |outcome: Option<&Outcome>| {
        outcome.map_or_else(|| "?".to_owned(), |o| format!("{}: {}", o.outcome, o.how))
    };
    let short = |text: String, length: usize| text.chars().take(length).collect::<String>();
    println!("{:<28} {:<58} control", "attempt", "in an agent");
    let mut category = "";
    for row in rows {
        if category != row.listed.category {
            category = &row.listed.category;
            println!("-- {category}");
        }
        println!(
            "{:<28} {:<58} {}",
            row.listed.id,
            short(text(row.attempt.as_ref()), 58),
            short(text(row.control.as_ref()), 60)
        );
    }
    let attempts =
        |word: &str| rows.iter().filter(|r| r.attempt.as_ref().is_some_and(|o| o.outcome == word)).count();
    let controls =
        |word: &str| rows.iter().filter(|r| r.control.as_ref().is_some_and(|o| o.outcome == word)).count();
    println!(
        "{} attempts: {} blocked, {} escaped; controls: {} succeeded, {} not in this kernel, {} failed",
        rows.len(),
        attempts("blocked"),
        attempts("escaped"),
        controls("escaped"),
        controls("unavailable"),
        controls("blocked"),
    );
}
