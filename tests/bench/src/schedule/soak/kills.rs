//! SIGKILL of aiond at random moments under the load of 64 clients; the agents live on and come back to their doors.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aion_client::api::to_agent::Kind as To;
use aion_client::{Client, api};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::chance::Chance;
use super::ledger::Ledger;
use crate::report::{Report, percentile};
use crate::schedule::aion::{Daemons, Door, Seat, Settings, completion, token};
use crate::schedule::load::params;
use crate::schedule::process::until;
use crate::schedule::restart::fill;

const CLIENTS: usize = 64;
const AGENTS: usize = 4;
const CONCURRENCY: u32 = 64;
/// An agent works so long on a task at most.
const WORK: Duration = Duration::from_millis(20);
/// A client's pause between two tasks at most: a thousand kills are a million tasks that are all looked at in the end.
const PAUSE: Duration = Duration::from_millis(80);
/// aiond lives so long at most.
const LIFE: Duration = Duration::from_millis(600);
/// Until everything has ended when nobody kills any more.
const DRAIN: Duration = Duration::from_secs(120);
const QUEUE: &str = "soak-queue";

/// Kills, counts, compares.
pub(crate) async fn run(
    folder: &Path,
    kills: u32,
    queued: u32,
    seed: u64,
    report: &mut Report,
) -> Result<()> {
    let mut daemons = Daemons::start(folder, Settings { slots: 1024, min_run_ms: 0 }).await?;
    hold(&daemons, queued).await?;
    let ledger = Arc::new(Ledger::new());
    let stop = Arc::new(AtomicBool::new(false));
    let (mut agents, mut clients) = (JoinSet::new(), JoinSet::new());
    for number in 0..AGENTS {
        let agent = daemons.held_door(&format!("soak-worker-{number}"), CONCURRENCY).await?;
        let seat = Seat::new(&daemons.state(), &agent.id, CONCURRENCY);
        agents.spawn(serve(seat, Arc::clone(&ledger), Arc::clone(&stop), Chance::new(seed, number as u64)));
    }
    for number in 0..CLIENTS {
        let name = format!("soak-worker-{}", number % AGENTS);
        let chance = Chance::new(seed, 2000 + number as u64);
        clients.spawn(submit(daemons.client(), number, name, Arc::clone(&ledger), Arc::clone(&stop), chance));
    }
    let mut chance = Chance::new(seed, 1000);
    let mut starts = Vec::new();
    for kill in 0..kills {
        tokio::time::sleep(chance.moment(LIFE)).await;
        daemons.kill_aiond();
        let start = daemons.start_aiond().await.with_context(|| format!("after kill {kill}"))?;
        starts.push(start.as_secs_f64() * 1e3);
        while let Some(ended) = agents.try_join_next().or_else(|| clients.try_join_next()) {
            ended?.with_context(|| format!("after kill {kill}"))?;
        }
    }
    stop.store(true, Ordering::Release);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let tasks = ledger.all();
    until("all tasks have been done", DRAIN, async || {
        Ok((ledger.faults().0.is_empty() || agents.try_join_next().is_some()).then_some(()))
    })
    .await
    .with_context(|| format!("{} tasks", ledger.faults().0.len()))?;
    let again = states(&daemons.client(), &tasks).await?;
    let (lost, twice) = ledger.faults();
    agents.shutdown().await;
    daemons.finish()?;
    report.value("kills: SIGKILLs of aiond under load", "", f64::from(kills));
    report.value("kills: tasks acknowledged", "", count(tasks.len()));
    report.value("kills: attachments that went on with running work", "", count64(ledger.comebacks()));
    report.value("kills: tasks whose first assignment never reached the agent", "", count(again));
    report.at_most("kills: acknowledged and not done", "", count(lost.len()), 0.0);
    report.at_most("kills: done more than once", "", count(twice.len()), 0.0);
    report.samples(format!("kills: start to serving, {queued} tasks queued"), "ms", &starts);
    report.at_most("kills: start to serving, p99", "ms", percentile(&starts, 99.0), 2000.0);
    ensure!(lost.is_empty() && twice.is_empty(), "lost {lost:?}; twice {twice:?}");
    Ok(())
}

/// Tasks that only lie in the journal: their one agent never ends its first.
async fn hold(daemons: &Daemons, queued: u32) -> Result<()> {
    if queued == 0 {
        return Ok(());
    }
    daemons.held_door(QUEUE, 1).await?;
    fill(&daemons.client(), QUEUE, queued).await
}

