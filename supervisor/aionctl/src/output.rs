//! Printing results: one place that knows the formats, the terminal and its colours.

use std::io::{self, IsTerminal as _, Write};

use anstream::ColorChoice;
use comfy_table::{Attribute, Cell, Color, Table};
use serde::Serialize;

use crate::cli::Format;
use crate::failure::{Failure, Outcome};
use crate::text::clean_line;

/// Where results go, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    colour: bool,
    /// Columns of the terminal that stdout is; `None` when it is none.
    pub(crate) width: Option<u16>,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        let stdout = io::stdout();
        let colour = anstream::AutoStream::choice(&stdout) != ColorChoice::Never;
        let width =
            stdout.is_terminal().then(|| crate::terminal::size(&stdout).map(|(_, cols)| cols)).flatten();
        Self { format, colour, width }
    }

    /// Whether rows for people are wanted.
    pub(crate) fn is_human(self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Prints items in the format that was asked for: an array, a line each, or `table`.
    pub(crate) fn items<T: Serialize>(
        self,
        items: &[T],
        name: impl Fn(&T) -> String,
        table: impl FnOnce() -> Table,
    ) -> Outcome<()> {
        match self.format {
            Format::Table | Format::Wide => self.table(table()),
            Format::Name => lines(items.iter().map(name)),
            Format::Json => json(&items),
            Format::Yaml => yaml(&items),
            Format::Jsonl => items.iter().try_for_each(|item| json_line(item)),
        }
    }

    /// Prints one document: itself in the formats for programs, `human` otherwise.
    pub(crate) fn document<T: Serialize>(
        self,
        item: &T,
        name: &str,
        human: impl FnOnce() -> String,
    ) -> Outcome<()> {
        match self.format {
            Format::Table | Format::Wide => self.text(&human()),
            Format::Name => lines([name.to_owned()]),
            Format::Json => json(item),
            Format::Yaml => yaml(item),
            Format::Jsonl => json_line(item),
        }
    }

    /// Prints text with colours, where they belong.
    pub(crate) fn text(self, text: &str) -> Outcome<()> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    pub(crate) fn table(self, table: Table) -> Outcome<()> {
        lines([self.rendered(table)])
    }

    /// A table as text, with colours when stdout shows them.
    pub(crate) fn rendered(self, mut table: Table) -> String {
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.trim_fmt()
    }
}

/// A table without lines, the header bold.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A cell with text from outside.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(clean_line(text.as_ref()))
}

/// A cell whose colour tells how things are.
pub(crate) fn state_cell(state: &str) -> Cell {
    let cell = cell(state);
    match state {
        "running" | "active" | "ok" | "allowed" | "succeeded" => cell.fg(Color::Green),
        "paused" | "stopping" | "starting" | "degraded" | "killed" | "waiting" | "preempting" | "frozen" => {
            cell.fg(Color::Yellow)
        }
        "failed" | "missing" | "unavailable" | "denied" | "error" | "expired" => cell.fg(Color::Red),
        _ => cell,
    }
}

/// Prints lines.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Outcome<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints one JSON object on one line, at once: a reader may be waiting for it.
pub(crate) fn json_line<T: Serialize + ?Sized>(item: &T) -> Outcome<()> {
    let line = serde_json::to_string(item).map_err(|error| unprintable(&error))?;
    lines([line])
}

fn json<T: Serialize + ?Sized>(item: &T) -> Outcome<()> {
    let text = serde_json::to_string_pretty(item).map_err(|error| unprintable(&error))?;
    lines([text])
}

fn yaml<T: Serialize + ?Sized>(item: &T) -> Outcome<()> {
    let text = serde_yaml::to_string(item).map_err(|error| unprintable(&error))?;
    lines([text.trim_end().to_owned()])
}

fn unprintable(error: &dyn std::error::Error) -> Failure {
    Failure::new(1, "the result cannot be printed in this format").cause(error)
}

/// Says something on stderr that is no result.
pub(crate) fn note(text: &str) {
    let mut err = anstream::stderr().lock();
    // There is nobody to tell when stderr is gone.
    let _ = writeln!(err, "{}", crate::text::clean(text));
}

/// Prints a failure on stderr.
pub(crate) fn report(failure: &Failure) {
    let mut err = anstream::stderr().lock();
    let _ = err.write_all(failure.render().as_bytes());
}
