//! What being watched costs: a real workload at each audit mode, and under the tools people use today.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

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
    scale: Scale,
    report: &mut Report,
) -> Result<()> {
    match probe_cost {
        Some(program) => probes(program, report)?,
        None => report.skip("the probes' own cost: AION_PROBE_COST is not set"),
    }
    git_status(aion, scale, report).await
}

/// The probes' own cost, from the program that measures it.
fn probes(program: &Path, report: &mut Report) -> Result<()> {
    let output = Command::new(program).stderr(Stdio::inherit()).output().context("the probes' cost")?;
    ensure!(output.status.success(), "{} failed", program.display());
    let text = String::from_utf8(output.stdout)?;
    let values: serde_json::Value = serde_json::from_str(&text).context("the probes' cost is no JSON")?;
    flatten("probes", &values, report);
    Ok(())
}

fn flatten(name: &str, value: &serde_json::Value, report: &mut Report) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{name}: {key}"), value, report);
            }
        }
        serde_json::Value::Number(number) => {
            report.value(name, "", number.as_f64().unwrap_or(f64::NAN));
        }
        _ => {}
    }
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
                "bpftrace -e '{counter}' -c 'sh -c \"exec {}\"' >/dev/null",
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
