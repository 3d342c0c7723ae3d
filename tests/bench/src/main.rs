//! The figures: AION and what Debian packages, measured side by side in one run.
//!
//! Started by `cargo xtask bench`, which brings up the daemons and installs the peers. Each figure is a median
//! of runs that alternate between the contenders, so that a noisy moment hits all of them. Peers that are not
//! installed or do not work on this host are named with the reason, not left out silently.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to people")]

mod aion;
mod audit;
mod detect;
mod enforce;
mod launch;
mod memory;
mod peers;
mod rate;
mod report;
mod schedule;
mod stop;
mod syscall;
mod tools;
mod warm;
mod without_unified;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use crate::report::Report;

/// Measures AION against its floor and its peers. Needs running daemons (AION_SOCKET) and root.
#[derive(Debug, Parser)]
struct Cli {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    output: Output,
    /// Fewer runs: a look, not a figure
    #[arg(long, global = true)]
    quick: bool,
    /// The full number of runs where it takes minutes (10,000 agents)
    #[arg(long, global = true)]
    full: bool,
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Starts, stops, rates, memory
    Launch {
        /// The daemons' state folder, for their pid files
        #[arg(long, env = "AION_STATE")]
        state: Option<PathBuf>,
        /// These figures alone
        #[arg(long, value_enum, value_delimiter = ',')]
        part: Vec<LaunchPart>,
    },
    /// What being watched costs
    Audit {
        /// The program that measures the probes' own cost and prints JSON
        #[arg(long, env = "AION_PROBE_COST")]
        probe_cost: Option<PathBuf>,
        /// The probes' object, for that program
        #[arg(long, env = "AION_PROBES_OBJECT")]
        object: Option<PathBuf>,
    },
    /// Tasks, next to Redis Streams, PostgreSQL, NATS and beanstalkd
    Schedule(schedule::ScheduleArgs),
    /// The kernel API: calls over HTTP, models, tools
    Syscall {
        /// These figures alone
        #[arg(long, value_enum, value_delimiter = ',')]
        part: Vec<syscall::Part>,
    },
    /// Verdicts, names, many agents with rules, detections, rules that change
    Enforce(enforce::EnforceArgs),
    /// Tasks under random SIGKILLs of aiond, and preempted work
    SoakSchedule(schedule::soak::SoakArgs),
    /// What detections are for, and workloads of which they must say nothing
    SoakDetect(detect::DetectArgs),
}

/// Figures of launches that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LaunchPart {
    /// From the request to the first instruction
    Start,
    /// Agents that exit at once
    Instant,
    /// Stops of a hundred processes
    Stop,
}

/// How many runs each figure gets.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Single starts.
    starts: usize,
    /// Agents that exit at once.
    instant: usize,
    /// Stops of a hundred processes.
    stops: usize,
    /// `git status` runs.
    git: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(report) => {
            match cli.output {
                Output::Table => print!("{report}"),
                Output::Json => println!("{}", report.json()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Report> {
    let scale = match (cli.quick, cli.full) {
        (true, _) => Scale { starts: 15, instant: 100, stops: 3, git: 3 },
        (_, true) => Scale { starts: 200, instant: 10_000, stops: 21, git: 15 },
        _ => Scale { starts: 60, instant: 1_000, stops: 9, git: 7 },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("tokio")?;
    runtime.block_on(async {
        let mut report = Report::default();
        match &cli.suite {
            Suite::Launch { state, part } => {
                let aion = aion::Aion::connect().await?;
                let wanted = |one| part.is_empty() || part.contains(&one);
                memory::measure(state.as_deref(), "before", &mut report)?;
                if wanted(LaunchPart::Start) {
                    launch::measure(&aion, scale, &mut report).await?;
                }
                if wanted(LaunchPart::Instant) {
                    rate::measure(&aion, scale, &mut report).await?;
                }
                if wanted(LaunchPart::Stop) {
                    stop::measure(&aion, scale, &mut report).await?;
                }
                memory::measure(state.as_deref(), "after", &mut report)?;
            }
            Suite::Audit { probe_cost, object } => {
                let aion = aion::Aion::connect().await?;
                audit::measure(&aion, probe_cost.as_deref(), object.as_deref(), scale, &mut report).await?;
            }
            Suite::Schedule(args) => {
                let size = schedule::Size::of(cli.quick, cli.full);
                tokio::select! {
                    result = schedule::measure(args, size, &mut report) => result?,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                }
            }
            Suite::Syscall { part } => {
                let size = schedule::Size::of(cli.quick, cli.full);
                tokio::select! {
                    result = syscall::measure(part, size, &mut report) => result?,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                }
            }
            Suite::Enforce(args) => {
                let size = enforce::Size::of(cli.quick, cli.full);
                tokio::select! {
                    result = enforce::measure(args, size, &mut report) => result?,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                }
            }
            Suite::SoakSchedule(args) => {
                tokio::select! {
                    result = schedule::soak::run(args, &mut report) => result?,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                }
            }
            Suite::SoakDetect(args) => {
                tokio::select! {
                    result = detect::run(args, &mut report) => result?,
                    _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
                }
            }
        }
        Ok(report)
    })
}
