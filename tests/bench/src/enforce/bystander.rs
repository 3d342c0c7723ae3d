//! What whoever is no agent pays: the same calls while a pair of daemons with an agent holds its rules, and while there is none.

use std::path::Path;

use anyhow::Result;

use super::agents::{Network, Programs};
use super::effort::{PATIENCE, rest};
use super::space::Space;
use super::world::{Detections, World, lead_nowhere};
use super::{PROBE, Size, UDP};
use crate::report::{Report, percentile};

const SYSCALL: [&str; 3] = ["getppid", "200000", "7"];

/// Nanoseconds per call.
#[derive(Debug, Default)]
struct Calls {
    connect: Vec<f64>,
    syscall: Vec<f64>,
}

/// Measures, with a pair of daemons for each round.
pub(crate) async fn measure(
    scratch: &Path,
    programs: &Programs,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let ground = Space::new()?;
    lead_nowhere(&ground)?;
    let (mut with, mut without) = (Calls::default(), Calls::default());
    for round in 0..size.rounds {
        without.take(&ground, programs)?;
        let world = World::alone(&scratch.join(format!("bystander-{round}")), Detections::Shipped).await?;
        world.daemons.agent(PROBE, programs.stays(Network::Host)).await?;
        rest(&world, PATIENCE).await?;
        let taken = with.take(&ground, programs);
        world.finish()?;
        taken?;
    }
    for (what, with, without) in
        [("connect of UDP", &with.connect, &without.connect), ("getppid", &with.syscall, &without.syscall)]
    {
        let name = format!("bystander, {what}");
        report.samples(format!("{name}: no probes"), "ns", without);
        report.samples(format!("{name}: probes loaded"), "ns", with);
        // The fastest batches: what others do on this machine only adds.
        let best = |samples: &[f64]| percentile(samples, 0.0);
        report.at_most(format!("{name}: added"), "ns", (best(with) - best(without)).max(0.0), 0.0);
        let (early, late) = without.split_at(without.len() / 2);
        let noise = (best(late) - best(early)).abs();
        report.text(
            &format!("{name}: without probes, one half of the rounds and the other"),
            format!("{noise} ns"),
        );
    }
    Ok(())
}

impl Calls {
    fn take(&mut self, ground: &Space, programs: &Programs) -> Result<()> {
        self.connect.extend(programs.bare(&ground.path(), "calls", &UDP)?);
        self.syscall.extend(programs.bare(&ground.path(), "calls", &SYSCALL)?);
        Ok(())
    }
}
