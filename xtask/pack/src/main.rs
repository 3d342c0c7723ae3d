//! What `cargo xtask dist` cannot do with Debian's own programs: RPM packages.
//!
//! A program of its own: xtask is the first thing that a fresh clone compiles, and nothing but `dist` wants this.

#![expect(clippy::print_stderr, reason = "a command-line tool talks to people")]

mod package;
#[cfg(test)]
mod scripts;
mod tree;

use std::process::ExitCode;

use clap::Parser;

/// Writes RPM packages for `cargo xtask dist`.
#[derive(Debug, Parser)]
#[command(name = "aion-pack", disable_help_subcommand = true)]
enum Command {
    /// Make an RPM package of a tree
    Rpm(package::RpmArgs),
}

fn main() -> ExitCode {
    let Command::Rpm(args) = Command::parse();
    match package::make(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aion-pack: {error:#}");
            ExitCode::FAILURE
        }
    }
}
