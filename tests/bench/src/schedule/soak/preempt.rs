//! Low tasks of real agents, preempted by high ones while aiond is killed: each ends with the result of an undisturbed run.
//!
//! One agent is Python over the runtime protocol, one a shell script as a job. Both go through a chain of steps, so that a step
//! done twice or left out shows in the result.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aion_client::{Client, api};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::chance::Chance;
use crate::report::Report;
use crate::schedule::aion::{Daemons, Settings};

const PYTHON: &str = include_str!("agent.py");
const SHELL: &str = include_str!("job.sh");
const AGENTS: [&str; 2] = ["soak-python", "soak-shell"];
const SLOTS: u32 = 4;
const LOW: Chain = Chain { steps: 60, pause_ms: 10 };
const HIGH: Chain = Chain { steps: 3, pause_ms: 10 };
/// Between two high tasks.
const GAP: Duration = Duration::from_millis(120);
/// aiond lives so long at most.
const LIFE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy)]
struct Chain {
    steps: u64,
    pause_ms: u64,
}

impl Chain {
    fn params(self, seed: u64) -> String {
        // Without spaces: the shell reads it with a pattern.
        json!({ "steps": self.steps, "pause_ms": self.pause_ms, "seed": seed }).to_string()
    }

    /// What an undisturbed run ends with.
    fn value(self, seed: u64) -> u64 {
        (0..self.steps).fold(seed, |value, step| (value * 48271 + step) % 2_147_483_647)
    }
}

/// Preempts, kills, compares.
pub(crate) async fn run(folder: &Path, tasks: u32, kills: u32, seed: u64, report: &mut Report) -> Result<()> {
    let settings = Settings { slots: SLOTS, min_run_ms: 20 };
    let mut daemons = Daemons::start(folder, settings).await?;
    let python = json!({
        "entry": ["/usr/bin/python3", "-c", PYTHON], "mode": "service", "tasks": true, "concurrency": SLOTS,
        "restart": "always", "env": { "CONCURRENCY": SLOTS.to_string() },
    });
    let shell = json!({
        "entry": ["/bin/sh", "-c", SHELL], "mode": "job", "concurrency": SLOTS,
        "capabilities": { "subprocess": true }, "checkpoint": { "freeze": false },
    });
    daemons.agent(AGENTS[0], python).await?;
    daemons.agent(AGENTS[1], shell).await?;
    let client = daemons.client();
    undisturbed(&client).await?;

    for number in 0..tasks {
        submit(&client, &format!("low-{number}"), "low", LOW, number).await?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let highs = tokio::spawn(press(daemons.client(), Arc::clone(&stop), Chance::new(seed, 1)));
    let lows = tokio::spawn(collect(daemons.client(), tasks));
    let mut chance = Chance::new(seed, 2);
    let mut killed = 0_u32;
    while !lows.is_finished() && !highs.is_finished() {
        tokio::time::sleep(chance.moment(LIFE)).await;
        if killed < kills {
            daemons.kill_aiond();
            daemons.start_aiond().await.with_context(|| format!("after kill {killed}"))?;
            killed += 1;
        }
    }
    stop.store(true, Ordering::Release);
    let high = highs.await??;
    let lows = tokio::time::timeout(LIMIT, lows).await.context("low tasks do not end")???;
    daemons.finish()?;

    let preempted = lows.iter().filter(|task| task.preemptions > 0).count();
    let preemptions: u32 = lows.iter().map(|task| task.preemptions).sum();
    let mut wrong = Vec::new();
    for (number, task) in (0_u32..).zip(&lows) {
        let result: Value = serde_json::from_str(&task.result_json).unwrap_or_default();
        if task.state != "succeeded" || result["value"] != LOW.value(u64::from(number)) {
            wrong.push(format!("{}: {} {} {:?}", task.id, task.state, task.result_json, task.error));
        }
    }
    report.value("preemption: low tasks", "", f64::from(tasks));
    report.value("preemption: of them preempted at least once", "", f64::from(u32::try_from(preempted)?));
    report.value("preemption: preemptions of them", "", f64::from(preemptions));
    report.value("preemption: high tasks meanwhile", "", f64::from(high));
    report.value("preemption: SIGKILLs of aiond meanwhile", "", f64::from(killed));
    let bad = f64::from(u32::try_from(wrong.len())?);
    report.at_most("preemption: results that differ from an undisturbed run", "", bad, 0.0);
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// The programs alone, before anybody disturbs them: they do what [`Chain::value`] says.
async fn undisturbed(client: &Client) -> Result<()> {
    for number in 0..2 {
        let id = format!("alone-{number}");
        submit(client, &id, "normal", LOW, number).await?;
        let task = ended(client, &id).await?;
        let result: Value = serde_json::from_str(&task.result_json).unwrap_or_default();
        ensure!(
            task.state == "succeeded" && result["value"] == LOW.value(u64::from(number)),
            "undisturbed, {} ends {} with {} {:?}",
            task.agent,
            task.state,
            task.result_json,
            task.error
        );
    }
    Ok(())
}

/// High tasks, one after another, each with its own right result.
async fn press(client: Client, stop: Arc<AtomicBool>, mut chance: Chance) -> Result<u32> {
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        let id = format!("high-{number}");
        submit(&client, &id, "high", HIGH, number).await?;
        let task = ended(&client, &id).await?;
        let result: Value = serde_json::from_str(&task.result_json).unwrap_or_default();
        ensure!(
            result["value"] == HIGH.value(u64::from(number)),
            "{id} ends {} {:?}",
            task.state,
            task.error
        );
        number += 1;
        tokio::time::sleep(chance.moment(GAP)).await;
    }
    Ok(number)
}

/// All low tasks at their ends, in order.
async fn collect(client: Client, tasks: u32) -> Result<Vec<api::Task>> {
    let mut lows = Vec::new();
    for number in 0..tasks {
        lows.push(ended(&client, &format!("low-{number}")).await?);
    }
    Ok(lows)
}

async fn submit(client: &Client, id: &str, queue: &str, chain: Chain, number: u32) -> Result<()> {
    let task = api::TaskSpec {
        task_id: id.to_owned(),
        agent: AGENTS[number as usize % AGENTS.len()].to_owned(),
        queue: queue.to_owned(),
        params_json: chain.params(u64::from(number)),
        ..api::TaskSpec::default()
    };
    loop {
        let request = api::SubmitRequest { task: Some(task.clone()), ..api::SubmitRequest::default() };
        match client.submit_task(request).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_disconnect() => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error).with_context(|| format!("submitting {id}")),
        }
    }
}

async fn ended(client: &Client, id: &str) -> Result<api::Task> {
    loop {
        match client.task(api::GetTaskRequest { task: id.to_owned() }).await {
            Ok(task) if ["succeeded", "failed", "cancelled", "expired"].contains(&task.state.as_str()) => {
                return Ok(task);
            }
            Ok(_) => {}
            Err(error) if error.is_disconnect() => {}
            Err(error) => return Err(error).with_context(|| id.to_owned()),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
