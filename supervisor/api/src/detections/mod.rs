//! Detections: the audit log's records of agents go through the engine, and what it finds is acted upon and recorded.
//!
//! ```text
//! audit log ─feed─▶ Engine ─Finding─▶ act ─▶ launcher (freeze, throttle, isolate, kill) ─▶ record detection.finding ─alert─▶ webhooks
//! launcher's figures ─sample─┘
//! ```
//! A cursor of its own says what was looked at, so that a new daemon goes on where the last one ended; what a window needs of the
//! time before is read once more, in silence. Neighbours: `aion-detect` decides, `aion-manifest` reads the rules.

mod act;
mod alert;
mod feed;
mod figures;
mod sample;
mod service;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aion_detect::{Engine, Finding, KindId, Rule, SAMPLE};
use aion_store::{Batch, Durability};
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::clock::now_ns;
use crate::core::Core;
use feed::{Fed, Feed};
use figures::Figures;
use sample::Samples;

/// The rules, or why they are not taken.
pub type ReloadedRules = Result<Vec<Rule>, String>;
/// Reads the rules.
pub type ReloadRules = Box<dyn Fn() -> ReloadedRules + Send + Sync>;

/// Without news the log is looked at this often.
const LOOK: Duration = Duration::from_secs(2);
/// Agents' figures are looked at this often, while a rule asks for them.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Actions have so long before what comes next is looked at; they go on by themselves.
const ACT_PATIENCE: Duration = Duration::from_secs(2);

/// A finding and the event that was the last it took.
struct Found {
    finding: Finding,
    kind: &'static str,
    detail: Map<String, Value>,
}

struct State {
    engine: Engine,
    loaded_ns: u64,
    cursor: u64,
    figures: Figures,
}

/// The detections. One per daemon.
#[derive(Default)]
pub(crate) struct Detections {
    state: OnceLock<Mutex<State>>,
    reload: OnceLock<ReloadRules>,
}

impl Detections {
    /// Reads the rules for the first time.
    pub(crate) fn start(&self, reload: ReloadRules) -> Result<usize, String> {
        let rules = reload()?;
        let count = rules.len();
        tracing::info!(rules = count, "detections");
        let engine = Engine::new(rules);
        let state = State { engine, loaded_ns: now_ns(), cursor: 0, figures: Figures::default() };
        let _ = self.state.set(Mutex::new(state));
        let _ = self.reload.set(reload);
        Ok(count)
    }

    /// Reads the rules again. What is wrong changes nothing.
    pub(crate) fn reload(&self) -> ReloadedRules {
        let reload = self.reload.get().ok_or("detections are not served")?;
        let rules = reload().inspect_err(|_| {
            if let Some(mut state) = self.lock() {
                state.figures.refused_reloads += 1;
            }
        })?;
        if let Some(mut state) = self.lock() {
            state.engine.replace(rules.clone());
            state.loaded_ns = now_ns();
        }
        tracing::info!(rules = rules.len(), "detections were read again");
        Ok(rules)
    }

    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.state.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wants(&self, kind: &str) -> bool {
        let kind = KindId::parse(kind);
        self.lock().zip(kind).is_some_and(|(state, kind)| state.engine.wants(kind))
    }

    /// For Prometheus.
    pub(crate) fn metrics(&self) -> String {
        self.lock().map_or_else(String::new, |state| state.figures.text(&state.engine))
    }
}

impl Core {
    /// The first time ever, what happened before nobody looked is history. From then on nothing is passed over, so this is
    /// written down before anything new is indexed.
    pub(crate) fn begin_to_detect(&self) -> Result<(), String> {
        let store = &self.store;
        if store.detected().map_err(|error| error.to_string())?.is_some() {
            return Ok(());
        }
        let mut batch = Batch::bookkeeping();
        batch.detected(store.cursor().map_err(|error| error.to_string())?);
        store.commit(batch, Durability::Process).map_err(|error| error.to_string())
    }

    /// Looks at what happens, until shutdown.
    pub(crate) async fn detect(self: Arc<Self>) {
        if self.detections.state.get().is_none() {
            return;
        }
        let mut indexed = self.indexed.subscribe();
        let mut feed = Some(Feed::new(self.audit_dir()));
        let mut samples = Samples::default();
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let more = match self.step(&mut feed).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(error, "detections cannot read the audit log");
                    feed = Some(Feed::new(self.audit_dir()));
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            if more {
                continue;
            }
            tokio::select! {
                _ = indexed.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
                _ = ticks.tick() => {
                    if let Some(mut state) = self.detections.lock() {
                        state.engine.tidy(now_ns());
                    }
                    if self.detections.wants(SAMPLE) {
                        let found = self.sample_all(&mut samples).await;
                        self.act_upon(found).await;
                    }
                }
            }
        }
    }

    /// One batch of records. Answers whether there are more.
    async fn step(self: &Arc<Self>, feed: &mut Option<Feed>) -> Result<bool, String> {
        let core = Arc::clone(self);
        let mut taken = feed.take().unwrap_or_else(|| Feed::new(self.audit_dir()));
        let step = tokio::task::spawn_blocking(move || {
            let fed = taken.step(&core);
            (taken, fed)
        });
        let (back, fed) = step.await.map_err(|error| format!("it did not run to its end: {error}"))?;
        *feed = Some(back);
        let Fed { found, cursor, moved, more } = fed?;
        self.act_upon(found).await;
        if moved {
            let mut batch = Batch::bookkeeping();
            batch.detected(cursor);
            self.store.commit(batch, Durability::Process).map_err(|error| error.to_string())?;
        }
        Ok(more)
    }

    /// Acts upon findings, side by side. One that hangs holds nothing up for long.
    async fn act_upon(self: &Arc<Self>, found: Vec<Found>) {
        let mut acting = JoinSet::new();
        for one in found {
            let core = Arc::clone(self);
            acting.spawn(async move { core.act(one).await });
        }
        let deadline = Instant::now() + ACT_PATIENCE;
        while let Ok(Some(_)) = timeout_at(deadline, acting.join_next()).await {}
        acting.detach_all();
    }
}
