//! Notices, across restarts of the launcher.
//!
//! After each (re)connection the launcher's whole table comes first, so that what was missed meanwhile is known. The
//! table is asked for after the stream is open: a change in between is told twice rather than never.

use std::time::Duration;

use aion_launcher_proto::v1::{self, notice, request::Op, response::Result as Answer};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::pool;
use crate::{Client, Error, Result};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// A connection stands: who answers, and everything in its table.
    Synced {
        /// Version, boot id and epoch of the launcher.
        hello: v1::HelloOk,
        /// Its agents.
        agents: Vec<v1::AgentState>,
    },
    /// The launcher went away; [`Watch::next`] goes on trying.
    Lost,
    /// An agent's state changed.
    Agent(Box<v1::AgentState>),
    /// The audit log is durable up to here.
    Audit(u64),
    /// A program started by Exec has ended.
    ExecExited(v1::ExecExited),
}

/// The stream of notices. Dropping it closes the connection.
pub struct Watch {
    client: Client,
    after_seq: u64,
    connection: Option<Connection>,
    pause: Duration,
    first: bool,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("after_seq", &self.after_seq).finish_non_exhaustive()
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Watch {
    pub(crate) fn new(client: Client, after_seq: u64) -> Self {
        Self { client, after_seq, connection: None, pause: FIRST_PAUSE, first: true }
    }

    /// The next event. Waits as long as it takes; dropping the future loses nothing but a half-read frame's
    /// connection, which the next call makes anew.
    pub async fn next(&mut self) -> WatchEvent {
        loop {
            // Taken out while it is read from, so that a dropped future cannot leave it half-way in a frame.
            let Some(mut connection) = self.connection.take() else {
                match self.connect().await {
                    Ok(synced) => return synced,
                    Err(error) => {
                        if self.first {
                            tracing::warn!(%error, "aion-launcher is not there yet");
                            self.first = false;
                        }
                        sleep(self.pause).await;
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                }
            };
            match notice(&mut connection).await {
                Ok(kind) => {
                    self.connection = Some(connection);
                    let Some(kind) = kind else { continue };
                    return match kind {
                        notice::Kind::Agent(state) => WatchEvent::Agent(Box::new(state)),
                        notice::Kind::ExecExited(exited) => WatchEvent::ExecExited(exited),
                        notice::Kind::Audit(at) => {
                            self.after_seq = self.after_seq.max(at.seq);
                            WatchEvent::Audit(at.seq)
                        }
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, "lost aion-launcher");
                    self.client.forget_idle();
                    self.pause = FIRST_PAUSE;
                    return WatchEvent::Lost;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<WatchEvent> {
        let options = self.client.options();
        let (mut connection, hello) = pool::connect(options, Duration::ZERO).await?;
        let op = Op::Watch(v1::Watch { audit_after_seq: self.after_seq });
        let limit = options.call_timeout;
        let answer = timeout(limit, connection.call("Watch", op, &[]))
            .await
            .map_err(|_| Error::Timeout { op: "Watch", after: limit })??;
        if !matches!(answer.0, Answer::Empty(_)) {
            return Err(Error::Unexpected { op: "Watch" });
        }
        let agents = self.client.list().await?;
        self.connection = Some(connection);
        self.pause = FIRST_PAUSE;
        self.first = true;
        Ok(WatchEvent::Synced { hello, agents })
    }
}

/// One notice; none for a kind that this version does not know.
async fn notice(connection: &mut Connection) -> Result<Option<notice::Kind>> {
    let frame = connection.receive("Watch").await?;
    Ok(frame.message::<v1::Notice>().map_err(Error::Frame)?.kind)
}
