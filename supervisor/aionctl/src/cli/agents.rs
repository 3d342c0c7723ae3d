//! Commands on agents' lives.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::run::span;

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those that match: state=STATE, name=BEGINNING, label=KEY=VALUE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// Agents, by name or id.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Names or ids
    #[arg(value_name = "AGENT", required = true)]
    pub(crate) agents: Vec<String>,
}

/// Agents, by name or id, or all.
#[derive(Debug, Args)]
pub(crate) struct Several {
    /// Names or ids
    #[arg(value_name = "AGENT", required_unless_present = "all")]
    pub(crate) agents: Vec<String>,
    /// All of them
    #[arg(short, long, conflicts_with = "agents")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) which: Several,
    /// How long the agent has to end by itself
    #[arg(short = 't', long = "time", value_name = "SECONDS", default_value = "10")]
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) which: Several,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = crate::signal::parse)]
    pub(crate) signal: i32,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub(crate) which: Several,
    /// Also when it runs: kill it first
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) names: Names,
    /// Give up after this long, as 30s
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Manifests ('-': from stdin)
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The name of this instance, in the place of the manifest's: provisions agent://TENANT/NAME without starting it
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Register only: a job that is given tasks has a process for each of them, and needs none besides. An agent that runs is not
    /// changed
    #[arg(long)]
    pub(crate) no_start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Manifests ('-': from stdin)
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}
