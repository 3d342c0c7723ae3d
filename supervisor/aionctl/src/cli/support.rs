//! The command that collects what somebody who helps needs.

use std::path::PathBuf;

use clap::Args;

use crate::when::Moment;

#[derive(Debug, Args)]
pub(crate) struct SupportBundle {
    /// The file to write, which must not be there; `-` is stdout; aion-support-TIME.tar.zst when not given
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
    /// What came since then, of the journal and the audit log, as 24h, 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) since: Moment,
    /// Only this agent, by name or id; can be repeated
    #[arg(long = "agent", value_name = "AGENT")]
    pub(crate) agents: Vec<String>,
    /// The state folder, for its logs and its disk
    #[arg(
        long,
        value_name = "DIR",
        env = "AION_STATE",
        default_value = "/var/lib/aion",
        hide_env_values = true
    )]
    pub(crate) state: PathBuf,
    /// aiond's configuration, with the files of FILE.d and the settings beside it; `none` is none
    #[arg(
        long,
        value_name = "FILE",
        env = "AION_CONFIG",
        default_value = "/etc/aion/config.yaml",
        hide_env_values = true
    )]
    pub(crate) config: PathBuf,
    /// The folder of policies
    #[arg(
        long,
        value_name = "DIR",
        env = "AION_POLICIES",
        default_value = "/etc/aion/policies",
        hide_env_values = true
    )]
    pub(crate) policies: PathBuf,
}
