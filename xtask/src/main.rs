//! `cargo xtask`: the map of everything that is done to this repository.
//!
//! Plain and small, because a fresh clone compiles it before anything else.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to people")]

mod apt;
mod bench;
mod binaries;
mod daemons;
mod demo;
#[cfg(test)]
mod deploy;
mod dist;
mod ebpf;
mod generate;
mod layers;
mod leftovers;
mod peers;
mod process;
mod project;
mod report;
mod sdk;
mod setup;
mod soak;
mod test;
mod up;
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
    /// Start AION and show what sample agents were allowed and denied
    Up(up::UpArgs),
    /// Stop the agents and the daemons; leave nothing behind
    Down(up::DownArgs),
    /// Install what is missing, by package name
    Setup {
        /// What for; the build alone unless named
        #[arg(long = "for", value_enum, value_delimiter = ',')]
        groups: Vec<Group>,
    },
    /// Build the daemons and the probes, and say where they are
    Build,
    /// Build the probes alone
    BuildEbpf,
    /// Make packages, a tarball, the bill of materials, checksums and signatures
    Dist(dist::DistArgs),
    /// Make the folder that Python agents serve tasks with, and say where it is
    Sdk {
        /// Also run its tests
        #[arg(long)]
        test: bool,
    },
    /// Check formatting, rules, lints, units, the end-to-end and escape suites, and other kernels
    Test(test::TestArgs),
    /// Check the rules that no compiler checks: layers, unsafe, error pages
    CheckLayers,
    /// Run the suites on other kernels, in QEMU
    Vm(vm::VmArgs),
    /// Measure, next to bubblewrap, crun, runc, strace and bpftrace; tasks next to Redis, PostgreSQL and NATS
    Bench(bench::BenchArgs),
    /// Run the end-to-end suite at full scale, tasks under kill -9, or attacks and ordinary work under detections
    Soak(soak::SoakArgs),
    /// Run the fuzz targets for a while
    Fuzz(soak::FuzzArgs),
    /// Bring the generated files up to date
    Gen(generate::GenArgs),
}

impl Task {
    /// Whether it leaves the target folder alone.
    fn builds_nothing(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Setup { .. } | Self::Sdk { .. } | Self::CheckLayers)
    }
}

fn run(command: &Task) -> anyhow::Result<()> {
    let project = Project::locate()?;
    if !command.builds_nothing() {
        project.claim_target()?;
    }
    match command {
        Task::Up(args) => up::up(&project, args),
        Task::Down(args) => up::down(&project, args),
        Task::Build => binaries::build(&project).map(|()| println!("{}", project.bin().display())),
        Task::BuildEbpf => ebpf::build(&project).map(|path| println!("{}", path.display())),
        Task::Dist(args) => dist::dist(&project, args),
        Task::Sdk { test } => {
            if *test {
                sdk::test(&project)?;
            }
            sdk::python(&project).map(|path| println!("{}", path.display()))
        }
        Task::Bench(args) => bench::bench(&project, args),
        Task::Soak(args) => soak::soak(&project, args),
        Task::Fuzz(args) => soak::fuzz(&project, args),
        Task::Gen(args) => generate::generate(&project, args),
        Task::Setup { groups } => setup::setup(groups),
        Task::Test(args) => test::test(&project, args),
        Task::CheckLayers => layers::check(&project),
        Task::Vm(args) => vm::vm(&project, args),
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::fail(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
