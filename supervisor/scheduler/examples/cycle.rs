//! What the core costs: `cargo run --release -p aion-scheduler --example cycle`. One JSON object: full cycles a second with rows and
//! events as bytes, memory of a queued task, restore of a million.

#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::hint::black_box;
use std::time::Instant;

use aion_scheduler::{
    AgentMode, AgentSpec, Applied, Command, Config, Effect, Reply, Restore, Scheduler, Submit, Target, TaskId,
};
use aion_types::{AgentName, TenantId};

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn scheduler() -> Result<Scheduler, Box<dyn std::error::Error>> {
    let mut config = Config { slots: 64, ..Config::default() };
    config.tenant_default.max_queued = 10_000_000;
    let mut core = Scheduler::new(config)?;
    core.apply(1_000_000, Command::Boot { epoch: 1 })?;
    let spec = AgentSpec { mode: AgentMode::Job, concurrency: 64, ..AgentSpec::default() };
    let (tenant, name) = (TenantId::parse("default")?, AgentName::parse("worker")?);
    core.apply(1_000_000, Command::AgentKnown { tenant, name, spec })?;
    Ok(core)
}

fn task(n: u64) -> Result<Submit, Box<dyn std::error::Error>> {
    // As long as a ULID.
    let id = TaskId::parse(&format!("01JD{n:022}"))?;
    let target = Target::Agent(AgentName::parse("worker")?);
    let mut task = Submit::new(TenantId::parse("default")?, id, target);
    task.fingerprint = n;
    task.timeout_ms = Some(60_000);
    task.retry.max_attempts = 3;
    Ok(task)
}

/// Submit, dispatch, start, complete; one batch of rows for each group of so many commands.
fn cycles(
    core: &mut Scheduler,
    first: u64,
    count: u64,
    group: u64,
) -> Result<f64, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut out = Applied::default();
    let mut running = std::collections::VecDeque::new();
    let (mut done, mut next, mut bytes) = (0, 0, 0);
    while done < count {
        for _ in 0..group {
            if next < count && running.len() < 64 {
                core.apply_into(
                    2_000_000 + next / 100,
                    Command::Submit(Box::new(task(first + next)?)),
                    &mut out,
                )?;
                next += 1;
            } else if let Some(attempt) = running.pop_front() {
                core.apply_into(2_000_000 + next / 100, Command::Started { attempt }, &mut out)?;
                core.apply_into(2_000_000 + next / 100, Command::Completed { attempt }, &mut out)?;
                done += 1;
            }
            for effect in out.effects.drain(..) {
                if let Effect::Assign { attempt, .. } = effect {
                    running.push_back(attempt);
                }
            }
        }
        core.flush(&mut out);
        bytes += out.events.drain(..).map(|event| event.encode().len()).sum::<usize>();
        bytes +=
            out.rows.drain(..).map(|row| row.key.len() + row.value.map_or(0, |v| v.len())).sum::<usize>();
    }
    black_box(bytes);
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut core = scheduler()?;
    let grouped = cycles(&mut core, 0, 300_000, 64)?;
    let single = cycles(&mut core, 1_000_000, 100_000, 1)?;
    drop(core);

    let mut core = scheduler()?;
    let million = 1_000_000;
    let before = resident();
    let start = Instant::now();
    for n in 0..million + 64 {
        let reply = core.apply(1_000_000 + n / 100, Command::Submit(Box::new(task(n)?)))?.reply;
        black_box(matches!(reply, Reply::Submitted { .. }));
    }
    let submits = million as f64 / start.elapsed().as_secs_f64();
    let per_task = (resident() - before) as f64 / million as f64;
    let deep = cycles_deep(&mut core)?;
    let rows = core.dump();
    let config = core.config().clone();
    drop(core);
    let start = Instant::now();
    let mut restore = Restore::new(config)?;
    for row in &rows {
        restore.row(&row.key, row.value.as_deref().unwrap_or_default())?;
    }
    let core = restore.finish()?;
    let restored = start.elapsed().as_secs_f64();
    println!(
        "{{\"cycles_per_s\": {grouped:.0}, \"cycles_per_s_ungrouped\": {single:.0}, \"submits_per_s\": {submits:.0}, \
         \"cycles_per_s_behind_a_million\": {deep:.0}, \"bytes_per_queued_task\": {per_task:.0}, \
         \"restore_million_s\": {restored:.3}, \"tasks\": {}}}",
        core.tasks_in_memory()
    );
    Ok(())
}

/// Completions, each of which starts another one, behind a million that wait.
fn cycles_deep(core: &mut Scheduler) -> Result<f64, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let count = 100_000;
    let mut running: std::collections::VecDeque<_> =
        core.attempts().iter().map(|view| view.attempt).collect();
    for n in 0..count {
        if let Some(attempt) = running.pop_front() {
            let applied = core.apply(3_000_000, Command::Completed { attempt })?;
            running.extend(applied.effects.iter().filter_map(|effect| match effect {
                Effect::Assign { attempt, .. } => Some(*attempt),
                _ => None,
            }));
        }
        core.apply(3_000_000, Command::Submit(Box::new(task(10_000_000 + n)?)))?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
