//! One round of load: so many tasks in flight, each from its durable submission to its durable end.
//!
//! Submitting clients take numbers here and workers hand them back; the place in the window is free again only when the
//! worker knows that the end is on disk. A contender decides how it gets both done. Tasks that end twice are counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::report::percentile;
use crate::schedule::Work;

/// More than any contender does in a round.
const CAPACITY: u32 = 1 << 21;
/// How long the last tasks of a round may take.
const DRAIN: Duration = Duration::from_secs(30);
/// What a task carries.
const PARAMS: usize = 200;
/// What it gives back.
pub(crate) const RESULT: usize = 100;
/// A place of a task that has ended.
const ENDED: u64 = u64::MAX;

/// A window of tasks and what became of them.
#[derive(Debug)]
pub(crate) struct Load {
    window: u32,
    places: Semaphore,
    /// Numbers handed out.
    next: AtomicU64,
    /// When each was, in nanoseconds since the start.
    begun: Vec<AtomicU64>,
    latencies: Mutex<Vec<f64>>,
    twice: AtomicU64,
    since: Instant,
    until: Instant,
    over: AtomicBool,
    stop: Notify,
}

/// What a round gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Tasks in a second, from the first submission to the last end.
    pub(crate) per_s: f64,
    /// Milliseconds from submission to the end.
    pub(crate) p50: f64,
    /// The same.
    pub(crate) p99: f64,
}

impl Load {
    fn new(window: u32, time: Duration) -> Self {
        let since = Instant::now();
        Self {
            window,
            places: Semaphore::new(window as usize),
            next: AtomicU64::new(0),
            begun: (0..CAPACITY).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::default(),
            twice: AtomicU64::new(0),
            since,
            until: since + time,
            over: AtomicBool::new(false),
            stop: Notify::new(),
        }
    }

    /// Numbers of tasks to be submitted now, at least one; none when the round is over.
    pub(crate) async fn next(&self, at_most: usize) -> Option<std::ops::Range<u32>> {
        let place = self.places.acquire().await.ok()?;
        if Instant::now() >= self.until {
            return None;
        }
        place.forget();
        let mut count = 1;
        while count < at_most.max(1) {
            let Ok(more) = self.places.try_acquire() else { break };
            more.forget();
            count += 1;
        }
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        let range = u32::try_from(first).ok()?..u32::try_from(first + count as u64).ok()?;
        if range.end > CAPACITY {
            return None;
        }
        let now = self.elapsed_ns();
        for number in range.clone() {
            self.begun[number as usize].store(now, Ordering::Relaxed);
        }
        Some(range)
    }

    /// These have ended, and it is on disk.
    pub(crate) fn ended(&self, numbers: impl IntoIterator<Item = u32>) {
        let now = self.elapsed_ns();
        let mut count = 0;
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            let Some(place) = self.begun.get(number as usize) else { continue };
            match place.swap(ENDED, Ordering::Relaxed) {
                ENDED => {
                    self.twice.fetch_add(1, Ordering::Relaxed);
                }
                begun => {
                    latencies.push(millis(now.saturating_sub(begun)));
                    count += 1;
                }
            }
        }
        drop(latencies);
        self.places.add_permits(count);
    }

    /// Whether workers go home.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Comes back when workers go home.
    pub(crate) async fn over(&self) {
        while !self.is_over() {
            let stop = self.stop.notified();
            if self.is_over() {
                return;
            }
            // Not a race to be lost: the notice may come between the two lines above.
            let _ = tokio::time::timeout(Duration::from_millis(20), stop).await;
        }
    }

    /// How many tasks one of `clients` has in a batch at most.
    pub(crate) fn share(&self, clients: usize) -> usize {
        (self.window as usize / clients).max(1)
    }

    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(ENDED - 1)
    }
}

