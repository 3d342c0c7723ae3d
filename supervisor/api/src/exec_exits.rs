//! Who waits for the end of which program that Exec started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aion_launcher_proto::v1 as launcher;
use tokio::sync::oneshot;

type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<launcher::Exit>>>>;

/// The register of those who wait.
#[derive(Default)]
pub(crate) struct ExecExits {
    waiting: Waiting,
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

    /// The launcher went away; it does not know the programs that it started before.
    pub(crate) fn lost(&self) {
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
