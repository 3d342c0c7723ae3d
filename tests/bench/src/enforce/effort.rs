//! What the daemons do: processor time they have taken, and when they have come to rest.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::world::World;

/// The unit of times in /proc, on every kernel of this architecture.
const TICK_MS: f64 = 10.0;
/// They rest when they take no more than a tenth of a processor for so long.
const LOOK: Duration = Duration::from_millis(300);
const AT_REST_MS: f64 = 30.0;
/// How long that may take, with a storm of events before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Processor time of both daemons until now, in milliseconds.
fn taken_ms(world: &World) -> Result<f64> {
    let mut all = 0.0;
    for pid in [world.daemons.aiond_pid()?, world.daemons.launcher_pid()?] {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        all += ticks(&stat).context("no times in /proc/PID/stat")? * TICK_MS;
    }
    Ok(all)
}

/// Waits until the daemons have done what there was to do; gives the processor time that they had taken by then.
pub(crate) async fn rest(world: &World, patience: Duration) -> Result<f64> {
    let (begun, mut before) = (Instant::now(), taken_ms(world)?);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = taken_ms(world)?;
        if now - before <= AT_REST_MS {
            return Ok(now);
        }
        if begun.elapsed() > patience {
            bail!("the daemons do not come to rest");
        }
        before = now;
    }
}

/// Of a process with all its threads, also those that have ended: in user mode and in the kernel.
fn ticks(stat: &str) -> Option<f64> {
    // The name before may hold anything but its own end.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace().skip(11);
    let mut word = || words.next()?.parse::<f64>().ok();
    Some(word()? + word()?)
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 1 0 5 1 2";
        assert!((ticks(stat).unwrap() - 281.0).abs() < f64::EPSILON);
        assert_eq!(ticks("7 (a) S 1"), None);
    }
}
