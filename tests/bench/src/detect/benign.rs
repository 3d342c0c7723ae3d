//! What agents are for: ten workloads, each a real agent that does its work again and again for as long as is asked. Of none of them may
//! anything above `info` be found, and nothing may be taken from them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_client::api;
use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::agents::{Finding, World};
use super::attacks::count;
use super::table;
use crate::report::Report;
use crate::schedule::process::{Server, until};

const MIRROR: &str = include_str!("work/mirror.py");
/// Who the mirror runs as.
const NOBODY: (u32, u32) = (65534, 65534);
/// Between two looks, and two handfuls of tasks.
const LOOK: Duration = Duration::from_secs(1);
const TASKS: u32 = 4;
/// What is told at the latest after the last act.
const SETTLE: Duration = Duration::from_secs(25);
/// Debian's /usr/bin/chromium is a script that reads files of /etc; the program is this one.
const BROWSERS: [&str; 3] = ["/usr/lib/chromium/chromium", "/usr/bin/chromium", "/usr/bin/google-chrome"];

/// A workload.
#[derive(Debug)]
struct Workload {
    name: &'static str,
    /// The program and its file in the workspace.
    program: [&'static str; 2],
    text: &'static str,
    /// What of the host's it works with.
    needs: &'static [&'static str],
    /// With the host's network, for its loopback.
    network: bool,
}

const SH: &str = "/bin/sh";
const PYTHON: &str = "/usr/bin/python3";
const WORKER: &str = "sdk-tasks";
const MIRRORED: &str = "npm-install";
const BROWSER: &str = "chromium";

macro_rules! workload {
    ($name:expr, $program:expr, $file:literal, $needs:expr, $network:literal) => {
        Workload {
            name: $name,
            program: [$program, $file],
            text: include_str!(concat!("work/", $file)),
            needs: $needs,
            network: $network,
        }
    };
}

const WORKLOADS: &[Workload] = &[
    workload!("git-build", SH, "clone.sh", &["git", "make", "cc"], false),
    workload!(MIRRORED, SH, "npm.sh", &["node", "npm"], true),
    workload!("python-data", PYTHON, "data.py", &["gzip"], false),
    workload!("compiler", SH, "compile.sh", &["cc", "strip"], false),
    workload!("test-runner", SH, "tests.sh", &[], false),
    workload!(BROWSER, SH, "pages.sh", &[], false),
    workload!("shell-pipeline", SH, "pipeline.sh", &["find", "tar", "awk"], false),
    workload!(WORKER, PYTHON, "worker.py", &[], false),
    workload!("node-http", "/usr/bin/node", "http.js", &["node"], true),
    workload!("archive", SH, "archive.sh", &["tar", "gzip", "diff"], false),
];

/// What the host gives the workloads.
#[derive(Debug, Default)]
struct Given {
    registry: Option<String>,
    browser: Option<&'static str>,
    sdk: Option<String>,
}

/// What became of a workload.
#[derive(Debug)]
struct Worked {
    name: &'static str,
    seconds: u64,
    rounds: usize,
    findings: Vec<Finding>,
    /// Why it did not work to the end.
    stopped: Option<String>,
}

/// The names of the workloads.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    WORKLOADS.iter().map(|workload| workload.name)
}

