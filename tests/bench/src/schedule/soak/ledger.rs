//! What was acknowledged, and what was done: counted where it happens, on the agents' side.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// Tasks that may be under way at once.
const WINDOW: usize = 1024;

#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// Places for tasks under way.
    pub(crate) places: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    acknowledged: Vec<String>,
    effects: HashMap<String, u32>,
    reattached: u64,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), places: Semaphore::new(WINDOW) }
    }

    /// aiond said that it has this task.
    pub(crate) fn acknowledged(&self, task: &str) {
        self.lock().acknowledged.push(task.to_owned());
    }

    /// An agent has done what this task is for.
    pub(crate) fn effect(&self, task: &str) {
        let mut state = self.lock();
        let count = state.effects.entry(task.to_owned()).or_default();
        *count += 1;
        if *count == 1 {
            self.places.add_permits(1);
        }
    }

    /// An agent has come back to its door, with work.
    pub(crate) fn reattached(&self) {
        self.lock().reattached += 1;
    }

    /// All that was acknowledged.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().acknowledged.clone()
    }

    /// How often agents came back with work that went on.
    pub(crate) fn comebacks(&self) -> u64 {
        self.lock().reattached
    }

    /// Tasks that were acknowledged and never done, and tasks that were done more than once.
    pub(crate) fn faults(&self) -> (Vec<String>, Vec<String>) {
        let state = self.lock();
        let lost =
            state.acknowledged.iter().filter(|task| !state.effects.contains_key(*task)).cloned().collect();
        let twice =
            state.effects.iter().filter(|(_, count)| **count > 1).map(|(task, _)| task.clone()).collect();
        (lost, twice)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
