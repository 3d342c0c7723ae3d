//! From the request to the first instruction; and the launcher's own part against its floor.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Scale;
use crate::aion::Aion;
use crate::peers::Peer;
use crate::report::Report;
use crate::tools;

pub(crate) async fn measure(aion: &Aion, scale: Scale, report: &mut Report) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().join("workspace");
    std::fs::create_dir(&folder)?;
    // Contenders read it as another user.
    open_to_all(scratch.path())?;
    open_to_all(&folder)?;
    let stamp = tools::compile(&folder, "stamp", tools::STAMP)?;
    let floor = tools::compile(scratch.path(), "clone6", tools::CLONE6)?;

    let (peers, skipped) = Peer::all(scratch.path(), &stamp);
    for what in skipped {
        report.skip(what);
    }

    let (mut start, mut whole, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_peers: Vec<Vec<f64>> = peers.iter().map(|_| Vec::new()).collect();
    let mut floors = Vec::new();
    for round in 0..scale.starts {
        let began = tools::now_ns();
        let agent =
            aion.register(&format!("start-{round}"), &["/workspace/stamp"], "events", Some(&folder)).await?;
        let asked = tools::now_ns();
        aion.start(&agent.id).await?;
        let ended = aion.wait(&agent.id).await?;
        ensure!(ended.exit.is_some_and(|exit| exit.code == 0), "the stamp agent failed: {}", ended.message);
        let output = aion.stdout(&agent.id).await?;
        start.push(tools::stamp_us(asked, &output)?);
        whole.push(tools::stamp_us(began, &output)?);
        own.push(Duration::from_nanos(ended.launch_ns).as_secs_f64() * 1e6);
        aion.remove(&agent.id).await?;

        for (peer, samples) in peers.iter().zip(&mut of_peers) {
            let began = tools::now_ns();
            let output = peer.run(&stamp, &round.to_string())?;
            samples.push(tools::stamp_us(began, &output.stdout)?);
        }
        floors.push(clone6(&floor)?);
    }

    let start = report.samples("start: API request to first instruction", "us", &start);
    report.samples("start: register and start to first instruction", "us", &whole);
    for (peer, samples) in peers.iter().zip(&of_peers) {
        let name = peer.name();
        let median = report.samples(format!("start: {name}"), "us", samples);
        let goal = match name {
            "crun" => 3.5,
            "runc" => 10.0,
            _ => 1.0,
        };
        report.at_least(format!("start: {name} / AION"), "ratio", median / start, goal);
    }
    let floor = report.samples("floor: clone with six namespaces and exec", "us", &floors);
    let own = report.samples("start: the launcher's own part", "us", &own);
    report.at_most("start: launcher's own part / floor", "ratio", own / floor, 2.0);
    Ok(())
}

fn clone6(program: &std::path::Path) -> Result<f64> {
    let output = Command::new(program).arg("1").output().context("clone6")?;
    ensure!(output.status.success(), "clone6: {}", String::from_utf8_lossy(&output.stderr).trim());
    let ns: f64 =
        String::from_utf8_lossy(&output.stdout).trim().parse().context("clone6 printed no number")?;
    Ok(ns / 1e3)
}

pub(crate) fn open_to_all(folder: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
