//! What being watched costs: a real workload at each audit mode, and under the tools people use today.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Scale;
use crate::aion::Aion;
use crate::launch::open_to_all;
use crate::report::{Report, percentile};

/// Times `git status` inside the agent, so that the start of the agent is not in the figure.
const TIMED: &str = r#"
import subprocess, sys, time
runs = int(sys.argv[1])
command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "status", "--porcelain"]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
for _ in range(runs):
    start = time.perf_counter_ns()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(time.perf_counter_ns() - start)
"#;

pub(crate) async fn measure(
    aion: &Aion,
    probe_cost: Option<&Path>,
    object: Option<&Path>,
    scale: Scale,
    report: &mut Report,
) -> Result<()> {
    match (probe_cost, object) {
        (Some(program), Some(object)) => probes(program, object, report)?,
        _ => report.skip("the probes' own cost: AION_PROBE_COST or AION_PROBES_OBJECT is not set"),
    }
    git_status(aion, scale, report).await
}

/// The probes' own cost, from the program that measures it.
fn probes(program: &Path, object: &Path, report: &mut Report) -> Result<()> {
    let output =
        Command::new(program).arg(object).stderr(Stdio::inherit()).output().context("the probes' cost")?;
    ensure!(output.status.success(), "{} failed", program.display());
    let values: Value = serde_json::from_slice(&output.stdout).context("the probes' cost is no JSON")?;
    let added = |name: &str| values["syscall_ns"][name]["added"].as_f64().unwrap_or(f64::NAN);
    for (name, key, goal) in [
        ("system call of a bystander, enforce mode: added", "bystander_enforce", 0.0),
        ("system call of a bystander, counting: added", "bystander_count", 100.0),
        ("system call of an agent, counted: added", "agent_count", 100.0),
        ("system call of a bystander, counting with sequences: added", "bystander_grams", 100.0),
        ("system call of an agent, counted with sequences: added", "agent_grams", 100.0),
        ("system call of an agent, with latency: added", "agent_latency", 350.0),
        ("system call of an agent, an event each: added", "agent_full", 240.0),
    ] {
        report.at_most(name, "ns", added(key), goal);
    }
    let spawn = values["fork_exec_ratio"]["agent"].as_f64().unwrap_or(f64::NAN);
    report.at_most("fork and exec with lineage / without probes", "ratio", spawn, 1.10);
    let rate = values["ring"]["events_per_s"].as_f64().unwrap_or(f64::NAN);
    report.at_least("ring buffer of 8 MiB: events taken", "per_s", rate, 2e6);
    report.value(
        "ring buffer of 8 MiB: dropped meanwhile",
        "",
        values["ring"]["dropped"].as_f64().unwrap_or(f64::NAN),
    );
    for (name, key) in [("storm of 10,000 processes", "storm"), ("the same, strict", "storm_strict")] {
        let count = |field: &str| values[key][field].as_f64().unwrap_or(f64::NAN);
        let missing = count("expected") - count("recorded") - count("dropped");
        report.at_most(format!("{name}: neither recorded nor counted as dropped"), "", missing, 0.0);
        report.value(format!("{name}: dropped"), "", count("dropped"));
    }
    Ok(())
}

async fn git_status(aion: &Aion, scale: Scale, report: &mut Report) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    open_to_all(scratch.path())?;
    let folder = scratch.path().join("tree");
    large_tree(&folder)?;
    let runs = scale.git.to_string();
    let argv = ["/usr/bin/python3", "-c", TIMED, &runs];
    let mut medians = Vec::new();
    for mode in ["events", "count", "latency", "full"] {
        let agent = aion.register(&format!("git-{mode}"), &argv, mode, Some(&folder)).await?;
        aion.start(&agent.id).await?;
        let ended = aion.wait(&agent.id).await?;
        let output = aion.stdout(&agent.id).await?;
        aion.remove(&agent.id).await?;
        ensure!(
            ended.exit.is_some_and(|exit| exit.code == 0),
            "git status failed in the agent: {}",
            ended.message
        );
        let samples: Vec<f64> = String::from_utf8_lossy(&output)
            .lines()
            .filter_map(|line| line.parse().ok())
            .map(|ns: f64| ns / 1e3)
            .collect();
        medians.push(report.samples(format!("git status, 20,000 files, audit {mode}"), "us", &samples));
    }
    if let [events, _, _, full] = medians[..] {
        report.at_most("git status: audited in full / events only", "ratio", full / events, 1.15);
    }
    peers(&folder, scale, report);
    Ok(())
}

/// The same command under strace and bpftrace, against the bare one.
fn peers(folder: &Path, scale: Scale, report: &mut Report) {
    const GIT: &str = "git -c safe.directory='*' -c core.fsmonitor=false status --porcelain >/dev/null";
    let counter = "tracepoint:raw_syscalls:sys_enter /comm == \"git\"/ { @[args->id] = count(); }";
    let contenders = [
        ("bare", GIT.to_owned()),
        ("strace -f -c", format!("strace -f -c -o /dev/null {GIT}")),
        (
            "bpftrace, counting",
            format!(
                "bpftrace -e '{counter}' -c '/bin/sh -c \"exec {}\"' >/dev/null",
                GIT.replace('"', "\\\"").replace('\'', "")
            ),
        ),
    ];
    let mut bare = f64::NAN;
    for (name, command) in contenders {
        let samples: Result<Vec<f64>> = (0..scale.git).map(|_| timed(folder, &command)).collect();
        match samples {
            Ok(samples) => {
                let median = percentile(&samples, 50.0);
                if name == "bare" {
                    bare = median;
                }
                report.samples(format!("git status outside, {name}"), "us", &samples);
                if name != "bare" {
                    report.value(format!("git status outside: {name} / bare"), "ratio", median / bare);
                }
            }
            Err(error) => report.skip(format!("git status under {name}: {error:#}")),
        }
    }
}

fn timed(folder: &Path, command: &str) -> Result<f64> {
    let began = Instant::now();
    let output = Command::new("sh").args(["-c", command]).current_dir(folder).output()?;
    let elapsed = crate::tools::micros(began.elapsed());
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(elapsed)
}

/// A repository with 20,000 small files in 200 folders, committed.
fn large_tree(folder: &Path) -> Result<()> {
    for number in 0..200 {
        let sub = folder.join(format!("d{number:03}"));
        std::fs::create_dir_all(&sub)?;
        for file in 0..100 {
            std::fs::write(sub.join(format!("f{file:03}.txt")), format!("{number} {file}\n"))?;
        }
    }
    let script =
        "git init -q . && git add -A && git -c user.name=bench -c user.email=bench@localhost commit -qm tree";
    let status = Command::new("sh").args(["-c", script]).current_dir(folder).status().context("git")?;
    ensure!(status.success(), "git could not commit the tree");
    Ok(())
}
