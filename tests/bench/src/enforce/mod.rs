//! Enforcement: what verdicts, names, many agents, detections and changed rules cost; and whoever is no agent.
//!
//! Each part has daemons of its own, on hosts in network namespaces of its own. What a part cannot measure here it says, and the
//! others go on.

mod agents;
mod bystander;
mod connect;
mod crowd;
mod detections;
mod effort;
mod kernel_memory;
mod members;
mod names;
mod revoke;
mod space;
mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::agents::Programs;
use self::world::NOBODY;
use crate::report::Report;
use crate::schedule::load_average;

/// The agent that is measured.
const PROBE: &str = "bench-probe";
/// One that makes no packet.
const UDP: [&str; 5] = ["udp", "5000", "5", NOBODY, "443"];

/// Figures that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The verdict on a connection, next to none.
    Connect,
    /// A thousand agents with rules next to one: calls, names, the kernel's memory.
    Crowd,
    /// Detections next to none.
    Detections,
    /// A rule that is taken under open connections.
    Revoke,
    /// Who is no agent, with probes and without.
    Bystander,
}

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct EnforceArgs {
    /// Where the data folders are made; not in memory, where some kernels cannot show them to agents
    #[arg(long, default_value = "/var/tmp")]
    folder: PathBuf,
    /// These figures alone
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
}

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Alternating rounds.
    rounds: u32,
    /// Agents with rules at once, and names in the rules of each.
    agents: u32,
    names: u32,
    /// Programs and connections of a storm of events.
    programs: u32,
    connects: u32,
    /// Connections that are open when a rule is taken.
    held: u32,
}

impl Size {
    /// The number of runs that was asked for.
    pub(crate) const fn of(quick: bool, full: bool) -> Self {
        // Fewer programs than the detection `fork-rate` takes for a storm.
        let usual = Self { rounds: 9, agents: 1000, names: 10, programs: 3000, connects: 20_000, held: 1000 };
        match (quick, full) {
            (true, _) => Self { rounds: 3, agents: 100, programs: 800, connects: 5000, ..usual },
            (_, true) => Self { rounds: 15, names: 64, ..usual },
            _ => usual,
        }
    }
}

/// Measures.
pub(crate) async fn measure(args: &EnforceArgs, size: Size, report: &mut Report) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("aion-bench-").tempdir_in(&args.folder)?;
    let scratch = scratch.path();
    // aiond's user has to get to its part of it.
    crate::launch::open_to_all(scratch)?;
    let programs = Programs::new(&scratch.join("programs")).context("the programs that are measured")?;
    raise_open_files()?;
    let wanted = |part| if args.part.is_empty() { true } else { args.part.contains(&part) };
    report.text("load of this machine at the start", load_average());
    if wanted(Part::Connect) {
        let done = connect::measure(scratch, &programs, size, report).await;
        told("verdicts", done, report);
    }
    if wanted(Part::Crowd) {
        let done = crowd::measure(scratch, &programs, size, report).await;
        told("many agents with rules", done, report);
    }
    if wanted(Part::Detections) {
        let done = detections::measure(scratch, &programs, size, report).await;
        told("detections", done, report);
    }
    if wanted(Part::Revoke) {
        let done = revoke::measure(scratch, &programs, size, report).await;
        told("a rule that is taken", done, report);
    }
    if wanted(Part::Bystander) {
        let done = bystander::measure(scratch, &programs, size, report).await;
        told("a bystander", done, report);
    }
    report.text("load of this machine at the end", load_average());
    Ok(())
}

/// A part that fails is named with the reason; the others are measured all the same.
fn told(what: &str, done: Result<()>, report: &mut Report) {
    if let Err(error) = done {
        report.skip(format!("{what}: {error:#}"));
    }
}

/// The other ends of the connections that an agent holds are here.
fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("the limit on open files")
}
