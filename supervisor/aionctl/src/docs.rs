//! docs/cli.md, made from the command line's own description, so that it cannot be out of date.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;

/// The reference of all commands, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut command = Cli::command();
    command.build();
    let mut out = String::from(
        "# aionctl\n\nMade from the program itself by `UPDATE_DOCS=1 cargo test -p aionctl`; a test fails when it is out of date.\n\n\
         Data goes to stdout, everything else to stderr. Colours only on a terminal, and not when `NO_COLOR` is set.\n\n",
    );
    let _ = writeln!(out, "{}\n\n```text\n{}\n```\n", about(&command), usage(&mut command.clone()));
    let _ = writeln!(out, "Options of all commands:\n");
    options(&mut out, command.get_arguments().filter(|arg| arg.is_global_set()));
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(out, "```text\n{after}\n```\n");
    }
    let _ = writeln!(out, "Environment:\n\n- `AION_SOCKET`: aiond's socket.");
    let _ = writeln!(
        out,
        "- `AION_RECONNECT_SECONDS`: how long a command that was cut off waits for aiond to come back (default 120).\n"
    );
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        section(&mut out, sub, "aionctl");
    }
    out
}

fn section(out: &mut String, command: &Command, parent: &str) {
    let path = format!("{parent} {}", command.get_name());
    let _ = writeln!(out, "## {path}\n\n{}\n", about(command));
    let subcommands: Vec<&Command> =
        command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    if subcommands.is_empty() {
        let _ = writeln!(out, "```text\n{}\n```\n", usage(&mut command.clone()));
    }
    let hidden = |arg: &&Arg| !arg.is_global_set() && arg.get_id() != "help" && !arg.is_hide_set();
    options(out, command.get_arguments().filter(hidden));
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(out, "```text\n{after}\n```\n");
    }
    for sub in subcommands {
        section(out, sub, &path);
    }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn usage(command: &mut Command) -> String {
    command.render_usage().to_string().trim_start_matches("Usage: ").to_owned()
}

fn options<'a>(out: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let mut any = false;
    for arg in args {
        any = true;
        let mut names = Vec::new();
        names.extend(arg.get_short().map(|short| format!("-{short}")));
        names.extend(arg.get_long().map(|long| format!("--{long}")));
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        let value = value.and_then(|names| names.first()).map(|name| format!("<{name}>"));
        let title = match (names.is_empty(), value) {
            (true, value) => value.unwrap_or_default(),
            (false, Some(value)) => format!("{} {value}", names.join(", ")),
            (false, None) => names.join(", "),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = write!(out, "- `{title}`: {help}.");
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        if !defaults.is_empty() && arg.get_action().takes_values() {
            let _ = write!(out, " Default `{}`.", defaults.join(" "));
        }
        let choices: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|choice| !choice.is_hide_set())
            .map(|choice| match choice.get_help() {
                Some(help) => format!("`{}` ({help})", choice.get_name()),
                None => format!("`{}`", choice.get_name()),
            })
            .collect();
        if !choices.is_empty() && arg.get_action().takes_values() {
            let _ = write!(out, " One of {}.", choices.join(", "));
        }
        out.push('\n');
    }
    if any {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_reference_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        let now = super::reference();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &now).expect("docs/cli.md can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == now, "docs/cli.md is out of date: run UPDATE_DOCS=1 cargo test -p aionctl");
    }
}
