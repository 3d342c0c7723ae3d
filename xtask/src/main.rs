//! `cargo xtask`: the map of everything that is done to this repository.
//!
//! Plain and small, because a fresh clone compiles it before anything else.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to people")]

mod apt;
mod binaries;
mod layers;
mod process;
mod project;
mod report;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::project::Project;
use crate::setup::Group;

/// Everything that is done to this repository. `up` shows AION at work, `test` shows that it holds.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing, by package name
    Setup {
        /// What for; the build alone unless named
        #[arg(long = "for", value_enum, value_delimiter = ',')]
        groups: Vec<Group>,
    },
    /// Check formatting, rules, lints, units, the end-to-end and escape suites, and other kernels
    Test(test::TestArgs),
    /// Check the rules that no compiler checks: layers, unsafe, error pages
    CheckLayers,
    /// Run the suites on other kernels, in QEMU
    Vm(vm::VmArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Project::locate().and_then(|project| match &cli.command {
        Task::Setup { groups } => setup::setup(groups),
        Task::Test(args) => test::test(&project, args),
        Task::CheckLayers => layers::check(&project),
        Task::Vm(args) => vm::vm(&project, args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::fail(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
