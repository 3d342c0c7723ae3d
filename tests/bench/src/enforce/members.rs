//! Many agents at once: launched some at a time, each asking for its names and then silent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_client::Client;
use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use super::agents::{Network, Programs};
use crate::aion::stdout;
use crate::report::Report;
use crate::schedule::aion::launch;
use crate::schedule::process::until;

/// What all names are below.
pub(crate) const DOMAIN: &str = "bench.example";
const AT_ONCE: usize = 4;
/// Fewer are no crowd.
const FEWEST: usize = 10;
/// What one takes of the machine's memory, with what its daemons keep of it, generously.
const EACH_KIB: u64 = 4 << 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// Names of one agent, for C's printf.
pub(crate) fn pattern(agent: &str) -> String {
    format!("n%d.{agent}.{DOMAIN}")
}

/// The rules that have them.
pub(crate) fn names(agent: &str, count: u32) -> Vec<String> {
    (0..count).map(|n| format!("n{n}.{agent}.{DOMAIN}:443")).collect()
}

/// One of the crowd: asks for all its names, says "ready", and stays.
pub(crate) fn member(programs: &Programs, number: u32, count: u32) -> (String, Value) {
    let name = format!("a{number}");
    let (rules, pattern, count) = (names(&name, count), pattern(&name), count.to_string());
    let spec = programs.agent("ask", &[&pattern, &count, &count], Network::Egress(&rules));
    (format!("member-{number}"), spec)
}

/// As many as there is memory for.
pub(crate) fn fitting(wanted: u32, report: &mut Report) -> Result<u32> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    let free: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    let room = u32::try_from(free / EACH_KIB).unwrap_or(u32::MAX);
    if room < wanted {
        report.skip(format!("{wanted} agents at once: this machine has memory for {room}"));
    }
    Ok(room.min(wanted))
}

/// Launches them; gives their ids. One that cannot be launched ends it, and is told: those before it are the crowd.
pub(crate) async fn launch_all(
    client: &Client,
    agents: Vec<(String, Value)>,
    report: &mut Report,
) -> Result<Vec<String>> {
    let wanted = agents.len();
    let waiting = Arc::new(Mutex::new(agents.into_iter()));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, waiting) = (client.clone(), Arc::clone(&waiting));
        workers.spawn(async move {
            let mut ids = Vec::new();
            loop {
                let next = waiting.lock().map_err(|_| anyhow!("a thread panicked")).map(|mut all| all.next());
                match next {
                    Ok(Some((name, spec))) => match launch(&client, &name, spec).await {
                        Ok(agent) => ids.push(agent.id),
                        Err(error) => return (ids, Some(error)),
                    },
                    Ok(None) => return (ids, None),
                    Err(error) => return (ids, Some(error)),
                }
            }
        });
    }
    let (mut launched, mut failed) = (Vec::new(), None);
    while let Some(ended) = workers.join_next().await {
        let (ids, error) = ended?;
        launched.extend(ids);
        failed = failed.or(error);
    }
    if let Some(error) = failed {
        ensure!(launched.len() >= FEWEST, "only {} of {wanted} agents: {error:#}", launched.len());
        report.skip(format!("{wanted} agents at once, {} were launched: {error:#}", launched.len()));
    }
    Ok(launched)
}

/// Waits until all of them have all their names.
pub(crate) async fn resolved(client: &Client, ids: &[String]) -> Result<()> {
    for id in ids {
        until("an agent has its names", PATIENCE, async || {
            Ok(stdout(client, id).await?.starts_with(b"ready").then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_asks_for_what_its_rules_have() {
        assert_eq!(names("a7", 2), ["n0.a7.bench.example:443", "n1.a7.bench.example:443"]);
        assert_eq!(format!("{}:443", pattern("a7").replace("%d", "1")), names("a7", 2)[1]);
    }
}
