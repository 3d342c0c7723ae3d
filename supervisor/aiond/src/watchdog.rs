//! The service manager's watchdog: it hears from aiond only while aiond can do its work.
//!
//! A timer alone would go on pinging out of a daemon whose engine or database stands still. So each ping comes after a way through
//! all that a request needs: the runtime, the pool of blocking threads, the database, and the engine of tasks. What does not come back sends
//! no ping, and the service manager starts aiond again; agents do not notice. An error is an answer: a full disk is no reason to restart.

use std::sync::Arc;
use std::time::Duration;

use aion_store::Store;
use aion_tasks::Tasks;
use sd_notify::NotifyState;

use crate::run::notify;

/// Pings in the time that the service manager allows between two.
const PINGS: u32 = 3;

/// Begins to ping, when the service manager asks for it (`WatchdogSec=`).
pub(crate) fn start(store: Arc<Store>, tasks: Option<Tasks>) {
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
    tracing::info!(seconds = allowed.as_secs(), "the service manager's watchdog is answered");
    tokio::spawn(ping(store, tasks, allowed / PINGS));
}

async fn ping(store: Arc<Store>, tasks: Option<Tasks>, pause: Duration) {
    loop {
        look(&store, tasks.as_ref()).await;
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(pause).await;
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
