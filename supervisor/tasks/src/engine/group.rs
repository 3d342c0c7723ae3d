//! A group: what came of several pieces of work, written as one batch, and what follows once it is on disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use aion_scheduler::{Applied, Effect, Event, Scheduler, TaskNumber, TaskView, keys};
use aion_task_journal::{Batch, Checkpoint, EndedTask, Error as JournalError};
use tokio::sync::{broadcast, watch};

use super::apply::Bodies;
use crate::audit::Audit;
use crate::clock::now_ms;
use crate::convert;
use crate::effects::{Deed, Deeds};
use crate::error::Error;
use crate::metrics::Metrics;

/// Runs when the group is on disk, or is not.
pub(super) type Settle = Box<dyn FnOnce(Option<&Error>) + Send>;

pub(super) struct Group {
    pub(super) now: u64,
    pub(super) out: Applied,
    pub(super) bodies: Vec<(TaskNumber, Arc<[u8]>)>,
    pub(super) results: Vec<(TaskNumber, Vec<u8>)>,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) settles: Vec<Settle>,
    deeds: Vec<Deed>,
}

/// What is left of a group while it is written.
pub(super) struct Rest {
    events: Vec<Event>,
    settles: Vec<Settle>,
    deeds: Vec<Deed>,
}

impl Group {
    pub(super) fn begin() -> Self {
        Self {
            now: now_ms(),
            out: Applied::default(),
            bodies: Vec::new(),
            results: Vec::new(),
            checkpoints: Vec::new(),
            settles: Vec::new(),
            deeds: Vec::new(),
        }
    }

    pub(super) fn answers_nothing(&self) -> bool {
        self.settles.is_empty() && self.deeds.is_empty()
    }

    /// Gives each assignment the body that is still in memory.
    pub(super) fn attach_bodies(&mut self, bodies: &mut Bodies) {
        for effect in std::mem::take(&mut self.out.effects) {
            let body = match &effect {
                Effect::Assign { task, .. } => bodies.take(*task),
                _ => None,
            };
            self.deeds.push(Deed { effect, body });
        }
    }

    pub(super) fn batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        for event in &self.out.events {
            batch.event(event.seq, event.task.0, event.previous, &event.encode());
        }
        let mut ended: HashMap<u64, EndedRows<'_>> = HashMap::new();
        for row in &self.out.rows {
            match (&row.value, row.key.first()) {
                (Some(value), Some(&keys::ENDED)) => {
                    if let Some(task) = row.key.last_chunk::<8>().map(|n| u64::from_be_bytes(*n)) {
                        ended.entry(task).or_default().put(&row.key, value);
                    }
                }
                (Some(value), Some(&keys::ENDED_INDEX)) => {
                    if let Ok(index) = aion_scheduler::Ended::decode(value) {
                        ended.entry(index.number.0).or_default().put(&row.key, value);
                    }
                }
                (Some(value), _) => batch.put_row(&row.key, value),
                (None, _) => batch.delete_row(&row.key),
            }
        }
        if !ended.is_empty() {
            for event in &self.out.events {
                if let Some(rows) = ended.get_mut(&event.task.0) {
                    rows.first |= convert::is_last(&event.kind);
                }
            }
        }
        for (task, rows) in ended {
            let view = rows.rows.iter().find(|(key, _)| key.first() == Some(&keys::ENDED));
            let Some(Ok(view)) = view.map(|(_, value)| TaskView::decode(value)) else { continue };
            let ended_ms = view.finished.unwrap_or_default().max(1);
            let ended = EndedTask { task, ended_ms, last_event: view.last_event };
            // One that was cancelled while it ran comes a second time, when its process is gone.
            if rows.first {
                batch.end_task(ended, &rows.rows);
            } else {
                batch.end_task_again(ended, &rows.rows);
            }
        }
        for (task, body) in &self.bodies {
            batch.body(task.0, body);
        }
        for (task, result) in &self.results {
            batch.result(task.0, result);
        }
        for checkpoint in &self.checkpoints {
            batch.checkpoint(checkpoint);
        }
        // In this batch, not after it: what a task no longer needs goes with the reason for it.
        self.deeds.retain(|deed| match deed.effect {
            Effect::DropCheckpoints { task, below } => {
                batch.drop_checkpoints(task.0, below);
                false
            }
            _ => true,
        });
        batch
    }

    pub(super) fn rest(self) -> Rest {
        Rest { events: self.out.events, settles: self.settles, deeds: self.deeds }
    }
}

#[derive(Default)]
struct EndedRows<'a> {
    rows: Vec<(&'a [u8], &'a [u8])>,
    /// It ended in this group.
    first: bool,
}

impl<'a> EndedRows<'a> {
    /// Of a row that came twice the later one counts.
    fn put(&mut self, key: &'a [u8], value: &'a [u8]) {
        match self.rows.iter_mut().find(|(known, _)| *known == key) {
            Some(row) => row.1 = value,
            None => self.rows.push((key, value)),
        }
    }
}

/// Where things go that are on disk.
pub(crate) struct Outlets {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) events: broadcast::Sender<Arc<Vec<Event>>>,
    /// The newest event on disk.
    pub(crate) newest: watch::Sender<u64>,
    pub(crate) deeds: Sender<Deeds>,
}

impl Outlets {
    /// On the writer's thread, in the order of the groups.
    pub(super) fn arrived(
        &self,
        rest: Rest,
        written: &Result<(), Arc<JournalError>>,
        begun: Option<Instant>,
    ) {
        let Rest { events, settles, deeds } = rest;
        if let Err(error) = written {
            let error = Error::from(error);
            for settle in settles {
                settle(Some(&error));
            }
            return;
        }
        for settle in settles {
            settle(None);
        }
        if !deeds.is_empty() {
            // The effects' thread is gone only when everything ends.
            let _ = self.deeds.send(Deeds::Do(deeds));
        }
        if let Some(begun) = begun {
            self.metrics.committed(begun.elapsed());
        }
        if let Some(last) = events.last() {
            self.newest.send_replace(last.seq);
            self.audit.events(&events);
            if self.events.receiver_count() > 0 {
                let _ = self.events.send(Arc::new(events));
            }
        }
    }

    /// The core was made anew: what runs must be compared with it. Attempts of this epoch are not yet begun, and cannot be lost.
    pub(crate) fn rebooted(&self, core: &Scheduler) {
        let before = core.attempts().into_iter().filter(|view| view.attempt.epoch < core.epoch());
        let held = before.map(|view| {
            let taken = core.task_by_number(view.task).map_or(0, |task| task.checkpoints);
            (view, taken)
        });
        let _ = self.deeds.send(Deeds::Reconcile(held.collect()));
    }
}
