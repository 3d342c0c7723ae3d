//! What agents use, for Prometheus: by tenant and agent, looked at when somebody asks, and at the end of each run.
//!
//! ```text
//! /metrics ─▶ look at what runs ─▶ launcher's figures ─┐
//! launcher's notices ─▶ a run is over ─────────────────┴▶ Sums ─▶ text
//! ```
//! Nobody who asks often costs more for it: what was seen is told for a while. Neighbour: `stats`, which shows one agent.

mod latency;
mod limits;
mod sums;
mod text;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aion_launcher_proto::v1 as launcher;
use aion_store::AgentRecord;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, timeout};

use crate::clock::now_ns;
use crate::core::Core;
use crate::tasks::{AGENT, ATTEMPT};
use limits::Limits;
use sums::{Bytes, Sums, Used};

pub(crate) use sums::Whose;

/// So long what was seen is told.
const FRESH: Duration = Duration::from_secs(10);
/// A scrape ends after ten seconds, and others wait for this one.
const PATIENCE: Duration = Duration::from_secs(3);
/// Agents that are looked at at once: the launcher's client has eight connections, which commands need, too.
const AT_ONCE: usize = 2;

/// The figures. One per daemon.
pub(crate) struct Figures {
    sums: Mutex<Sums>,
    /// When what runs was last looked at; held while it is.
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// The id that the last look came to: the next one begins behind it, so that those have their turn whom patience did not reach.
    reached: Mutex<String>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            sums: Mutex::new(Sums::new(now_ns())),
            looked: tokio::sync::Mutex::default(),
            reached: Mutex::default(),
        }
    }
}

impl Figures {
    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run is over: what it used after the last look is counted.
    fn ended(&self, state: &launcher::AgentState, whose: &Whose) {
        self.lock().ended(state, whose);
    }

    /// The launcher's table, as it was when the launcher was found.
    pub(crate) fn found(&self, table: &[launcher::AgentState]) {
        self.lock().found(table);
    }

    fn reached(&self) -> MutexGuard<'_, String> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Whose {
    /// The one that a record's figures are of.
    pub(crate) fn of(record: &AgentRecord) -> Self {
        let attempted = record.labels.get(AGENT).filter(|_| record.labels.contains_key(ATTEMPT));
        let agent = attempted.map_or_else(|| record.name.to_string(), String::clone);
        Self { tenant: record.tenant.to_string(), agent }
    }
}

impl Core {
    /// For Prometheus.
    pub(crate) async fn figures_text(&self) -> String {
        let mut looked = self.figures.looked.lock().await;
        if looked.is_none_or(|at| at.elapsed() >= FRESH) {
            // Where the launcher is away, what was seen before is told.
            let _ = timeout(PATIENCE, self.look_at_runs()).await;
            *looked = Some(Instant::now());
        }
        drop(looked);
        text::text(&self.figures.lock())
    }

    /// An agent's run may be over.
    pub(crate) fn figures_of_end(&self, state: &launcher::AgentState) {
        if state.state == "exited"
            && let Some(record) = self.record_of(state)
        {
            self.figures.ended(state, &Whose::of(&record));
        }
    }

    async fn look_at_runs(&self) {
        let Ok(table) = self.launcher.list().await else { return };
        self.figures.lock().keep(&table);
        // A tool's run has no record: it is its agent's caller who pays.
        let known = table.into_iter().filter_map(|state| Some((self.record_of(&state)?, state)));
        let mut known: Vec<_> = known.collect();
        known.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        let behind = known.partition_point(|(_, state)| state.id <= *self.figures.reached());
        known.rotate_left(behind);
        stream::iter(known)
            .for_each_concurrent(AT_ONCE, |(record, state)| async move {
                self.look_at_run(&record, &state).await;
                *self.figures.reached() = state.id;
            })
            .await;
    }

    async fn look_at_run(&self, record: &AgentRecord, state: &launcher::AgentState) {
        let whose = Whose::of(record);
        if state.state == "exited" {
            return self.figures.ended(state, &whose);
        }
        // It has ended since, or the launcher is away: the next look is at more.
        let Ok(stats) = self.launcher.stats(&state.id).await else { return };
        // Without its kernel's histograms there is nothing to tell of calls.
        let calls = if record.audit.starts_with("latency") {
            let Ok(calls) = self.launcher.counters(&state.id).await else { return };
            calls
        } else {
            Vec::new()
        };
        let bytes = Bytes { sent: stats.net_tx_bytes, received: stats.net_rx_bytes };
        let used = Used { bytes, calls: latency::of_counters(&calls) };
        let mut sums = self.figures.lock();
        sums.looked(state, &whose, &used);
        sums.limited(&whose, Limits::of(&stats.network));
    }
}
