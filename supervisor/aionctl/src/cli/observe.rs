//! Commands that look at agents.

use clap::{Args, ValueEnum};

use super::agents::Names;
use super::host::RecordFilter;
use crate::when::Moment;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) names: Names,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Name or id
    pub(crate) agent: String,
    /// Stay until the agent ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Only what is newer, as 10m, 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Begin each line with its time
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Only this stream
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: Option<OutputStream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputStream {
    Stdout,
    Stderr,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Names or ids; all that run when there are none
    #[arg(value_name = "AGENT")]
    pub(crate) agents: Vec<String>,
    /// Print one table after the other, for files and pipes
    #[arg(short, long)]
    pub(crate) batch: bool,
    /// End after this many tables
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) iterations: Option<u32>,
    /// Seconds between two tables
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) delay: u32,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Names or ids; all that run when there are none
    #[arg(value_name = "AGENT")]
    pub(crate) agents: Vec<String>,
    /// One sample, then end
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Also each system call: how often, how slow (agents with audit count or latency)
    #[arg(long)]
    pub(crate) syscalls: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Keep stdin open and pass it on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the program a terminal: this one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable of the program's environment; NAME alone takes its value from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// The working directory inside; /workspace when not given
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Name or id
    pub(crate) agent: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, value_name = "CMD", required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) filter: RecordFilter,
    /// Stay and print what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin after this sequence number
    #[arg(long, value_name = "SEQ", conflicts_with = "since")]
    pub(crate) cursor: Option<u64>,
}