/// Has those that are wanted work, so many at once. Gives what should not have been.
pub(crate) async fn run(
    world: &Arc<World>,
    wanted: &impl Fn(&str) -> bool,
    time: Duration,
    at_once: usize,
    report: &mut Report,
) -> Result<Vec<String>> {
    let mirror = if wanted(MIRRORED) && has("node") { Some(mirror(world).await?) } else { None };
    let given = Arc::new(Given {
        registry: mirror.as_ref().map(|(_, address)| address.clone()),
        browser: BROWSERS.into_iter().find(|file| Path::new(file).is_file()),
        sdk: std::env::var("AION_SDK").ok().filter(|folder| Path::new(folder).is_dir()),
    });
    let (turns, mut working) = (Arc::new(Semaphore::new(at_once)), JoinSet::new());
    for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        if let Some(why) = missing(workload, &given) {
            eprintln!("{}: skipped, {why}", workload.name);
            report.skip(format!("{}: {why}", workload.name));
            continue;
        }
        let (world, given, turns) = (Arc::clone(world), Arc::clone(&given), Arc::clone(&turns));
        working.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            // One that cannot be begun takes nothing from the others.
            let failed = |error: anyhow::Error| Worked {
                name: workload.name,
                seconds: 0,
                rounds: 0,
                findings: Vec::new(),
                stopped: Some(format!("{error:#}")),
            };
            anyhow::Ok(work(&world, workload, &given, time).await.unwrap_or_else(failed))
        });
    }
    let mut all = Vec::new();
    while let Some(one) = working.join_next().await {
        all.push(one??);
    }
    drop(mirror);
    Ok(tell(&all, report))
}

fn has(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|folder| Path::new(folder).join(program).exists())
}

fn missing(workload: &Workload, given: &Given) -> Option<String> {
    if let Some(program) = workload.needs.iter().find(|program| !has(program)) {
        return Some(format!("there is no {program}"));
    }
    match workload.name {
        BROWSER if given.browser.is_none() => Some("chromium is not installed".to_owned()),
        WORKER if given.sdk.is_none() => Some("there is no folder of the SDK (AION_SDK)".to_owned()),
        _ => None,
    }
}

/// A registry of npm's on the loopback, and its address.
async fn mirror(world: &World) -> Result<(Server, String)> {
    let log = world.folder.join("mirror.log");
    let mut command = Command::new(PYTHON);
    command.args(["-B", "-c", MIRROR]).current_dir("/");
    let mut server = Server::start(command, Some(NOBODY), &log)?;
    let port: u16 = until("the mirror's port", Duration::from_secs(20), async || {
        server.check()?;
        Ok(std::fs::read_to_string(&log)?.lines().next().and_then(|line| line.trim().parse().ok()))
    })
    .await?;
    Ok((server, format!("http://127.0.0.1:{port}")))
}

fn spec(workload: &Workload, given: &Given) -> Value {
    let [program, file] = workload.program;
    let mut spec = json!({
        "entry": [program, format!("/workspace/{file}")],
        "capabilities": { "filesystem": true, "subprocess": true },
        "resources": { "cpu": "2", "mem": "2Gi", "pids": 1024 },
    });
    if workload.network {
        spec["network"] = json!("host");
        spec["capabilities"]["network"] = json!(true);
    }
    match workload.name {
        MIRRORED => spec["env"] = json!({ "REGISTRY": given.registry }),
        BROWSER => {
            spec["env"] = json!({ "BROWSER": given.browser });
        }
        WORKER => {
            let sdk = given.sdk.as_deref().unwrap_or_default();
            spec["env"] = json!({ "PYTHONPATH": sdk });
            spec["capabilities"]["allow"] = json!([format!("fs:read:{sdk}/**")]);
            spec["tasks"] = json!(true);
            spec["concurrency"] = json!(TASKS);
            spec["checkpoint"] = json!({ "interval_ms": 1000 });
        }
        _ => {}
    }
    spec
}

async fn work(world: &World, workload: &Workload, given: &Given, time: Duration) -> Result<Worked> {
    let name = workload.name;
    let files = [(workload.program[1].to_owned(), workload.text.to_owned())];
    let agent = world.start(name, &files, spec(workload, given)).await?;
    eprintln!("{name}: begun");
    let begun = Instant::now();
    let mut stopped = None;
    while stopped.is_none() && begun.elapsed() < time {
        tokio::time::sleep(LOOK).await;
        if name == WORKER {
            submit(world).await?;
        }
        let state = agent.look().await?.state;
        if state != "running" && state != "starting" {
            stopped = Some(format!("it is {state}"));
        }
    }
    let seconds = begun.elapsed().as_secs();
    tokio::time::sleep(SETTLE).await;
    let findings = agent.findings().await?;
    let taken = agent.look().await?.restraints;
    let said = agent.said().await?;
    let rounds = said.lines().filter(|line| line.starts_with("round ")).count();
    if rounds == 0 && stopped.is_none() {
        stopped = Some("it came to no end of a round".to_owned());
    }
    if let Some(restraint) = taken.first() {
        stopped = Some(format!("it is {} by {}", restraint.kind, restraint.reason));
    }
    let stopped = stopped.map(|why| format!("{why}; it said last: {}", end(&said)));
    let above = findings.iter().filter(|found| found.severity != "info").count();
    eprintln!("{name}: {rounds} rounds in {seconds} s, {above} findings above info of {}", findings.len());
    agent.remove().await?;
    Ok(Worked { name, seconds, rounds, findings, stopped })
}

