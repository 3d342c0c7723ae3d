//! The end of an agent with a hundred processes, against a bare `cgroup.kill` of as many.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::Scale;
use crate::aion::Aion;
use crate::report::Report;
use crate::tools::micros;

const PROCESSES: usize = 100;
const SCRIPT: &str = "i=0; while [ $i -lt 99 ]; do sleep 1000 & i=$((i+1)); done; echo ready; wait";

pub(crate) async fn measure(aion: &Aion, scale: Scale, report: &mut Report) -> Result<()> {
    let Some(root) = unified_root() else {
        report.skip("stop: no cgroup v2 hierarchy");
        return Ok(());
    };
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..scale.stops {
        let agent =
            aion.register(&format!("stop-{round}"), &["/bin/sh", "-c", SCRIPT], "events", None).await?;
        let started = aion.start(&agent.id).await?;
        await_ready(aion, &agent.id).await?;
        let group = root.join(started.cgroup.trim_start_matches('/'));
        let began = Instant::now();
        aion.kill(&agent.id).await?;
        ours.push(micros(began.elapsed()));
        ensure!(members(&group)? == 0, "{} has survivors", agent.id);
        aion.remove(&agent.id).await?;
        bare.push(bare_kill(&root)?);
    }
    let ours = report.samples(format!("stop of {PROCESSES} processes: AION, through the API"), "us", &ours);
    let bare = report.samples(format!("stop of {PROCESSES} processes: bare cgroup.kill"), "us", &bare);
    report.at_most("stop: AION / bare", "ratio", ours / bare, 1.2);
    Ok(())
}

async fn await_ready(aion: &Aion, id: &str) -> Result<()> {
    for _ in 0..500 {
        if aion.stdout(id).await?.starts_with(b"ready") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("{id} does not become ready")
}

/// Makes a cgroup with as many processes, kills it, and waits until it is empty.
fn bare_kill(root: &Path) -> Result<f64> {
    let group = root.join(format!("aion-bench-{}", std::process::id()));
    std::fs::create_dir(&group).context("a cgroup of our own")?;
    let enter = format!("echo $$ > {}/cgroup.procs; {SCRIPT}", group.display());
    let mut child = Command::new("sh").args(["-c", &enter]).stdout(Stdio::null()).spawn()?;
    while members(&group)? < PROCESSES {
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = Instant::now();
    std::fs::write(group.join("cgroup.kill"), "1")?;
    child.wait()?;
    while members(&group)? > 0 {
        std::thread::yield_now();
    }
    let elapsed = micros(began.elapsed());
    std::fs::remove_dir(&group)?;
    Ok(elapsed)
}

fn members(group: &Path) -> Result<usize> {
    match std::fs::read_to_string(group.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        // A killed group's last reader sees ENODEV.
        Err(error) if error.raw_os_error() == Some(19) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn unified_root() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|root| root.join("cgroup.controllers").is_file())
}
