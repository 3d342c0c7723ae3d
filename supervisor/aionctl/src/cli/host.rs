//! Commands on the audit log, the host and the client itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::when::Moment;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the newest records
    Tail(TailArgs),
    /// Print the records that match
    Query(QueryArgs),
    /// Verify that no record was changed, removed, added or moved
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The public key that must have signed it, as 64 hex digits; that of the audit folder is believed when not given
    #[arg(long, value_name = "HEX")]
    pub(crate) key: Option<String>,
    /// A record that an earlier verification printed, which must be there still; can be repeated
    #[arg(long = "anchor", value_name = "SEQ:HASH", value_parser = anchor)]
    pub(crate) anchors: Vec<(u64, String)>,
    /// Verify the log in this folder, without a daemon: a copy, or what a restored state keeps of the one before
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

fn anchor(text: &str) -> Result<(u64, String), String> {
    let (seq, hash) = text.split_once(':').ok_or("write SEQ:HASH, as `audit verify` prints it")?;
    let seq = seq.parse().map_err(|_| format!("{seq:?} is not a record's number"))?;
    Ok((seq, hash.to_owned()))
}

/// Which records.
#[derive(Debug, Args)]
pub(crate) struct RecordFilter {
    /// Only of this agent, by name or id; can be repeated
    #[arg(long = "agent", value_name = "AGENT")]
    pub(crate) agents: Vec<String>,
    /// Only of this kind, as proc.exec or net.*; can be repeated
    #[arg(long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
    /// Only with this verdict, as allowed or denied; can be repeated
    #[arg(long = "verdict", value_name = "VERDICT")]
    pub(crate) verdicts: Vec<String>,
    /// Only what is newer, as 10m, 2026-01-31 or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Only what is older
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) filter: RecordFilter,
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value = "20")]
    pub(crate) lines: u32,
    /// Stay and print what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pub(crate) filter: RecordFilter,
    /// Begin after this sequence number
    #[arg(long, value_name = "SEQ", default_value = "0")]
    pub(crate) after: u64,
    /// End after this many records
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Only the client's, without asking the daemon
    #[arg(long)]
    pub(crate) client: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder
    pub(crate) dir: PathBuf,
}
