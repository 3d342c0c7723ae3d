//! Tasks: "submit durably, dispatch, end durably", AION and its peers in one run; what preemption and a restart take.
//!
//! Everything is on one file system, next to the floor that its disk gives. Rounds alternate between the contenders.

pub(crate) mod aion;
mod disk;
mod load;
#[cfg(feature = "peers")]
mod peers;
mod preempt;
pub(crate) mod process;
mod rates;
mod restart;
mod restore;
pub(crate) mod soak;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::Report;
use aion::{Daemons, Settings};

/// Something to be done on its own.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Figures that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// What the disk and the journal give one thread.
    Disk,
    /// Tasks in a second, and how long each takes.
    Rates,
    /// How soon a high task runs on a full node; freezing in place.
    Preempt,
    /// A start with a million tasks, and their memory.
    Restart,
    /// A backup of a state with many tasks, and a restore until it serves.
    Restore,
}

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct ScheduleArgs {
    /// Where the data folders are made, AION's and the peers'
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// These figures alone
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
    /// The peers alone, without AION
    #[arg(long)]
    peers_only: bool,
    /// AION alone, without the peers
    #[arg(long, conflicts_with = "peers_only")]
    no_peers: bool,
}

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Alternating rounds.
    pub(crate) rounds: usize,
    /// Of each round.
    pub(crate) time: Duration,
    /// Tasks that wait over a restart.
    pub(crate) queued: u32,
    /// Preemptions with a small state; with the large one there are fewer.
    pub(crate) preemptions: usize,
}

impl Size {
    /// The number of runs that was asked for.
    pub(crate) const fn of(quick: bool, full: bool) -> Self {
        match (quick, full) {
            (true, _) => {
                Self { rounds: 1, time: Duration::from_millis(700), queued: 20_000, preemptions: 20 }
            }
            (_, true) => {
                Self { rounds: 9, time: Duration::from_secs(5), queued: 1_000_000, preemptions: 1000 }
            }
            _ => Self { rounds: 5, time: Duration::from_secs(3), queued: 1_000_000, preemptions: 200 },
        }
    }
}

/// Measures.
pub(crate) async fn measure(args: &ScheduleArgs, size: Size, report: &mut Report) -> Result<()> {
    disk::is_on_disk(&args.folder)?;
    let scratch = tempfile::Builder::new().prefix("aion-bench-").tempdir_in(&args.folder)?;
    // PostgreSQL's user has to get to its part of it, aiond's to the daemons'.
    crate::launch::open_to_all(scratch.path())?;
    let wanted = |part| if args.part.is_empty() { true } else { args.part.contains(&part) };
    report.text("load of this machine at the start", load_average());
    if wanted(Part::Disk) {
        disk::measure(scratch.path(), size.rounds, size.time / 3, report).context("the disk")?;
    }
    if wanted(Part::Rates) {
        rates(args, scratch.path(), size, report).await.context("rates")?;
    }
    if wanted(Part::Preempt) && !args.peers_only {
        let folder = scratch.path().join("preempt");
        let daemons = Daemons::start(&folder, Settings { slots: 2, min_run_ms: 0 }).await?;
        preempt::measure(&daemons, size, report).await.context("preemption")?;
        daemons.finish()?;
    }
    if wanted(Part::Restart) {
        restart::measure(args, scratch.path(), size, report).await.context("restart")?;
    }
    if wanted(Part::Restore) && !args.peers_only {
        restore::measure(scratch.path(), size, report).await.context("restore")?;
    }
    report.text("load of this machine at the end", load_average());
    Ok(())
}

async fn rates(args: &ScheduleArgs, scratch: &Path, size: Size, report: &mut Report) -> Result<()> {
    let mut others = Vec::new();
    if args.no_peers {
        report.skip("peers: not wanted");
    } else {
        #[cfg(feature = "peers")]
        others.extend(peers::start(scratch, report).await);
        #[cfg(not(feature = "peers"))]
        report.skip("peers: this build has none (feature `peers`)");
    }
    let daemons = match args.peers_only {
        true => None,
        false => Some(Daemons::start(&scratch.join("rates"), Settings { slots: 4096, min_run_ms: 0 }).await?),
    };
    rates::measure(daemons.as_ref(), &mut others, size, report).await?;
    daemons.map_or(Ok(()), Daemons::finish)
}

/// The one, five and fifteen minutes' load, for who judges the figures.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
