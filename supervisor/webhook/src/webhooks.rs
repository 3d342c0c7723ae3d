//! The queues between who finds something and the webhooks.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_detect::Severity;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::alert::Alert;
use crate::figures::{self, Counters};
use crate::post::Post;
use crate::schedule::Limits;
use crate::settings::{Error, Webhook};
use crate::worker::{Undelivered, Waiting, Worker};

/// Alerts that were given up and are not written down yet.
const UNDELIVERED: usize = 256;

/// A webhook and its queue.
#[derive(Debug)]
struct Line {
    webhook: Webhook,
    queue: mpsc::Sender<Arc<Alert>>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Inner {
    lines: Vec<Line>,
    ending: watch::Sender<bool>,
    workers: Mutex<JoinSet<()>>,
    undelivered: tokio::sync::Mutex<mpsc::Receiver<Undelivered>>,
}

/// Takes alerts. Cheap to clone; without a webhook it takes none.
#[derive(Debug, Clone, Default)]
pub struct Webhooks(Option<Arc<Inner>>);

impl Webhooks {
    /// Begins to send. On a runtime. `host` is what receivers know this host by.
    ///
    /// # Errors
    /// When a webhook cannot be used.
    pub fn start(webhooks: Vec<Webhook>, host: &str) -> Result<Self, Error> {
        Self::start_within(webhooks, host, Limits::default())
    }

    fn start_within(webhooks: Vec<Webhook>, host: &str, limits: Limits) -> Result<Self, Error> {
        if webhooks.is_empty() {
            return Ok(Self::default());
        }
        let ending = watch::Sender::new(false);
        let (given_up, undelivered) = mpsc::channel(UNDELIVERED);
        let (mut lines, mut workers) = (Vec::new(), JoinSet::new());
        let host: Arc<str> = host.into();
        for webhook in webhooks {
            let (queue, alerts) = mpsc::channel(limits.queue.max(1));
            let counters = Arc::new(Counters::default());
            let worker = Worker {
                name: webhook.name.clone(),
                host: Arc::clone(&host),
                post: Post::new(&webhook)?,
                limits,
                counters: Arc::clone(&counters),
                ending: ending.subscribe(),
                undelivered: given_up.clone(),
                line: Waiting::default(),
            };
            workers.spawn(worker.run(alerts));
            lines.push(Line { webhook, queue, counters });
        }
        let (workers, undelivered) = (Mutex::new(workers), tokio::sync::Mutex::new(undelivered));
        Ok(Self(Some(Arc::new(Inner { lines, ending, workers, undelivered }))))
    }

    fn lines(&self) -> &[Line] {
        self.0.as_ref().map_or(&[], |inner| inner.lines.as_slice())
    }

    /// Whether anybody wants to know what this rule finds: for what nobody does, no alert needs to be made.
    #[must_use]
    pub fn want(&self, severity: Severity, rule: &str) -> bool {
        self.lines().iter().any(|line| line.webhook.wants(severity, rule))
    }

    /// Tells whoever wants to know. Never waits.
    pub fn tell(&self, alert: Alert) {
        let alert = Arc::new(alert);
        for line in self.lines().iter().filter(|line| line.webhook.wants(alert.severity, &alert.rule)) {
            let counters = &line.counters;
            // Before it is in the queue: the worker may be done with it at once.
            counters.waiting.fetch_add(1, Relaxed);
            match line.queue.try_send(Arc::clone(&alert)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    counters.settle(&counters.dropped);
                    if counters.untold.fetch_add(1, Relaxed) == 0 {
                        let webhook = &line.webhook.name;
                        tracing::warn!(webhook, "its queue is full: alerts are dropped until there is room");
                    }
                }
                Err(TrySendError::Closed(_)) => counters.settle(&counters.lost),
            }
        }
    }

    /// The next alert that was given up; none when there will be no more. One caller at a time.
    pub async fn undelivered(&self) -> Option<Undelivered> {
        let inner = self.0.as_ref()?;
        inner.undelivered.lock().await.recv().await
    }

    /// For Prometheus; nothing without a webhook.
    #[must_use]
    pub fn metrics(&self) -> String {
        let lines = self.lines();
        if lines.is_empty() {
            return String::new();
        }
        let all: Vec<_> = lines.iter().map(|line| (line.webhook.name.as_str(), &*line.counters)).collect();
        figures::text(&all)
    }

    /// Tries what waits once more, but no longer than that, and says what is lost. Nothing is told afterwards.
    pub async fn finish(&self, within: Duration) {
        let Some(inner) = &self.0 else { return };
        inner.ending.send_replace(true);
        let mut workers = std::mem::take(&mut *inner.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while workers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(within, all).await;
        workers.shutdown().await;
        for line in &inner.lines {
            // What is told at this moment takes itself out.
            let left = line.counters.waiting.load(Relaxed);
            line.counters.waiting.fetch_sub(left, Relaxed);
            let lost = line.counters.lost.fetch_add(left, Relaxed).saturating_add(left);
            if lost > 0 {
                let webhook = &line.webhook.name;
                tracing::warn!(
                    webhook,
                    lost,
                    "alerts were not delivered before the end; the audit log has the findings"
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
