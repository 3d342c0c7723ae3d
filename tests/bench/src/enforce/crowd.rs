//! One agent with rules on a host, and one among a thousand, side by side: what its calls and its names cost, and what the kernel holds
//! for each. The thousand are real ones, each in its sandbox with its names resolved.

use std::path::Path;
use std::time::{Duration, Instant};

use aion_client::api;
use anyhow::{Context as _, Result, ensure};

use super::agents::{Network, Programs, within};
use super::effort::rest;
use super::kernel_memory::{self, Held};
use super::members::{self, DOMAIN, fitting, launch_all};
use super::world::{Detections, NOBODYS, World};
use super::{PROBE, Size, UDP};
use crate::report::{Report, percentile};

const SYSCALL: [&str; 3] = ["getppid", "200000", "5"];
/// Below what the resolver takes of an agent in a second.
const QUESTIONS: &str = "40";
const GAP_MS: &str = "25";
/// Names of the one that is measured.
const OWN_NAMES: u32 = 10;
/// As much as one of the host's agents is to see of the others; and of their names, which the daemons have to do with.
const SAME: f64 = 1.10;
const ANSWERS: f64 = 1.25;
/// Names on a host.
const NAMES: f64 = 10_000.0;
const LIVE_MS: f64 = 100.0;
/// Busy daemons are part of what many agents are.
const SETTLES: Duration = Duration::from_secs(5);

/// What one host's agent saw.
#[derive(Debug, Default)]
struct Seen {
    connect: Vec<f64>,
    syscall: Vec<f64>,
    answers: Vec<f64>,
}

/// Measures, with two pairs of daemons of its own.
pub(crate) async fn measure(
    scratch: &Path,
    programs: &Programs,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let few = World::start(&scratch.join("few"), Detections::None).await?;
    few.beyond()?;
    let many = World::start(&scratch.join("many"), Detections::None).await?;
    let done = all(&few, &many, programs, size, report).await;
    let (few, many) = (few.finish(), many.finish());
    done.and(few).and(many)
}

async fn all(few: &World, many: &World, programs: &Programs, size: Size, report: &mut Report) -> Result<()> {
    for world in [few, many] {
        world.beyond()?;
        let mut rules = members::names("probe", OWN_NAMES);
        rules.push(format!("{NOBODYS}:443"));
        world.daemons.agent(PROBE, programs.stays(Network::Egress(&rules))).await?;
    }
    let agents = crowd(many, programs, size, report).await?;
    let (mut one, mut among) = (Seen::default(), Seen::default());
    for _ in 0..size.rounds {
        one.round(few).await.context("the agent that is alone")?;
        among.round(many).await.context("the agent among many")?;
    }
    let crowd = format!("{agents} agents with rules");
    let pairs = [
        ("connect of UDP", "ns", &one.connect, &among.connect, SAME),
        ("getppid", "ns", &one.syscall, &among.syscall, SAME),
        ("the resolver's answer", "us", &one.answers, &among.answers, ANSWERS),
    ];
    for (what, unit, one, among, goal) in pairs {
        let is_answer = unit == "us";
        let (alone, beside) = match is_answer {
            true => (format!("{OWN_NAMES} names on the host"), format!("{} names", agents * size.names)),
            false => ("1 agent with rules".to_owned(), crowd.clone()),
        };
        let first = report.samples(format!("{what}, {alone}"), unit, one);
        let second = report.samples(format!("{what}, {beside}"), unit, among);
        report.at_most(format!("{what}: {beside} / {alone}"), "ratio", second / first, goal);
        if is_answer {
            let slow = percentile(among, 95.0) / percentile(one, 95.0);
            report.value(format!("{what}, p95: {beside} / {alone}"), "ratio", slow);
        }
    }
    reload(many, agents, report).await.context("rules of many agents at once")
}

/// Launches agents without rules, then the crowd, and tells what the kernel holds for one of each. Gives how many have rules.
async fn crowd(world: &World, programs: &Programs, size: Size, report: &mut Report) -> Result<u32> {
    let (client, launcher) = (world.daemons.client(), world.daemons.launcher_pid()?);
    let wanted = fitting(size.agents, report)?;
    let before = Held::now(launcher)?;
    let plain = (0..(wanted / 10).max(10)).map(|n| (format!("plain-{n}"), programs.stays(Network::None)));
    let plain = launch_all(&client, plain.collect(), report).await?;
    let (between, begun) = (Held::now(launcher)?, Instant::now());
    let specs = (0..wanted).map(|n| members::member(programs, n, size.names)).collect();
    let ids = launch_all(&client, specs, report).await?;
    members::resolved(&client, &ids).await?;
    let (after, took) = (Held::now(launcher)?, begun.elapsed().as_secs());
    let (plain, agents) = (u32::try_from(plain.len())?, u32::try_from(ids.len())?);
    report.text("agents with their names resolved", format!("{agents}, launched in {took} s"));
    kernel_memory::tell([&before, &between, &after], plain, agents, size.names, report);
    let all = f64::from(agents * size.names);
    report.at_least("names of a host, all resolved", "", all, NAMES.min(f64::from(size.agents * size.names)));
    Ok(agents)
}

impl Seen {
    async fn round(&mut self, world: &World) -> Result<()> {
        self.connect.extend(within(world, PROBE, "calls", &UDP)?);
        // Each connection is a record, which the daemons write.
        let _ = rest(world, SETTLES).await;
        self.syscall.extend(within(world, PROBE, "calls", &SYSCALL)?);
        let (pattern, names) = (members::pattern("probe"), OWN_NAMES.to_string());
        let answers = within(world, PROBE, "ask", &[&pattern, &names, QUESTIONS, GAP_MS])?;
        self.answers.extend(answers.into_iter().map(|ns| ns / 1e3));
        Ok(())
    }
}

/// Takes all names from all of them, by one reload of the operator's rules.
async fn reload(world: &World, agents: u32, report: &mut Report) -> Result<()> {
    world.deny(Some(&format!("net:connect:*.{DOMAIN}:*")))?;
    let begun = Instant::now();
    let held = world.daemons.client().reload_policy(api::ReloadPolicyRequest::default()).await?;
    let elapsed = begun.elapsed().as_secs_f64() * 1e3;
    let taken = held.agents.iter().filter(|one| one.error.is_empty() && !one.withheld.is_empty()).count();
    ensure!(taken >= usize::try_from(agents)?, "only {taken} agents of {agents} are held to them");
    report.value(format!("a reload that takes the rules of {agents} agents"), "ms", elapsed);
    report.at_most("the same, each agent", "ms", elapsed / f64::from(agents), LIVE_MS);
    Ok(())
}
