//! Tasks in a second and how long one takes: windows of 64 and 512 in flight, and one alone.

use std::sync::Arc;

use anyhow::Result;

use super::Size;
use super::aion::{Calls, Daemons, Seat, Streamed};
use super::load::{Contender, Outcome, round};
use crate::report::{Report, percentile};

/// What the goals are measured against.
const YARDSTICK: &str = "Redis Streams";
/// Tasks that the agent takes at once: more than the largest window.
const CONCURRENCY: u32 = 1024;

/// What a figure asks of AION, as ratios to the yardstick.
struct Goal {
    window: u32,
    per_s: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
}

const GOALS: [Goal; 3] = [
    Goal { window: 64, per_s: Some(3.0), p50: None, p99: Some(0.5) },
    Goal { window: 512, per_s: Some(5.0), p50: None, p99: None },
    Goal { window: 1, per_s: None, p50: Some(1.5), p99: None },
];
const CALLS_WINDOW: u32 = 64;
const CALLS_GOAL: f64 = 1.1;

pub(crate) async fn measure(
    daemons: Option<&Daemons>,
    peers: &mut Vec<Box<dyn Contender>>,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let mut calls = None;
    if let Some(daemons) = daemons {
        let agent = daemons.held_door("bench-worker", CONCURRENCY).await?;
        calls = Some(Calls(streamed(daemons, &agent)?));
        peers.insert(0, Box::new(streamed(daemons, &agent)?));
    }
    for goal in GOALS {
        let mut contenders: Vec<&dyn Contender> = peers.iter().map(AsRef::as_ref).collect();
        if let Some(calls) = calls.as_ref().filter(|_| goal.window == CALLS_WINDOW) {
            contenders.insert(1, calls);
        }
        window(&contenders, &goal, size, report).await;
    }
    Ok(())
}

fn streamed(daemons: &Daemons, agent: &aion_client::api::Agent) -> Result<Streamed> {
    let socket = daemons.state().join("run/aion.sock");
    let client = move || {
        let options = aion_client::Options { socket: socket.clone(), ..Default::default() };
        aion_client::Client::connect_lazily(options)
    };
    Ok(Streamed {
        client: Arc::new(client),
        agent: agent.name.clone(),
        seat: Seat::new(&daemons.state(), &agent.id, CONCURRENCY),
    })
}

/// Rounds that alternate; a contender that fails is left out from then on, with the reason.
async fn window(contenders: &[&dyn Contender], goal: &Goal, size: Size, report: &mut Report) {
    let mut outcomes: Vec<Vec<Outcome>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut failed = vec![false; contenders.len()];
    for _ in 0..size.rounds {
        for (at, contender) in contenders.iter().enumerate() {
            if failed[at] {
                continue;
            }
            match round(*contender, goal.window, size.time).await {
                Ok(outcome) => outcomes[at].push(outcome),
                Err(error) => {
                    report.skip(format!("{}, {} in flight: {error:#}", contender.name(), goal.window));
                    failed[at] = true;
                }
            }
        }
    }
    let flight = format!("{} in flight", goal.window);
    let mut medians = Vec::new();
    for (contender, outcomes) in contenders.iter().zip(&outcomes).filter(|(_, outcomes)| !outcomes.is_empty())
    {
        let name = contender.name();
        let of = |field: fn(&Outcome) -> f64| outcomes.iter().map(field).collect::<Vec<_>>();
        let (rate, p50, p99) = (of(|o| o.per_s), of(|o| o.p50), of(|o| o.p99));
        report.samples(format!("{flight}: {name}"), "per_s", &rate);
        report.samples(format!("{flight}: {name}, p50"), "ms", &p50);
        report.samples(format!("{flight}: {name}, p99"), "ms", &p99);
        let median = |values: &[f64]| percentile(values, 50.0);
        medians.push((name, median(&rate), median(&p50), median(&p99)));
    }
    let find = |wanted: &str| medians.iter().find(|(name, ..)| *name == wanted);
    let (Some(theirs), Some(ours)) = (find(YARDSTICK), find("AION")) else { return };
    if let Some(limit) = goal.per_s {
        report.at_least(format!("{flight}: AION / {YARDSTICK}"), "ratio", ours.1 / theirs.1, limit);
    }
    if let Some(limit) = goal.p50 {
        report.at_most(format!("{flight}: p50, AION / {YARDSTICK}"), "ratio", ours.2 / theirs.2, limit);
    }
    if let Some(limit) = goal.p99 {
        report.at_most(format!("{flight}: p99, AION / {YARDSTICK}"), "ratio", ours.3 / theirs.3, limit);
    }
    if let Some(calls) = find("AION, a call each") {
        let ratio = calls.1 / theirs.1;
        report.at_least(format!("{flight}: AION, a call each / {YARDSTICK}"), "ratio", ratio, CALLS_GOAL);
    }
}
