//! The verdict on a connection: the same program in an agent, and outside of any agent in the network that the agent has.
//!
//! So that the difference is what the agent's control group, filters and entries cost, and not the way of its packets.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::agents::{Network, Programs, within};
use super::effort::{PATIENCE, rest};
use super::world::{Detections, GATE, NOBODYS, SERVER, World};
use super::{PROBE, Size, UDP};
use crate::report::Report;

/// To the end of the handshake.
const TCP: [&str; 5] = ["tcp", "300", "5", SERVER, GATE];
/// What a verdict may cost.
const GOAL_NS: f64 = 1000.0;

/// An agent, and who does the same outside of it.
struct Pair {
    name: &'static str,
    agent: &'static str,
    netns: PathBuf,
    words: [&'static str; 5],
    /// Whether nothing but the verdict is in the call. The handshake of TCP is three packets more, each with a verdict of its own.
    alone: bool,
    bare: Vec<f64>,
    inside: Vec<f64>,
    failed: Option<String>,
}

/// Measures, with a pair of daemons of its own.
pub(crate) async fn measure(
    scratch: &Path,
    programs: &Programs,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let world = World::start(&scratch.join("connect"), Detections::None).await?;
    let done = all(&world, programs, size, report).await;
    world.finish()?;
    done
}

async fn all(world: &World, programs: &Programs, size: Size, report: &mut Report) -> Result<()> {
    const HOST: &str = "bench-host";
    world.daemons.agent(HOST, programs.stays(Network::Host)).await?;
    let mut pairs = vec![Pair::new("connect of UDP, network mode host", HOST, world.host.path(), UDP)];
    match with_egress(world, programs).await {
        Ok(netns) => {
            let udp = Pair::new("connect of UDP, network mode egress", PROBE, netns.clone(), UDP);
            let tcp = Pair::new("connect of TCP, network mode egress", PROBE, netns, TCP);
            pairs.extend([udp, tcp]);
        }
        Err(error) => report.skip(format!("connect in network mode egress: {error:#}")),
    }
    for _ in 0..size.rounds {
        for pair in pairs.iter_mut().filter(|pair| pair.failed.is_none()) {
            if let Err(error) = pair.round(world, programs).await {
                pair.failed = Some(format!("{error:#}"));
            }
        }
    }
    pairs.iter().for_each(|pair| pair.tell(report));
    Ok(())
}

/// An agent with network mode egress; gives its network.
async fn with_egress(world: &World, programs: &Programs) -> Result<PathBuf> {
    world.beyond()?;
    let rules = [format!("{NOBODYS}:443"), format!("{SERVER}:{GATE}")];
    let agent = world.daemons.agent(PROBE, programs.stays(Network::Egress(&rules))).await?;
    Ok(format!("/proc/{}/ns/net", agent.pid).into())
}

impl Pair {
    fn new(name: &'static str, agent: &'static str, netns: PathBuf, words: [&'static str; 5]) -> Self {
        let alone = words != TCP;
        Self { name, agent, netns, words, alone, bare: Vec::new(), inside: Vec::new(), failed: None }
    }

    async fn round(&mut self, world: &World, programs: &Programs) -> Result<()> {
        let bare = programs.bare(&self.netns, "calls", &self.words).context("outside of any agent")?;
        self.bare.extend(bare);
        self.inside.extend(within(world, self.agent, "calls", &self.words)?);
        // Each connection is a record, which the daemons write while the next one measures.
        rest(world, PATIENCE).await.map(drop)
    }

    fn tell(&self, report: &mut Report) {
        let Self { name, bare, inside, .. } = self;
        if let Some(why) = &self.failed {
            report.skip(format!("{name}: {why}"));
            return;
        }
        let bare = report.samples(format!("{name}: the same outside of any agent"), "ns", bare);
        let inside = report.samples(format!("{name}: the agent"), "ns", inside);
        let (name, over) = (format!("{name}: over bare"), inside - bare);
        match self.alone {
            true => report.at_most(name, "ns", over, GOAL_NS),
            false => report.value(name, "ns", over),
        }
    }
}
