//! Who waits for the end of which program that Exec started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_launcher_proto::v1 as launcher;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<launcher::Exit>>>>;

/// How long a launcher that has just come back may take to tell notices again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The register of those who wait.
#[derive(Default)]
pub(crate) struct ExecExits {
    waiting: Waiting,
    /// Whether the launcher tells notices at present. An end that it cannot tell is told by nobody later.
    told: watch::Sender<bool>,
}

/// One who waits; gives up its place when dropped.
pub(crate) struct ExecExit {
    id: String,
    waiting: Waiting,
    exit: oneshot::Receiver<launcher::Exit>,
}

impl ExecExits {
    /// Takes a place before the program is started, so that no end is missed.
    pub(crate) fn expect(&self, exec_id: &str) -> ExecExit {
        let (send, exit) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(exec_id.to_owned(), send);
        ExecExit { id: exec_id.to_owned(), waiting: Arc::clone(&self.waiting), exit }
    }

    /// A program has ended.
    pub(crate) fn ended(&self, exited: launcher::ExecExited) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&exited.exec_id);
        if let Some(waiting) = waiting {
            let lost = launcher::Exit { reason: "lost".to_owned(), signal: 9, ..launcher::Exit::default() };
            let _ = waiting.send(exited.exit.unwrap_or(lost));
        }
    }

    /// Waits until ends are told. False when that takes too long.
    pub(crate) async fn are_told(&self) -> bool {
        let mut told = self.told.subscribe();
        let told = timeout(PATIENCE, told.wait_for(|told| *told)).await;
        matches!(told, Ok(Ok(_)))
    }

    /// The launcher is there and tells notices.
    pub(crate) fn found(&self) {
        self.told.send_replace(true);
    }

    /// The launcher went away; it does not know the programs that it started before.
    pub(crate) fn lost(&self) {
        self.told.send_replace(false);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl ExecExit {
    /// Waits for the end; none when nobody will ever tell.
    pub(crate) async fn wait(&mut self) -> Option<launcher::Exit> {
        (&mut self.exit).await.ok()
    }
}

impl Drop for ExecExit {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
