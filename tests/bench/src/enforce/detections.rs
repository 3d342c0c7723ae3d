//! What detections cost: the same storm of events with the rules that ship, and with none, in turns.
//!
//! Each storm is an agent of its own, for rules count by agent; it stays below what the rules call a storm.

use std::path::Path;

use aion_client::api;
use anyhow::{Context as _, Result, ensure};

use super::Size;
use super::agents::{Network, Programs, numbers};
use super::effort::{PATIENCE, rest};
use super::world::{Detections, NOBODY, World};
use crate::aion::stdout;
use crate::report::{Report, percentile};

/// Fork, exec, exit.
const RECORDS: u32 = 3;
/// What is executed: no place that the agent can write to, which a rule asks for.
const PROGRAM: &str = "/usr/bin/true";
const GOAL: f64 = 1.05;

/// What storms took of a pair of daemons, and of themselves.
#[derive(Debug, Default)]
struct Taken {
    /// Microseconds of processor an event.
    effort: Vec<f64>,
    /// Milliseconds on the clock.
    wall: Vec<f64>,
}

/// Measures, with two pairs of daemons of its own.
pub(crate) async fn measure(
    scratch: &Path,
    programs: &Programs,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let with = World::alone(&scratch.join("rules"), Detections::Shipped).await?;
    let without = World::alone(&scratch.join("no-rules"), Detections::None).await?;
    let done = all(&with, &without, programs, size, report).await;
    let (with, without) = (with.finish(), without.finish());
    done.and(with).and(without)
}

async fn all(
    with: &World,
    without: &World,
    programs: &Programs,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let (loaded, none) = (loaded(with).await?, loaded(without).await?);
    ensure!(
        loaded > 0 && none == 0,
        "{loaded} detections where those that ship should be, {none} where none"
    );
    let (mut watched, mut bare) = (Taken::default(), Taken::default());
    for round in 0..size.rounds {
        watched.storm(with, programs, size, round).await.context("with detections")?;
        bare.storm(without, programs, size, round).await.context("without detections")?;
    }
    let events = RECORDS * size.programs + size.connects;
    for (what, unit, watched, bare) in [
        ("processor time of both daemons, an event", "us", &watched.effort, &bare.effort),
        ("the storm itself", "ms", &watched.wall, &bare.wall),
    ] {
        let name = format!("{events} events, {what}");
        report.samples(format!("{name}: {loaded} detections"), unit, watched);
        report.samples(format!("{name}: none"), unit, bare);
        // Both halves of a round meet the same noise.
        let ratios: Vec<f64> = watched.iter().zip(bare).map(|(watched, bare)| watched / bare).collect();
        report.at_most(format!("{name}: with / without"), "ratio", percentile(&ratios, 50.0), GOAL);
    }
    Ok(())
}

async fn loaded(world: &World) -> Result<usize> {
    let list = world.daemons.client().detections(api::ListDetectionsRequest {}).await?;
    Ok(list.detections.len())
}

impl Taken {
    async fn storm(&mut self, world: &World, programs: &Programs, size: Size, round: u32) -> Result<()> {
        let (count, connects) = (size.programs.to_string(), size.connects.to_string());
        let words = [&*count, &connects, NOBODY, "443", PROGRAM];
        let before = rest(world, PATIENCE).await?;
        let spec = programs.agent("storm", &words, Network::Host);
        let agent = world.daemons.agent(&format!("storm-{round}"), spec).await?;
        let client = world.daemons.client();
        let ended = client.wait(api::WaitRequest { agent: agent.id.clone(), timeout: None }).await?;
        ensure!(ended.exit.is_some_and(|exit| exit.code == 0), "the storm failed: {}", ended.message);
        let took = rest(world, PATIENCE).await? - before;
        let wall = numbers(&stdout(&client, &agent.id).await?)?;
        self.effort.push(took * 1e3 / f64::from(RECORDS * size.programs + size.connects));
        self.wall.extend(wall.into_iter().map(|ns| ns / 1e6));
        let request = api::RemoveRequest { agent: agent.id, force: true, ..api::RemoveRequest::default() };
        client.remove(request).await?;
        Ok(())
    }
}