/// One client: its tasks have names of its own, so that a repeat after a kill is the same task.
async fn submit(
    client: Client,
    number: usize,
    agent: String,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    mut chance: Chance,
) -> Result<()> {
    let mut next = 0_u32;
    while !stop.load(Ordering::Acquire) {
        let Ok(place) = tokio::time::timeout(Duration::from_millis(200), ledger.places.acquire()).await
        else {
            continue;
        };
        place?.forget();
        tokio::time::sleep(chance.moment(PAUSE)).await;
        let id = format!("soak-{number}-{next}");
        next += 1;
        let task = api::TaskSpec {
            task_id: id.clone(),
            agent: agent.clone(),
            params_json: params(next),
            ..api::TaskSpec::default()
        };
        loop {
            let request = api::SubmitRequest { task: Some(task.clone()), ..api::SubmitRequest::default() };
            match client.submit_task(request).await {
                Ok(_) => break ledger.acknowledged(&id),
                Err(error) if error.is_disconnect() => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error).with_context(|| format!("submitting {id}")),
            }
        }
    }
    Ok(())
}

/// What an agent works on: the task, and whether it has done it.
#[derive(Debug)]
struct Job {
    attempt: api::Attempt,
    done: bool,
}

/// An agent: does each task once, says so until it is recorded, and comes back to its door when aiond does.
async fn serve(seat: Seat, ledger: Arc<Ledger>, stop: Arc<AtomicBool>, mut chance: Chance) -> Result<()> {
    let mut jobs: HashMap<(u64, u64), Job> = HashMap::new();
    let (finish, mut finished) = mpsc::unbounded_channel::<(u64, u64)>();
    loop {
        let running: Vec<_> = jobs.values().map(|job| job.attempt).collect();
        let Ok(mut door) = seat.attach(running).await else {
            if stop.load(Ordering::Acquire) && jobs.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let kept: Vec<_> = door.kept.iter().map(|attempt| (attempt.epoch, attempt.seq)).collect();
        jobs.retain(|token, _| kept.contains(token));
        if !jobs.is_empty() {
            ledger.reattached();
        }
        let again: Vec<_> =
            jobs.values().filter(|job| job.done).map(|job| completion(Some(job.attempt), "{}")).collect();
        if !again.is_empty() && door.complete(again).await.is_err() {
            continue;
        }
        loop {
            tokio::select! {
                Some(token) = finished.recv() => {
                    let Some(job) = jobs.get_mut(&token) else { continue };
                    job.done = true;
                    if door.complete(vec![completion(Some(job.attempt), "{}")]).await.is_err() {
                        break;
                    }
                }
                message = message(&mut door) => {
                    let Some(message) = message? else { break };
                    handle(message, &mut jobs, &ledger, &finish, &mut chance)?;
                }
            }
        }
    }
}

/// The next message; none when aiond is gone.
async fn message(door: &mut Door) -> Result<Option<To>> {
    match door.next().await {
        Ok(To::Refused(refused)) => bail!("refused: {} {}", refused.code, refused.message),
        Ok(message) => Ok(Some(message)),
        Err(_) => Ok(None),
    }
}

fn handle(
    message: To,
    jobs: &mut HashMap<(u64, u64), Job>,
    ledger: &Ledger,
    finish: &mpsc::UnboundedSender<(u64, u64)>,
    chance: &mut Chance,
) -> Result<()> {
    match message {
        To::Assignments(assignments) => {
            for one in assignments.assignments {
                let key = token(one.attempt.as_ref())?;
                let attempt = one.attempt.context("an assignment without an attempt")?;
                ledger.effect(&one.task_id);
                jobs.insert(key, Job { attempt, done: false });
                let (finish, time) = (finish.clone(), chance.moment(WORK));
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let _nobody_waits_any_more = finish.send(key);
                });
            }
        }
        To::Recorded(recorded) => {
            for attempt in recorded.attempts {
                jobs.remove(&(attempt.epoch, attempt.seq));
            }
        }
        _ => {}
    }
    Ok(())
}

/// What aiond says of each task at the end; how many took more than one attempt. One does when aiond is killed between the
/// record of an assignment and its way to the agent: that attempt has done nothing, as the ledger shows.
async fn states(client: &Client, tasks: &[String]) -> Result<usize> {
    let mut again = 0;
    for chunk in tasks.chunks(64) {
        let asked: Vec<_> = chunk
            .iter()
            .map(|task| {
                let (client, task) = (client.clone(), task.clone());
                tokio::spawn(succeeds(client, task))
            })
            .collect();
        for answer in asked {
            again += usize::from(answer.await?? > 1);
        }
    }
    Ok(again)
}

/// Waits for the task's end: what was done last may be on its way to the disk.
async fn succeeds(client: Client, id: String) -> Result<u32> {
    let begun = Instant::now();
    loop {
        let task = client.task(api::GetTaskRequest { task: id.clone() }).await?;
        if task.state == "succeeded" {
            return Ok(task.attempts);
        }
        ensure!(begun.elapsed() < DRAIN, "{id} is {} for too long", task.state);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn count(number: usize) -> f64 {
    count64(number as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a few million")]
fn count64(number: u64) -> f64 {
    number as f64
}
