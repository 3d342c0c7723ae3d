//! From the submission of a high task to its assignment on a full node, with low tasks that leave a state behind; and freezing
//! in place.
//!
//! The agent's state lies ready, so that what is measured is AION's part: asking, taking the checkpoint in, storing it,
//! assigning. The low task is given back its whole state each time, and that is compared.

use std::time::{Duration, Instant};

use aion_client::api::from_agent::Kind as From;
use aion_client::api::to_agent::Kind as To;
use aion_client::{Client, api};
use anyhow::{Context as _, Result, bail, ensure};

use super::Size;
use super::aion::{Daemons, Door, Seat, completion, token};
use super::load::params;
use super::process::until;
use crate::report::{Report, percentile};

const SLOTS: u32 = 2;
const PART: usize = 1 << 20;
/// Nothing here takes longer.
const HANG: Duration = Duration::from_secs(60);
/// What another scheduler takes for it, by requeueing: Slurm, measured on a machine like this one.
const SLURM_MS: f64 = 930.0;

pub(crate) async fn measure(daemons: &Daemons, size: Size, report: &mut Report) -> Result<()> {
    let small = size.preemptions;
    for (label, bytes, runs, limit) in [
        ("1 KiB", 1 << 10, small, 30.0),
        ("1 MiB", 1 << 20, small, 30.0),
        ("64 MiB", 64 << 20, (small / 10).max(5), 250.0),
    ] {
        let name = format!("preempt-{}", bytes >> 10);
        let samples =
            state(daemons, &name, bytes, runs).await.with_context(|| format!("a state of {label}"))?;
        report.samples(format!("high submitted to started, state {label}"), "ms", &samples);
        let p99 = percentile(&samples, 99.0);
        report.at_most(format!("high submitted to started, state {label}: p99"), "ms", p99, limit);
        if bytes == 1 << 20 {
            report.at_least(
                "high submitted to started: Slurm's 0.93 s / AION p99",
                "ratio",
                SLURM_MS / p99,
                20.0,
            );
        }
    }
    freeze(daemons, small, report).await
}

async fn state(daemons: &Daemons, name: &str, bytes: usize, runs: usize) -> Result<Vec<f64>> {
    let agent = daemons.held_door(name, SLOTS).await?;
    let mut door = Seat::new(&daemons.state(), &agent.id, SLOTS).attach(Vec::new()).await?;
    let client = daemons.client();
    let state = noise(bytes);
    for number in 0..SLOTS {
        submit(&client, name, "low", number).await?;
    }
    let mut low = Vec::new();
    while low.len() < SLOTS as usize {
        low.push(assigned(&mut door, &state).await?.attempt);
    }
    let mut samples = Vec::new();
    for number in 0..runs {
        let begun = Instant::now();
        let (submitted, started) = tokio::join!(
            submit(&client, name, "high", u32::try_from(number)?),
            tokio::time::timeout(HANG, make_room(&mut door, &state, &mut low)),
        );
        submitted?;
        let (high, at) = started.context("the high task does not start")??;
        samples.push((at - begun).as_secs_f64() * 1e3);
        door.complete(vec![completion(high, "{}")]).await?;
        let resumed = tokio::time::timeout(HANG, assigned(&mut door, &state)).await;
        let resumed = resumed.context("the low task does not go on")??;
        ensure!(resumed.checkpoint_bytes == bytes as u64, "it goes on without its state");
        low.push(resumed.attempt);
    }
    for attempt in low.drain(..) {
        door.complete(vec![completion(attempt, "{}")]).await?;
    }
    let mut missing = SLOTS as usize;
    while missing > 0 {
        if let To::Recorded(recorded) = door.next().await? {
            missing = missing.saturating_sub(recorded.attempts.len());
        }
    }
    drop(door);
    stop(&client, &agent.id).await?;
    Ok(samples)
}

async fn submit(client: &Client, agent: &str, queue: &str, number: u32) -> Result<()> {
    let task = api::TaskSpec {
        agent: agent.to_owned(),
        queue: queue.to_owned(),
        params_json: params(number),
        ..api::TaskSpec::default()
    };
    client.submit_task(api::SubmitRequest { task: Some(task), ..api::SubmitRequest::default() }).await?;
    Ok(())
}

