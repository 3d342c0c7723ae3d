//! What detections are for. Each scenario is an agent that does it, beside one that comes near; what is told of the first is timed from
//! its first act on, and of the second the rule must say nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::agents::{Agent, Finding, World, time_ns};
use super::{privileges, table};
use crate::report::Report;

const PROGRAM: &str = include_str!("attack.py");
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// What is told at the latest after the last act: a sample comes every ten seconds.
const SETTLE: Duration = Duration::from_secs(25);

/// One of the detections, and what is done.
#[derive(Debug)]
struct Scenario {
    rule: &'static str,
    what: &'static str,
    /// What it takes in all, at most.
    seconds: u64,
    /// Its windows are minutes: it goes on beside the others.
    slow: bool,
    /// It has the host's network: without one there is no loopback either.
    network: bool,
    pids: u32,
}

const QUICK: Scenario = Scenario { rule: "", what: "", seconds: 90, slow: false, network: false, pids: 256 };

#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    Scenario { rule: "rate-deviation", what: "five minutes of habit, then 3000 programs", seconds: 480, slow: true, ..QUICK },
    Scenario { rule: "novel-syscalls", what: "a loop of one call, then other code", seconds: 180, slow: true, ..QUICK },
    Scenario { rule: "beaconing", what: "a connection every five seconds", seconds: 180, slow: true, network: true, ..QUICK },
    Scenario { rule: "fork-bomb", what: "processes beyond the limit", pids: 20, ..QUICK },
    Scenario { rule: "fork-rate", what: "processes that end at once", seconds: 120, ..QUICK },
    Scenario { rule: "reverse-shell", what: "a shell on a connection", network: true, ..QUICK },
    Scenario { rule: "exec-writable", what: "a program of the workspace", ..QUICK },
    Scenario { rule: "memfd-exec", what: "a program from memory", ..QUICK },
    Scenario { rule: "deleted-binary", what: "a program without a name executed", ..QUICK },
    Scenario { rule: "deleted-running", what: "a program deleted while it runs", ..QUICK },
    Scenario { rule: "crypto-miner", what: "a pool's address in arguments", ..QUICK },
    Scenario { rule: "credential-access", what: "/etc/shadow in arguments", ..QUICK },
    Scenario { rule: "mass-write", what: "1500 files written", ..QUICK },
    Scenario { rule: "mass-encrypt", what: "200 files encrypted and renamed", ..QUICK },
    Scenario { rule: "data-exfiltration", what: "400 MiB sent", seconds: 120, network: true, ..QUICK },
    Scenario { rule: "denied-burst", what: "2000 refused calls", ..QUICK },
    Scenario { rule: "canary-touched", what: "a canary asked for over the kernel API", ..QUICK },
    Scenario { rule: "escape-attempt", what: "six ways out tried", ..QUICK },
    Scenario { rule: "privilege-change", what: "a program with the set-user-ID bit, outside of the layers", ..QUICK },
];

/// What became of a scenario.
#[derive(Debug)]
struct Caught {
    scenario: &'static Scenario,
    /// Milliseconds from the first act: to the event that was the last it took, to the action, to the record.
    times: Option<[f64; 3]>,
    action: String,
    /// What is not as it should be.
    faults: Vec<String>,
}

/// The rules that there are scenarios for.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|scenario| scenario.rule)
}

/// Does those that are wanted. Gives what was missed.
pub(crate) async fn run(
    world: &Arc<World>,
    wanted: &impl Fn(&str) -> bool,
    report: &mut Report,
) -> Result<Vec<String>> {
    every_rule_has_one(world).await?;
    let sink = sink().await?;
    let mut caught = Vec::new();
    let (mut slow, mut nears) = (JoinSet::new(), JoinSet::new());
    for scenario in SCENARIOS.iter().filter(|one| wanted(one.rule)) {
        nears.spawn(near(Arc::clone(world), scenario, sink));
        if scenario.slow {
            slow.spawn(act(Arc::clone(world), scenario, sink));
        } else {
            caught.push(act(Arc::clone(world), scenario, sink).await?);
        }
    }
    while let Some(one) = slow.join_next().await {
        caught.push(one??);
    }
    while let Some(one) = nears.join_next().await {
        let (rule, fault) = one??;
        if let Some(of) = caught.iter_mut().find(|one| one.scenario.rule == rule) {
            of.faults.extend(fault);
        }
    }
    tell(&caught, report);
    let faults = caught
        .iter()
        .flat_map(|one| one.faults.iter().map(move |why| format!("{}: {why}", one.scenario.rule)));
    Ok(faults.collect())
}