/// A handful of tasks, as many as are done until the next one comes.
async fn submit(world: &World) -> Result<()> {
    for _ in 0..TASKS {
        let task = api::TaskSpec {
            agent: WORKER.to_owned(),
            params_json: json!({ "steps": 50 }).to_string(),
            ..api::TaskSpec::default()
        };
        let request = api::SubmitRequest { task: Some(task), ..api::SubmitRequest::default() };
        world.client.submit_task(request).await?;
    }
    Ok(())
}

/// The last lines, without those of the rounds.
fn end(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("round ")).collect();
    lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
}

/// Prints what was found and gives what is a fault.
fn tell(all: &[Worked], report: &mut Report) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rows = Vec::new();
    let mut loud = 0;
    for one in all {
        let (told, above): (Vec<&Finding>, Vec<&Finding>) =
            one.findings.iter().partition(|found| found.severity == "info");
        loud += above.len();
        for found in &above {
            faults.push(format!(
                "{}: {} ({}, {}: {}) {}",
                one.name, found.rule, found.severity, found.action, found.result, found.evidence
            ));
        }
        faults.extend(one.stopped.iter().map(|why| format!("{}: {why}", one.name)));
        rows.push(vec![
            one.name.to_owned(),
            one.seconds.to_string(),
            one.rounds.to_string(),
            rules(&told),
            rules(&above),
        ]);
    }
    table::print(&["workload", "seconds", "rounds", "info", "above info"], &rows);
    report.value("workloads", "", count(all.len()));
    report.at_most("workloads: findings above info", "", count(loud), 0.0);
    faults
}

/// The rules, each once.
fn rules(found: &[&Finding]) -> String {
    let mut names: Vec<&str> = found.iter().map(|one| one.rule.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_ten_and_each_has_what_it_asks_for() {
        let mut all: Vec<&str> = names().collect();
        assert_eq!(all.len(), 10);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10);
        let given = Given {
            registry: Some("http://127.0.0.1:1".to_owned()),
            browser: Some("/usr/bin/chromium"),
            sdk: Some("/sdk".to_owned()),
        };
        for workload in WORKLOADS {
            let spec = spec(workload, &given);
            assert_eq!(spec["network"].is_string(), workload.network, "{}", workload.name);
            assert!(!spec.to_string().contains("null"), "{spec}");
        }
    }

    #[test]
    fn what_is_above_info_or_stood_still_is_a_fault() {
        let found = |rule: &str, severity: &str| Finding {
            rule: rule.to_owned(),
            severity: severity.to_owned(),
            action: "alert".to_owned(),
            result: "none".to_owned(),
            event_ns: 0,
            told_ns: 0,
            evidence: json!({}),
        };
        let worked = |findings, stopped: Option<&str>| Worked {
            name: "archive",
            seconds: 60,
            rounds: 1,
            findings,
            stopped: stopped.map(str::to_owned),
        };
        let quiet = worked(vec![found("exec-writable", "info"), found("exec-writable", "info")], None);
        assert!(tell(&[quiet], &mut Report::default()).is_empty());
        let loud = worked(vec![found("fork-rate", "medium")], Some("it is exited"));
        assert_eq!(tell(&[loud], &mut Report::default()).len(), 2);
        assert_eq!(end("round 1\nwhat\nround 2\nis wrong"), "what\nis wrong");
    }
}
