//! Agents that exit at once, two at a time, against bubblewrap doing the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Scale;
use crate::aion::Aion;
use crate::peers::Peer;
use crate::report::Report;

/// How many run at the same time.
const AT_ONCE: usize = 2;
/// One agent that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(30);

pub(crate) async fn measure(aion: &Aion, scale: Scale, report: &mut Report) -> Result<()> {
    let count = scale.instant;
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (aion, next) = (aion.clone(), Arc::clone(&next));
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                tokio::time::timeout(HANG, one(&aion, number)).await.context("an agent hangs")??;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let ours = rate(count, started.elapsed());

    let started = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| bubblewrap(count / AT_ONCE))).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    let theirs = rate(count, started.elapsed());

    report.value(format!("{count} instant exits, {AT_ONCE} at a time: AION"), "per_s", ours);
    report.value(format!("{count} instant exits, {AT_ONCE} at a time: bubblewrap"), "per_s", theirs);
    report.at_least("instant exits: AION / bubblewrap", "ratio", ours / theirs, 1.8);
    Ok(())
}

async fn one(aion: &Aion, number: usize) -> Result<()> {
    let agent = aion.register(&format!("instant-{number}"), &["/bin/true"], "events", None).await?;
    aion.start(&agent.id).await?;
    let ended = aion.wait(&agent.id).await?;
    let exit = ended.exit.with_context(|| format!("{} has no exit: {}", agent.id, ended.message))?;
    ensure!(exit.code == 0, "{} exited {}", agent.id, exit.code);
    aion.remove(&agent.id).await
}

fn bubblewrap(count: usize) -> Result<()> {
    for _ in 0..count {
        let output = Peer::Bubblewrap.run(Path::new("/usr/bin/true"), "")?;
        ensure!(output.status.success(), "bubblewrap: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand agents")]
fn rate(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
