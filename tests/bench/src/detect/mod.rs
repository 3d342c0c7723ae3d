//! Each detection against a real agent that does what it is for and one that only comes near; and ten workloads that are none of
//! it, for as long as is asked.
//!
//! The rules are those that ship, the kernel is the real one, and windows are waited for. Neighbours: `attacks` and `benign` say what
//! is done; `agents` starts it and reads what the audit log says.

mod agents;
mod attacks;
mod benign;
mod privileges;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::agents::World;
use crate::report::Report;
use crate::schedule::aion::{Daemons, Settings};

/// What is done, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct DetectArgs {
    /// What detections are for; both unless one is named
    #[arg(long)]
    attacks: bool,
    /// Workloads of which they must say nothing above `info`
    #[arg(long)]
    benign: bool,
    /// How long each workload works, in minutes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// These alone: rules of attacks, names of workloads
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Workloads side by side
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    at_once: u32,
    /// Where workspaces and the data folder are made
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
}

/// Does all of it, prints a table of each, and fails when something was missed, or found that is nothing.
pub(crate) async fn run(args: &DetectArgs, report: &mut Report) -> Result<()> {
    let known: Vec<&str> = attacks::names().chain(benign::names()).collect();
    for name in &args.only {
        ensure!(known.contains(&name.as_str()), "there is no {name}; there are {}", known.join(", "));
    }
    let scratch = tempfile::Builder::new().prefix("aion-detect-").tempdir_in(&args.folder)?;
    crate::launch::open_to_all(scratch.path())?;
    let settings = Settings { slots: 64, min_run_ms: 0 };
    let daemons = Daemons::start(&scratch.path().join("daemons"), settings).await?;
    let world =
        Arc::new(World { client: daemons.client(), folder: scratch.path().to_owned(), clone: clone()? });
    let result = both(&world, args, report).await;
    let finished = daemons.finish();
    result.and_then(|faults| {
        finished?;
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    })
}

async fn both(world: &Arc<World>, args: &DetectArgs, report: &mut Report) -> Result<Vec<String>> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let everything = args.attacks == args.benign;
    let mut faults = Vec::new();
    if everything || args.attacks {
        faults.extend(attacks::run(world, &wanted, report).await.context("attacks")?);
    }
    if everything || args.benign {
        let time = Duration::from_secs(u64::from(args.minutes) * 60);
        let at_once = usize::try_from(args.at_once)?;
        faults.extend(benign::run(world, &wanted, time, at_once, report).await.context("workloads")?);
    }
    Ok(faults)
}

/// The clone, for the SDK that agents are shown.
fn clone() -> Result<PathBuf> {
    match std::env::var_os("AION_CLONE").filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => {
            let package = Path::new(env!("CARGO_MANIFEST_DIR"));
            Ok(package.ancestors().nth(2).context("a clone")?.to_owned())
        }
    }
}
