//! A state with many tasks: how long a backup of it takes, how long tasks wait for it, and how long after the loss of the state another
//! one serves that was restored from it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Size;
use super::aion::{Daemons, Seat, Settings};
use super::restart::{depth, fill};
use crate::report::Report;

const SETTINGS: Settings = Settings { slots: 1, min_run_ms: 0 };
const NAME: &str = "bench-backup";
/// Tasks that wait, of the many that a restart is measured with.
const PART: u32 = 10;

pub(crate) async fn measure(scratch: &Path, size: Size, report: &mut Report) -> Result<()> {
    let count = (size.queued / PART).max(1000);
    let archive = scratch.join("bench.backup");
    let daemons = Daemons::start(&scratch.join("backup"), SETTINGS).await?;
    let agent = daemons.held_door(NAME, 1).await?;
    // One task holds the only slot, so that all others wait.
    let mut door = Seat::new(&daemons.state(), &agent.id, 1).attach(Vec::new()).await?;
    fill(&daemons.client(), NAME, 1).await?;
    door.next().await?;
    fill(&daemons.client(), NAME, count).await?;
    let waiting = depth(&daemons.client()).await?;
    let (mut creates, mut pauses) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        let _ = std::fs::remove_file(&archive);
        let begun = Instant::now();
        let told = daemons.ctl(&["backup", "create", "-o", "json"], &archive)?;
        creates.push(begun.elapsed().as_secs_f64() * 1e3);
        let told: Value = serde_json::from_slice(&told).context("what the backup told")?;
        pauses.push(told["paused_ms"].as_f64().context("paused_ms is not in what the backup told")?);
    }
    let bytes = std::fs::metadata(&archive)?.len();
    drop(door);
    daemons.finish()?;
    let mut restores = Vec::new();
    for round in 0..size.rounds {
        let begun = Instant::now();
        let restored =
            Daemons::restored(&scratch.join(format!("restored-{round}")), SETTINGS, &archive).await?;
        restores.push(begun.elapsed().as_secs_f64() * 1e3);
        let found = depth(&restored.client()).await?;
        ensure!(found >= waiting, "{found} tasks of {waiting} are left");
        restored.finish()?;
    }
    report.samples(format!("backup create, {count} tasks wait"), "ms", &creates);
    report.samples("its moment: tasks wait", "ms", &pauses);
    #[expect(clippy::cast_precision_loss, reason = "a file's size")]
    report.value("the archive", "MiB", bytes as f64 / f64::from(1 << 20));
    report.samples(format!("restore until it serves, {count} tasks wait"), "ms", &restores);
    Ok(())
}