/// A rule that ships and is not attacked here would be one of which nothing is known.
async fn every_rule_has_one(world: &World) -> Result<()> {
    let loaded = world.client.detections(aion_client::api::ListDetectionsRequest {}).await?;
    for rule in loaded.detections {
        ensure!(names().any(|name| name == rule.name), "{} has no scenario", rule.name);
    }
    Ok(())
}

/// Takes all that comes, and gives its port.
async fn sink() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 18];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    Ok(port)
}

async fn start(world: &World, scenario: &Scenario, role: &str, sink: u16) -> Result<Agent> {
    let mut files = vec![("attack.py".to_owned(), PROGRAM.to_owned())];
    let mut spec = json!({
        "entry": ["/usr/bin/python3", "-B", "/workspace/attack.py", scenario.rule.replace('-', "_"), role],
        "env": { "SINK": sink.to_string() },
        "capabilities": { "subprocess": true, "filesystem": true },
        "resources": { "cpu": "2", "mem": "512Mi", "pids": scenario.pids },
    });
    if scenario.network {
        spec["network"] = json!("host");
        spec["capabilities"]["network"] = json!(true);
    }
    if scenario.rule == "canary-touched" {
        spec["syscalls"] = json!(["fs.read"]);
        files.extend(sdk(&world.clone)?);
    }
    world.start(&format!("{}-{role}", scenario.rule), &files, spec).await
}

/// aion_sdk, which wants nothing besides Python.
fn sdk(clone: &Path) -> Result<Vec<(String, String)>> {
    let folder = clone.join("sdk/python/aion_sdk");
    let mut files = Vec::new();
    for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        if path.extension().is_some_and(|kind| kind == "py") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push((format!("aion_sdk/{name}"), fs::read_to_string(&path)?));
        }
    }
    Ok(files)
}

async fn act(world: Arc<World>, scenario: &'static Scenario, sink: u16) -> Result<Caught> {
    let agent = start(&world, scenario, "act", sink).await?;
    let (mut acted_ns, mut hindered) = (None, None);
    if scenario.rule == "privilege-change" {
        acted_ns = Some(now_ns());
        hindered = privileges::change(&agent.look().await?.cgroup).await.err();
    }
    let begun = Instant::now();
    let mut found = None;
    while found.is_none() && begun.elapsed() < Duration::from_secs(scenario.seconds) {
        tokio::time::sleep(LOOK).await;
        found = agent.findings().await?.into_iter().find(|one| one.rule == scenario.rule);
    }
    if acted_ns.is_none() {
        acted_ns = agent.acted_ns().await?;
    }
    let mut caught = judge(&agent, scenario, acted_ns, found).await?;
    caught.faults.extend(hindered.map(|error| format!("{error:#}")));
    let word = if caught.times.is_some() { "caught" } else { "MISSED" };
    eprintln!("{}: {word}", scenario.rule);
    agent.remove().await?;
    Ok(caught)
}

