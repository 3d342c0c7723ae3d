//! One webhook's task: an alert after the other, each until it is taken or given up.
//!
//! The pauses are the receiver's: they grow with each try that fails, whose alert it was, and end with one that it takes. An alert that
//! it fails on while it answers is set aside after a few tries, for what is wrong may be that alert alone.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::alert::Alert;
use crate::aside::{Aside, Trying};
use crate::figures::Counters;
use crate::post::{Outcome, Post};
use crate::schedule::Limits;

/// An alert that a webhook did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The webhook.
    pub webhook: String,
    /// The alert's id.
    pub id: String,
    /// The rule that found it.
    pub rule: String,
    /// The agent's tenant.
    pub tenant: String,
    /// The agent's id.
    pub agent: String,
    /// How often it was tried.
    pub tries: u32,
    /// How the last try went.
    pub why: String,
}

pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) host: Arc<str>,
    pub(crate) post: Post,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    /// True once the daemon ends: what waits is tried once.
    pub(crate) ending: watch::Receiver<bool>,
    pub(crate) undelivered: mpsc::Sender<Undelivered>,
    pub(crate) line: Waiting,
}

/// What a worker keeps between two tries.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    aside: Aside,
    /// One was set aside since one of the queue was tried: they take turns.
    fresh_first: bool,
    /// Tries in a row that the receiver did not take.
    failures: u32,
}

/// After a try that may go better later.
struct Failed {
    alert: Trying,
    /// The receiver answered: it may be this alert alone.
    answered: bool,
    /// Its own pause.
    pause: Duration,
    /// The receiver's: nothing is sent before.
    rest: Duration,
}

impl Worker {
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Arc<Alert>>) {
        let mut insisted_on = None;
        loop {
            let next = match insisted_on.take() {
                Some(alert) => Some(alert),
                None => self.next(&mut queue).await,
            };
            let Some(alert) = next else { return };
            let Some(failed) = self.attempt(alert).await else { continue };
            let Failed { mut alert, answered, pause, rest } = failed;
            if answered && alert.tries >= self.limits.insist {
                alert.due = Instant::now() + pause;
                self.set_aside(alert);
                self.rest(rest).await;
            } else {
                insisted_on = Some(alert);
                self.rest(pause.max(rest)).await;
            }
        }
    }

    /// What is tried next; none: the daemon ends, and nothing waits.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Arc<Alert>>) -> Option<Trying> {
        if !self.line.fresh_first
            && let Some(alert) = self.line.aside.take_due(Instant::now())
        {
            return Some(alert);
        }
        self.line.fresh_first = false;
        if let Ok(alert) = queue.try_recv() {
            return Some(self.begin(alert));
        }
        let due = self.line.aside.next_due();
        let fresh = tokio::select! {
            // What is queued goes before the end.
            biased;
            alert = queue.recv() => Some(alert?),
            () = until(due) => None,
            () = ended(&mut self.ending) => None,
        };
        match fresh {
            Some(alert) => Some(self.begin(alert)),
            // At the end nothing waits for its time.
            None => self.line.aside.take_due(Instant::now()).or_else(|| self.line.aside.take()),
        }
    }

    fn begin(&self, alert: Arc<Alert>) -> Trying {
        let dropped = self.counters.untold.swap(0, Relaxed);
        let body = Bytes::from(alert.body(&self.host, dropped));
        let begun = Instant::now();
        Trying { alert, body, dropped, begun, tries: 0, due: begun }
    }

    /// Tries it once; none: it was taken, or given up.
    async fn attempt(&mut self, mut alert: Trying) -> Option<Failed> {
        alert.tries = alert.tries.saturating_add(1);
        let (why, asked, answered) = match self.post.send(&alert.alert.id, alert.body.clone()).await {
            Outcome::Delivered => {
                self.line.failures = 0;
                self.counters.settle(&self.counters.delivered);
                return None;
            }
            Outcome::GiveUp { why } => {
                self.line.failures = 0;
                self.give_up(&alert, why);
                return None;
            }
            Outcome::Again { why, asked, answered } => (why, asked, answered),
        };
        if *self.ending.borrow() {
            self.counters.settle(&self.counters.lost);
            return None;
        }
        self.line.failures = self.line.failures.saturating_add(1);
        let rest = self.limits.rest(self.line.failures, asked, rand::random());
        let Some(pause) = self.limits.pause(alert.tries, alert.begun.elapsed(), asked, rand::random()) else {
            self.give_up(&alert, why);
            // The next one does not come sooner because this one is gone.
            self.rest(rest).await;
            return None;
        };
        tracing::debug!(
            webhook = self.name,
            id = alert.alert.id,
            tries = alert.tries,
            why,
            ?pause,
            "an alert is tried again"
        );
        Some(Failed { alert, answered, pause, rest })
    }

    fn set_aside(&mut self, alert: Trying) {
        self.line.fresh_first = true;
        if let Some(first) = self.line.aside.put(alert, self.limits.aside) {
            self.give_up(&first, "too many others wait to be tried again".to_owned());
        }
    }

    async fn rest(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = ended(&mut self.ending) => {}
        }
    }

    fn give_up(&self, given_up: &Trying, why: String) {
        let (alert, tries) = (&given_up.alert, given_up.tries);
        tracing::warn!(
            webhook = self.name,
            id = alert.id,
            rule = alert.rule,
            agent = alert.agent,
            tries,
            why,
            "an alert was given up; the audit log has the finding"
        );
        self.counters.untold.fetch_add(given_up.dropped, Relaxed);
        self.counters.settle(&self.counters.given_up);
        let undelivered = Undelivered {
            webhook: self.name.clone(),
            id: alert.id.clone(),
            rule: alert.rule.clone(),
            tenant: alert.tenant.clone(),
            agent: alert.agent.clone(),
            tries,
            why,
        };
        // Without room it is in the log alone: whoever writes these down is slow, and must hold up no alert.
        let _ = self.undelivered.try_send(undelivered);
    }
}

/// Waits for a time; without one for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits for the daemon's end.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // An error says that nobody is there to tell alerts any more.
    let _ = ending.wait_for(|ending| *ending).await;
}
