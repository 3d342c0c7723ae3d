//! A file that is written in parts to a client who may read slowly, or go.

use std::io::{self, Write};
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_store::Store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Bytes of one part.
const PART: usize = 256 << 10;
/// After so many parts it is looked whether there is room left.
const LOOK: u32 = 256;

pub(super) struct Parts {
    send: mpsc::Sender<Result<api::BackupPart, Status>>,
    store: Arc<Store>,
    shutdown: CancellationToken,
    part: Vec<u8>,
    sent: u32,
}

impl Parts {
    pub(super) fn new(
        send: mpsc::Sender<Result<api::BackupPart, Status>>,
        store: Arc<Store>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { send, store, shutdown, part: Vec::with_capacity(PART), sent: 0 }
    }

    fn check(&mut self) -> io::Result<()> {
        if self.shutdown.is_cancelled() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "aiond is shutting down"));
        }
        self.sent = self.sent.wrapping_add(1);
        // Files that a backup holds on to are not given back: it makes way before work has to.
        if self.sent.is_multiple_of(LOOK) && self.store.check_room(false).is_err() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PART - self.part.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.part.extend_from_slice(taken);
        if self.part.len() == PART {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        self.check()?;
        let data = std::mem::replace(&mut self.part, Vec::with_capacity(PART));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client went away");
        self.send.blocking_send(Ok(api::BackupPart { data })).map_err(gone)
    }
}