async fn judge(
    agent: &Agent,
    scenario: &'static Scenario,
    acted_ns: Option<i128>,
    found: Option<Finding>,
) -> Result<Caught> {
    let mut caught = Caught { scenario, times: None, action: String::new(), faults: Vec::new() };
    let (Some(found), Some(acted_ns)) = (found, acted_ns) else {
        let others: Vec<String> = agent.findings().await?.into_iter().map(|one| one.rule).collect();
        let said = agent.said().await?;
        let state = agent.look().await?.state;
        caught
            .faults
            .push(format!("missed: {} is {state}, found were {others:?}, it said {said:?}", agent.id));
        return Ok(caught);
    };
    caught.action.clone_from(&found.action);
    // An alert is the record itself.
    let done_ns = match kind(&found.action) {
        None => Some(found.told_ns),
        Some(_) if found.result != "done" => None,
        Some(kind) => agent.records(kind).await?.first().map(time_ns),
    };
    let Some(done_ns) = done_ns else {
        caught.faults.push(format!("found, but {} is {}", found.action, found.result));
        return Ok(caught);
    };
    caught.times = Some([found.event_ns, done_ns, found.told_ns].map(|at_ns| millis(at_ns - acted_ns)));
    Ok(caught)
}

/// What an action is recorded as by whoever does it.
fn kind(action: &str) -> Option<&'static str> {
    match action {
        "freeze" => Some("agent.frozen"),
        "throttle" => Some("agent.throttled"),
        "isolate_network" => Some("agent.isolated"),
        "kill" => Some("agent.killed"),
        _ => None,
    }
}

/// What comes near, to its end and until it would have been told. Gives the rule, and what is wrong.
async fn near(
    world: Arc<World>,
    scenario: &'static Scenario,
    sink: u16,
) -> Result<(&'static str, Option<String>)> {
    let agent = start(&world, scenario, "near", sink).await?;
    let begun = Instant::now();
    let mut done = false;
    while !done && begun.elapsed() < Duration::from_secs(scenario.seconds) {
        tokio::time::sleep(LOOK).await;
        done = agent.said().await?.lines().any(|line| line == "done");
    }
    tokio::time::sleep(SETTLE).await;
    let found = agent.findings().await?.into_iter().find(|one| one.rule == scenario.rule);
    let fault = match found {
        Some(found) => Some(format!("what only comes near is found, too: {}", found.evidence)),
        None if !done => Some(format!("what comes near does not end; it said {:?}", agent.said().await?)),
        None => None,
    };
    agent.remove().await?;
    Ok((scenario.rule, fault))
}

fn tell(caught: &[Caught], report: &mut Report) {
    let rows: Vec<Vec<String>> = caught
        .iter()
        .map(|one| {
            let word = if one.times.is_some() { "yes" } else { "NO" };
            let near = if one.faults.is_empty() || one.times.is_none() { "" } else { "FAULT" };
            let mut row =
                [one.scenario.rule, one.scenario.what, word, one.action.as_str()].map(str::to_owned).to_vec();
            row.extend(one.times.iter().flatten().map(|ms| format!("{ms:.0}")));
            row.resize(7, "-".to_owned());
            row.push(near.to_owned());
            row
        })
        .collect();
    let header = ["rule", "scenario", "caught", "action", "event ms", "acted ms", "told ms", "near"];
    table::print(&header, &rows);
    let times: Vec<[f64; 3]> = caught.iter().filter_map(|one| one.times).collect();
    report.value("attacks: scenarios", "", count(caught.len()));
    report.at_most("attacks: missed", "", count(caught.len() - times.len()), 0.0);
    let after: Vec<f64> = times.iter().map(|[event, acted, _]| acted - event).collect();
    if !after.is_empty() {
        report.samples("attacks: from the event that told to the action", "ms", &after);
    }
}

fn now_ns() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(now.as_nanos()).unwrap_or(i128::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "minutes at most")]
fn millis(ns: i128) -> f64 {
    ns as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a few")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_has_its_program_and_its_rule() {
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/detections");
        let mut shipped = 0;
        for file in fs::read_dir(rules).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(names().any(|rule| rule == name), "{name} has no scenario");
            shipped += 1;
        }
        assert_eq!(SCENARIOS.len(), shipped);
        for scenario in SCENARIOS {
            let program = format!("def {}(near):", scenario.rule.replace('-', "_"));
            assert!(PROGRAM.contains(&program), "{program}");
        }
    }

    #[test]
    fn times_are_told_in_milliseconds() {
        assert!((millis(1_500_000) - 1.5).abs() < f64::EPSILON);
        assert_eq!((kind("alert"), kind("kill")), (None, Some("agent.killed")));
    }
}
