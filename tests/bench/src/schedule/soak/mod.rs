//! Long runs with daemons that are killed: nothing that was acknowledged is lost, nothing happens twice, preempted work ends as
//! if it had never been disturbed.

mod chance;
mod kills;
mod ledger;
mod preempt;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::report::Report;
use crate::schedule::disk;

/// How long, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How often aiond is killed under load
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Low tasks that are preempted, half by an agent over the runtime protocol, half as jobs
    #[arg(long, default_value_t = 100)]
    tasks: u32,
    /// Tasks that wait in the journal meanwhile
    #[arg(long, default_value_t = 100_000)]
    queued: u32,
    /// Where the data folder is made
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// The seed of all that is left to chance; another one each time unless given
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs both.
pub(crate) async fn run(args: &SoakArgs, report: &mut Report) -> Result<()> {
    disk::is_on_disk(&args.folder)?;
    let scratch = tempfile::Builder::new().prefix("aion-soak-").tempdir_in(&args.folder)?;
    crate::launch::open_to_all(scratch.path())?;
    let seed = args.seed.unwrap_or_else(chance::seed);
    report.text("seed", seed);
    if args.kills > 0 {
        kills::run(&scratch.path().join("kills"), args.kills, args.queued, seed, report)
            .await
            .with_context(|| format!("kills, --seed {seed}"))?;
    }
    if args.tasks > 0 {
        preempt::run(&scratch.path().join("preempt"), args.tasks, args.kills, seed, report)
            .await
            .with_context(|| format!("preemption, --seed {seed}"))?;
    }
    Ok(())
}