/// Leaves the checkpoint that is asked for, and waits for the assignment that took the place.
async fn make_room(
    door: &mut Door,
    state: &[u8],
    low: &mut Vec<Option<api::Attempt>>,
) -> Result<(Option<api::Attempt>, Instant)> {
    loop {
        match door.next().await? {
            To::Preempt(preempt) => {
                let victim = token(preempt.attempt.as_ref())?;
                let before = low.len();
                low.retain(|attempt| token(attempt.as_ref()).is_ok_and(|one| one != victim));
                ensure!(low.len() + 1 == before, "a victim that does not run");
                leave(door, preempt.attempt, state).await?;
            }
            To::Assignments(assignments) => {
                let at = Instant::now();
                let [one] = assignments.assignments.as_slice() else { bail!("more than one assignment") };
                return Ok((one.attempt, at));
            }
            To::Refused(refused) => bail!("refused: {} {}", refused.code, refused.message),
            _ => {}
        }
    }
}

async fn leave(door: &Door, attempt: Option<api::Attempt>, state: &[u8]) -> Result<()> {
    let mut offset = 0;
    for part in state.chunks(PART) {
        let end = offset + part.len();
        door.send(From::Checkpoint(api::CheckpointPart {
            attempt,
            offset: offset as u64,
            data: part.to_vec(),
            last: end == state.len(),
            yields: end == state.len(),
            sha256: Vec::new(),
        }))
        .await?;
        offset = end;
    }
    Ok(())
}

/// The next assignment, with all of its checkpoint.
async fn assigned(door: &mut Door, state: &[u8]) -> Result<api::Assignment> {
    let mut found: Option<api::Assignment> = None;
    let mut bytes = Vec::new();
    loop {
        match door.next().await? {
            To::Assignments(assignments) => {
                ensure!(found.is_none() && assignments.assignments.len() == 1, "more than one assignment");
                found = assignments.assignments.into_iter().next();
            }
            To::Resume(part) => {
                ensure!(part.offset == bytes.len() as u64, "a part of a checkpoint is missing");
                bytes.extend_from_slice(&part.data);
            }
            To::Refused(refused) => bail!("refused: {} {}", refused.code, refused.message),
            _ => {}
        }
        if let Some(one) = &mut found {
            if !one.checkpoint.is_empty() {
                bytes = std::mem::take(&mut one.checkpoint);
            }
            if bytes.len() as u64 >= one.checkpoint_bytes {
                ensure!(
                    one.checkpoint_bytes == 0 || bytes == state,
                    "another checkpoint than the one that was left"
                );
                break;
            }
        }
    }
    found.context("no assignment")
}

/// Bytes that no compression shrinks: the worst case.
fn noise(length: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

async fn stop(client: &Client, id: &str) -> Result<()> {
    client.remove(api::RemoveRequest { agent: id.to_owned(), force: true, ..Default::default() }).await?;
    Ok(())
}

/// An agent of some processes that compute, frozen and thawed through the API.
async fn freeze(daemons: &Daemons, runs: usize, report: &mut Report) -> Result<()> {
    const BUSY: &str = "for i in 1 2 3 4; do while :; do :; done & done; echo ready; wait";
    let spec = serde_json::json!({
        "entry": ["/bin/sh", "-c", BUSY], "mode": "service", "restart": "never",
        "capabilities": { "subprocess": true },
    });
    let agent = daemons.agent("bench-frozen", spec).await?;
    let client = daemons.client();
    until("the agent runs", Duration::from_secs(10), async || {
        let agent = client.get(api::GetRequest { agent: agent.id.clone() }).await?;
        Ok((agent.state == "running").then_some(()))
    })
    .await?;
    let mut samples = Vec::new();
    for _ in 0..runs {
        let begun = Instant::now();
        client.pause(api::PauseRequest { agent: agent.id.clone(), ..Default::default() }).await?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        client.resume(api::ResumeRequest { agent: agent.id.clone(), ..Default::default() }).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stop(&client, &agent.id).await?;
    report.samples("freeze in place, four busy processes, through the API", "ms", &samples);
    report.at_most("freeze in place: p99", "ms", percentile(&samples, 99.0), 15.0);
    Ok(())
}
