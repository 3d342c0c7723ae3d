//! The service manager's watchdog: it hears from aiond while its process runs, and only while aiond can do its work.
//!
//! A process that is stopped is to be found out within seconds; that a commit waits that long for a busy disk is no reason to restart. So a
//! thread that does nothing else gives the signs of life, and goes on only while ways through all that a request needs come back: the runtime,
//! the pool of blocking threads, the database, and the engine of tasks. An error is an answer: a full disk is no reason to restart, either.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use aion_store::Store;
use aion_tasks::Tasks;
use sd_notify::NotifyState;

use crate::run::notify;

/// Signs in the time that the service manager allows between two.
const SIGNS: u32 = 3;
/// Between two ways.
const PAUSE: Duration = Duration::from_secs(10);
/// Without one that came back for so long there are no more signs.
const PATIENCE: Duration = Duration::from_secs(30);

/// When the last way came back.
struct Way(Mutex<Instant>);

impl Way {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn came_back(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_open(&self, patience: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < patience
    }
}

/// Begins to give signs, when the service manager asks for them (`WatchdogSec=`).
pub(crate) fn start(store: Arc<Store>, tasks: Option<Tasks>) {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
    tracing::info!(seconds = allowed.as_secs(), "the service manager's watchdog is answered");
    let way = Arc::new(Way::new());
    tokio::spawn(look_again(store, tasks, Arc::clone(&way)));
    let thread = Builder::new().name("watchdog".into()).spawn(move || live(&way, allowed / SIGNS));
    if let Err(error) = thread {
        tracing::error!(%error, "no thread for the watchdog: the service manager will start aiond again");
    }
}

fn live(way: &Way, pause: Duration) {
    loop {
        if way.is_open(PATIENCE) {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(seconds = PATIENCE.as_secs(), "the database or the engine of tasks stands still");
        }
        std::thread::sleep(pause);
    }
}

async fn look_again(store: Arc<Store>, tasks: Option<Tasks>, way: Arc<Way>) {
    loop {
        look(&store, tasks.as_ref()).await;
        way.came_back();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Comes back when everything does.
async fn look(store: &Arc<Store>, tasks: Option<&Tasks>) {
    let store = Arc::clone(store);
    let read = tokio::task::spawn_blocking(move || store.cursor()).await;
    if let Ok(Err(error)) = read {
        tracing::error!(%error, "the database cannot be read");
    }
    if let Some(tasks) = tasks {
        tasks.heartbeat().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_open_while_it_comes_back() {
        let way = Way::new();
        std::thread::sleep(Duration::from_millis(20));
        assert!(way.is_open(PATIENCE) && !way.is_open(Duration::from_millis(20)));
        way.came_back();
        assert!(way.is_open(PATIENCE));
        // A slow disk has the time that it always had: a way that is late by one pause is no end.
        assert!(PATIENCE >= 2 * PAUSE);
    }
}
