//! One webhook's task: an alert after the other, each until it is taken or given up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::alert::Alert;
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
}

impl Worker {
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Arc<Alert>>) {
        loop {
            let next = tokio::select! {
                // What is queued goes before the end.
                biased;
                alert = queue.recv() => alert,
                () = ended(&mut self.ending) => None,
            };
            let Some(alert) = next else { return };
            self.deliver(&alert).await;
        }
    }

    async fn deliver(&mut self, alert: &Alert) {
        // All tries send the same bytes, so that a receiver that has them already may compare.
        let dropped = self.counters.untold.swap(0, Relaxed);
        let body = Bytes::from(alert.body(&self.host, dropped));
        let begun = Instant::now();
        let mut tries = 0_u32;
        let why = loop {
            tries = tries.saturating_add(1);
            let (why, asked) = match self.post.send(&alert.id, body.clone()).await {
                Outcome::Delivered => {
                    self.counters.settle(&self.counters.delivered);
                    return;
                }
                Outcome::GiveUp { why } => break why,
                Outcome::Again { why, asked } => (why, asked),
            };
            let ending = *self.ending.borrow();
            if ending {
                self.counters.settle(&self.counters.lost);
                return;
            }
            let Some(pause) = self.limits.pause(tries, begun.elapsed(), asked, rand::random()) else {
                break why;
            };
            tracing::debug!(
                webhook = self.name,
                id = alert.id,
                tries,
                why,
                ?pause,
                "an alert is tried again"
            );
            tokio::select! {
                () = sleep(pause) => {}
                () = ended(&mut self.ending) => {}
            }
        };
        self.give_up(alert, dropped, tries, why);
    }

    fn give_up(&self, alert: &Alert, dropped: u64, tries: u32, why: String) {
        tracing::warn!(
            webhook = self.name,
            id = alert.id,
            rule = alert.rule,
            agent = alert.agent,
            tries,
            why,
            "an alert was given up; the audit log has the finding"
        );
        self.counters.untold.fetch_add(dropped, Relaxed);
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

/// Waits for the daemon's end.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // An error says that nobody is there to tell alerts any more.
    let _ = ending.wait_for(|ending| *ending).await;
}
