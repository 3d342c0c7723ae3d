//! `aionctl`: the terminal's side of AION. Data goes to stdout, everything else to stderr.
//!
//! A command is described in `cli`, done in `commands`, and its results are shaped in `view`; `output` alone knows
//! formats and colours, `failure` alone knows how a command ends badly. Neighbours: `aion-client` (the API),
//! `aion-manifest` (manifests, read here only to check them before they are sent).

mod cli;
mod commands;
mod docs;
mod failure;
mod learn;
mod names;
mod output;
mod signal;
mod source;
mod synth;
mod terminal;
mod text;
mod view;
mod when;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use cli::Cli;
use failure::{Failure, RUN_ERROR, USAGE};

pub use docs::reference;

/// Runs a command line, and gives the exit status that it ends with.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &args),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::report(&Failure::new(1, "cannot start").cause(&error));
            return ExitCode::from(1);
        }
    };
    match runtime.block_on(commands::dispatch(cli)) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            output::report(&failure);
            ExitCode::from(failure.exit)
        }
    }
}

/// Prints what clap has to say: help on stdout, errors on stderr.
fn usage(error: &clap::Error, args: &[OsString]) -> ExitCode {
    // Nobody is left to tell when printing fails.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        // For `run` every error of ours is 125, so that no script takes it for the agent's.
        _ if subcommand(args).is_some_and(|word| word == "run") => ExitCode::from(RUN_ERROR),
        _ => ExitCode::from(USAGE),
    }
}

/// The subcommand of a command line that could not be parsed: the first word that is no global flag or its value.
fn subcommand(args: &[OsString]) -> Option<&str> {
    let mut words = args.iter().skip(1).map(|arg| arg.to_str().unwrap_or_default());
    while let Some(word) = words.next() {
        match word {
            "--socket" | "--output" | "-o" => {
                words.next();
            }
            word if word.starts_with('-') => {}
            word => return Some(word),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_subcommand_is_found_in_a_broken_command_line() {
        let args = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(subcommand(&args("aionctl -o json --socket /x run --oops")), Some("run"));
        assert_eq!(subcommand(&args("aionctl --socket=/x ps run")), Some("ps"));
        assert_eq!(subcommand(&args("aionctl --version")), None);
    }
}