/// A round: `contender` with `window` tasks in flight for `time`.
pub(crate) async fn round(contender: &dyn Contender, window: u32, time: Duration) -> Result<Outcome> {
    contender.prepare().await.with_context(|| format!("{} cannot begin", contender.name()))?;
    let load = Arc::new(Load::new(window, time));
    let (mut clients, mut workers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..contender.workers().min(window as usize) {
        workers.spawn(contender.work(Arc::clone(&load)));
    }
    for _ in 0..contender.clients().min(window as usize) {
        clients.spawn(contender.submit(Arc::clone(&load)));
    }
    let submitted = async {
        while let Some(client) = clients.join_next().await {
            client??;
        }
        let all = load.places.acquire_many(load.window);
        match tokio::time::timeout(DRAIN, all).await {
            Ok(_) => anyhow::Ok(()),
            Err(_) => bail!("{} tasks do not end", load.window as usize - load.places.available_permits()),
        }
    };
    tokio::select! {
        result = submitted => result,
        Some(worker) = workers.join_next() => {
            match worker {
                Ok(Ok(())) => Err(anyhow!("a worker went home early")),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(error.into()),
            }
        }
    }
    .with_context(|| contender.name().to_owned())?;
    let elapsed = load.since.elapsed();
    load.over.store(true, Ordering::Release);
    load.stop.notify_waiters();
    while let Some(worker) = workers.join_next().await {
        worker?.with_context(|| contender.name().to_owned())?;
    }
    let twice = load.twice.load(Ordering::Relaxed);
    ensure!(twice == 0, "{}: {twice} tasks ended twice", contender.name());
    let latencies = std::mem::take(&mut *load.latencies.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Outcome {
        per_s: per_second(latencies.len(), elapsed),
        p50: percentile(&latencies, 50.0),
        p99: percentile(&latencies, 99.0),
    })
}

/// Somebody who takes tasks durably, hands them out, and ends them durably.
pub(crate) trait Contender: Send + Sync {
    /// Its name in the report.
    fn name(&self) -> &str;

    /// Clients that submit, each with a connection of its own.
    fn clients(&self) -> usize {
        8
    }

    /// Workers, each with a connection of its own.
    fn workers(&self) -> usize;

    /// Makes it as empty as it was at the start.
    fn prepare(&self) -> Work {
        Box::pin(std::future::ready(Ok(())))
    }

    /// One client: submits what the load gives it until there is no more.
    fn submit(&self, load: Arc<Load>) -> Work;

    /// One worker: ends what it is given until the load is over.
    fn work(&self, load: Arc<Load>) -> Work;
}

/// A task's parameters: 200 bytes of JSON, the number where [`number`] finds it.
pub(crate) fn params(number: u32) -> String {
    let mut text = format!("{{\"n\":\"{number:010}\",\"text\":\"");
    while text.len() < PARAMS - 2 {
        text.push('x');
    }
    text.push_str("\"}");
    text
}

/// The number in [`params`].
pub(crate) fn number(params: &[u8]) -> Result<u32> {
    let digits = params.get(6..16).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).context("these are not the parameters of a task of ours")
}

/// A result of 100 bytes of JSON.
pub(crate) fn result() -> String {
    format!("{{\"text\":\"{}\"}}", "y".repeat(RESULT - 11))
}

#[expect(clippy::cast_precision_loss, reason = "a few million")]
pub(crate) fn per_second(count: usize, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few minutes")]
fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_sizes() {
        assert_eq!(params(7).len(), PARAMS);
        assert_eq!(number(params(1_234_567).as_bytes()).unwrap(), 1_234_567);
        assert_eq!(result().len(), RESULT);
        assert!(serde_json::from_str::<serde_json::Value>(&result()).is_ok());
    }

    #[tokio::test]
    async fn a_window_is_a_window() {
        let load = Load::new(4, Duration::from_secs(60));
        assert_eq!(load.next(3).await.unwrap(), 0..3);
        assert_eq!(load.next(3).await.unwrap(), 3..4);
        load.ended([1]);
        assert_eq!(load.next(3).await.unwrap(), 4..5);
        load.ended([1]);
        assert_eq!(load.twice.load(Ordering::Relaxed), 1);
    }
}
