//! The stdio transport: messages on lines, one driver task that owns both ends.
//!
//! Neighbours: `lines` and `incoming` below, [`crate::Client`] above. Invariant: the driver reads while it writes, so
//! a server that does not read cannot stop its own answers; whatever ends the driver reaches every waiting call.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::allowance::Allowance;
use super::calls::Calls;
use super::incoming::{self, Event};
use super::{Common, INITIALIZE};
use crate::lines::Lines;
use crate::{Closed, Error, Result, message};

/// How many requests may wait for the pipe; they are as large as a message may be.
const QUEUE: usize = 4;
/// How many replies and cancellations may wait for it. Further ones are dropped: the server does not read.
const CONTROL_QUEUE: usize = 256;

/// One line, and the call that it makes if it makes one.
struct Outgoing {
    id: Option<u64>,
    line: Vec<u8>,
}

pub(crate) struct Pipes {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Outgoing>,
}

struct Shared {
    common: Arc<Common>,
    calls: Calls,
    control: mpsc::Sender<Vec<u8>>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Pipes {
    pub(crate) fn start<R, W>(reader: R, writer: W, common: Arc<Common>) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, mut to_write) = mpsc::channel(QUEUE);
        let (control, mut to_control) = mpsc::channel(CONTROL_QUEUE);
        let shared = Arc::new(Shared {
            common,
            calls: Calls::default(),
            control,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let driver = Arc::clone(&shared);
        tokio::spawn(async move {
            let reason = tokio::select! {
                reason = read(reader, &driver) => reason,
                reason = write(writer, &driver, &mut to_write, &mut to_control) => reason,
                () = driver.stop.cancelled() => Closed::ByUs,
            };
            tracing::debug!(%reason, "the connection to an MCP server ended");
            // Before the queues go: who finds them closed asks for the reason.
            driver.calls.close(&reason);
            driver.ended.cancel();
        });
        Self { shared, requests }
    }

    pub(crate) async fn request(&self, method: &'static str, params: Map<String, Value>) -> Result<Value> {
        let (id, told) = self.shared.calls.open()?;
        // The specification forbids to cancel the handshake.
        let _waits = Waits { shared: &self.shared, id, cancels: method != INITIALIZE };
        let line = self.shared.common.encode(&message::request(id, method, params))?;
        self.send(Outgoing { id: Some(id), line }).await?;
        // The driver is gone without a word only when its runtime is.
        let outcome = told.await.unwrap_or(Err(Closed::ByUs))?;
        outcome.map_err(|source| Error::Refused { method, source })
    }

    pub(crate) async fn notify(&self, method: &'static str) -> Result<()> {
        let line = self.shared.common.encode(&message::notification(method))?;
        self.send(Outgoing { id: None, line }).await
    }

    async fn send(&self, outgoing: Outgoing) -> Result<()> {
        self.requests.send(outgoing).await.map_err(|_| Error::Closed(self.shared.calls.reason()))
    }

    pub(crate) async fn closed(&self) -> Closed {
        self.shared.ended.cancelled().await;
        self.shared.calls.reason()
    }

    pub(crate) fn close(&self) {
        self.shared.stop.cancel();
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// A call that waits. Dropped before the answer came, it tells the server.
struct Waits<'a> {
    shared: &'a Shared,
    id: u64,
    cancels: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.shared.calls.give_up(self.id) && self.cancels {
            self.shared.control(&message::cancelled(self.id));
        }
    }
}

impl Shared {
    fn control(&self, message: &Value) {
        // A reply repeats the request's id and may so be too long itself.
        let sent = self.common.encode(message).is_ok_and(|line| self.control.try_send(line).is_ok());
        if !sent {
            tracing::debug!("a reply to an MCP server was dropped");
        }
    }
}

async fn read<R: AsyncRead + Unpin>(reader: R, shared: &Shared) -> Closed {
    let mut lines = Lines::new(reader, shared.common.options.max_message_bytes);
    let mut allowance = Allowance::new(shared.common.options.max_unsolicited, Instant::now());
    loop {
        let taken = match lines.next().await {
            Ok(line) => take(&line, shared, &mut allowance),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = taken {
            return reason;
        }
    }
}

fn take(line: &[u8], shared: &Shared, allowance: &mut Allowance) -> std::result::Result<(), Closed> {
    for event in incoming::read(line, shared.common.revision.get().copied())? {
        match event {
            Event::Answer { id, outcome } => {
                if shared.calls.answer(id, outcome)? {
                    continue;
                }
            }
            Event::Reply(reply) => shared.control(&reply),
            Event::ToolsChanged => shared.common.tools_changed.send_modify(|count| *count += 1),
            Event::Ignored => {}
        }
        allowance.take(Instant::now())?;
    }
    Ok(())
}

async fn write<W: AsyncWrite + Unpin>(
    mut writer: W,
    shared: &Shared,
    requests: &mut mpsc::Receiver<Outgoing>,
    control: &mut mpsc::Receiver<Vec<u8>>,
) -> Closed {
    loop {
        let line = tokio::select! {
            biased;
            Some(line) = control.recv() => line,
            outgoing = requests.recv() => match outgoing {
                None => return Closed::ByUs,
                Some(Outgoing { id: Some(id), .. }) if !shared.calls.writes(id) => continue,
                Some(outgoing) => outgoing.line,
            },
        };
        let written = async {
            writer.write_all(&line).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return Closed::Io(Arc::new(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Options;
    use crate::noise::{hostile_bytes, is_answer};

    proptest! {
        #[test]
        fn any_lines_are_answered_by_valid_lines_or_not_at_all(
            lines in prop::collection::vec(hostile_bytes(), 0..8),
            batches: bool,
        ) {
            let common = Common::new(Options { max_unsolicited: 16, ..Options::default() });
            if batches {
                let _ = common.revision.set(crate::Revision::V2025_03_26);
            }
            let (control, mut replies) = mpsc::channel(4);
            let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
            let shared = Shared { common, calls: Calls::default(), control, stop, ended };
            let (id, mut told) = shared.calls.open().unwrap();
            prop_assert!(shared.calls.writes(id));

            let mut allowance = Allowance::new(16, Instant::now());
            if let Err(reason) = lines.iter().try_for_each(|line| take(line, &shared, &mut allowance)) {
                shared.calls.close(&reason);
                prop_assert!(told.try_recv().is_ok(), "the call was not told");
            }
            while let Ok(line) = replies.try_recv() {
                let (end, line) = line.split_last().unwrap();
                prop_assert!(*end == b'\n' && !line.contains(&b'\n'));
                prop_assert!(is_answer(&serde_json::from_slice(line).unwrap()));
            }
        }
    }
}
