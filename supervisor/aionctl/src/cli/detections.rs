//! Commands on detections.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::when::Moment;

#[derive(Debug, Subcommand)]
pub(crate) enum DetectionsCommand {
    /// List the rules that are loaded, and how often they found something
    Ls,
    /// Check rules without the daemon
    Test(TestArgs),
    /// Print what was found, and what was done about it
    History(HistoryArgs),
    /// Read the rules' folder again; when one is wrong, all stay as they are
    Reload,
    /// Give an agent back what was taken from it; a frozen one goes on with `aionctl resume`
    Clear(ClearArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files of rules ('-': stdin), or folders of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only of these agents, by name or id
    #[arg(value_name = "AGENT")]
    pub(crate) agents: Vec<String>,
    /// How many, the newest
    #[arg(short = 'n', long, value_name = "N", default_value = "50")]
    pub(crate) lines: u32,
    /// Only what is newer, as 10m, 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
}

#[derive(Debug, Args)]
pub(crate) struct ClearArgs {
    /// The agents, by name or id
    #[arg(required = true, value_name = "AGENT")]
    pub(crate) agents: Vec<String>,
    /// Only its network
    #[arg(long)]
    pub(crate) network: bool,
    /// Only its processor time
    #[arg(long)]
    pub(crate) throttle: bool,
}
