//! SIGKILL with a million tasks waiting: until the first answer of the next process, and what the tasks take in memory.

use std::path::Path;
use std::time::Duration;

use aion_client::api::to_agent::Kind as To;
use aion_client::{Client, api};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::aion::{Daemons, Seat, Settings, refusal};
use super::load::params;
use super::process::resident;
use super::{ScheduleArgs, Size};
use crate::report::Report;

/// Tasks in a message, and messages that are on their way.
const BATCH: u32 = 1000;
const AHEAD: usize = 4;
const NAME: &str = "bench-queue";

pub(crate) async fn measure(
    args: &ScheduleArgs,
    scratch: &Path,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let count = size.queued;
    let mut ours = None;
    if !args.peers_only {
        ours = Some(aion(&scratch.join("restart"), count, size, report).await.context("AION")?);
    }
    #[cfg(feature = "peers")]
    if !args.no_peers {
        match redis(scratch, count, size).await {
            Ok((samples, bytes)) => {
                report.value(format!("memory of a queued task, {count} of them: Redis"), "bytes", bytes);
                let theirs =
                    report.samples(format!("restart, {count} tasks queued: Redis, AOF"), "ms", &samples);
                if let Some(ours) = ours {
                    report.at_most("restart: AION / Redis", "ratio", ours / theirs, 0.75);
                }
            }
            Err(error) => report.skip(format!("restart of Redis: {error:#}")),
        }
        match postgres(scratch, count, size).await {
            Ok(samples) => {
                report.samples(format!("restart, {count} tasks queued: PostgreSQL"), "ms", &samples);
            }
            Err(error) => report.skip(format!("restart of PostgreSQL: {error:#}")),
        }
    }
    let _only_with_peers = ours;
    Ok(())
}

async fn aion(folder: &Path, count: u32, size: Size, report: &mut Report) -> Result<f64> {
    let mut daemons = Daemons::start(folder, Settings { slots: 1, min_run_ms: 0 }).await?;
    let agent = daemons.held_door(NAME, 1).await?;
    let seat = Seat::new(&daemons.state(), &agent.id, 1);
    let client = daemons.client();
    // One task holds the only slot, so that all others wait.
    let mut door = seat.attach(Vec::new()).await?;
    fill(&client, NAME, 1).await?;
    let held = loop {
        if let To::Assignments(assignments) = door.next().await? {
            break assignments.assignments.iter().filter_map(|one| one.attempt).collect::<Vec<_>>();
        }
    };
    let before = resident(daemons.aiond_pid()?)?;
    fill(&client, NAME, count).await?;
    ensure!(depth(&client).await? == u64::from(count), "not all tasks wait");
    let per_task = |bytes: f64| bytes / f64::from(count);
    let grown = resident(daemons.aiond_pid()?)? - before;
    report.value(format!("memory of a queued task, {count} of them: growth"), "bytes", per_task(grown));
    let mut samples = Vec::new();
    for _ in 0..size.rounds {
        daemons.kill_aiond();
        let elapsed = daemons.start_aiond().await?;
        samples.push(elapsed.as_secs_f64() * 1e3);
        let client = daemons.client();
        let found = depth(&client).await?;
        ensure!(found >= u64::from(count), "{found} tasks of {count} are left");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let restored = resident(daemons.aiond_pid()?)? - before;
    report.at_most("memory of a queued task, after a restart", "bytes", per_task(restored), 300.0);
    // The agent has lived through it all, and so has what it works on.
    drop(door);
    let door = seat.attach(held.clone()).await?;
    ensure!(door.kept == held, "the task that ran is not known any more");
    daemons.finish()?;
    Ok(report.samples(format!("restart, {count} tasks queued: AION"), "ms", &samples))
}

pub(super) async fn depth(client: &Client) -> Result<u64> {
    let queues = client.queues(api::QueuesRequest {}).await?;
    Ok(queues.queues.iter().map(|queue| queue.depth).sum())
}

/// Submits as many tasks over one stream.
pub(super) async fn fill(client: &Client, agent: &str, count: u32) -> Result<()> {
    let (send, batches) = mpsc::channel(AHEAD);
    let mut answers = client.submit_tasks(ReceiverStream::new(batches)).await?;
    let agent = agent.to_owned();
    let sender = tokio::spawn(async move {
        for first in (0..count).step_by(BATCH as usize) {
            let task = |number| api::TaskSpec {
                agent: agent.clone(),
                params_json: params(number),
                ..api::TaskSpec::default()
            };
            let tasks = (first..count.min(first + BATCH)).map(task).collect();
            if send.send(api::SubmitBatch { tasks }).await.is_err() {
                bail!("the stream of tasks is gone");
            }
        }
        Ok(())
    });
    let mut missing = count as usize;
    while missing > 0 {
        let answer = client.next(&mut answers).await?.context("aiond closed the stream of tasks")?;
        refusal(&answer.results)?;
        missing = missing.saturating_sub(answer.results.len());
    }
    sender.await?
}

#[cfg(feature = "peers")]
async fn redis(scratch: &Path, count: u32, size: Size) -> Result<(Vec<f64>, f64)> {
    let folder = scratch.join("restart-redis");
    std::fs::create_dir(&folder)?;
    let mut redis = super::peers::Redis::start(&folder).await?;
    let memory = |redis: &super::peers::Redis| resident(redis.pid().context("Redis does not run")?);
    let before = memory(&redis)?;
    redis.fill(count).await?;
    let bytes = (memory(&redis)? - before) / f64::from(count);
    let mut samples = Vec::new();
    for _ in 0..size.rounds {
        samples.push(redis.restart().await?.as_secs_f64() * 1e3);
    }
    Ok((samples, bytes))
}

#[cfg(feature = "peers")]
async fn postgres(scratch: &Path, count: u32, size: Size) -> Result<Vec<f64>> {
    let folder = scratch.join("restart-postgres");
    std::fs::create_dir(&folder)?;
    crate::launch::open_to_all(&folder)?;
    let mut postgres = super::peers::Postgres::start(&folder).await?;
    postgres.fill(count).await?;
    let mut samples = Vec::new();
    for _ in 0..size.rounds {
        samples.push(postgres.restart().await?.as_secs_f64() * 1e3);
    }
    Ok(samples)
}
