//! The pool: at most so many connections, each greeted once, broken ones dropped.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_launcher_proto::PROTOCOL;
use aion_launcher_proto::v1::{self, request::Op, response::Result as Answer};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::connection::Connection;
use crate::{Error, Options};

/// Idle connections beyond this many are closed.
const IDLE: usize = 4;

pub(crate) struct Pool {
    pub(crate) options: Options,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

/// A connection that is in use; it goes back only when the call on it ended well.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    /// It lay idle before, so that the launcher may have gone since without being noticed.
    pub(crate) reused: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: Options) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_connections.max(1)));
        Self { options, idle: Mutex::default(), permits }
    }

    pub(crate) async fn lease(&self) -> Result<Lease, Error> {
        let busy = || Error::Timeout { op: "connect", after: self.options.connect_patience };
        // All connections may be taken by slow launches: that is patience of another kind.
        let permit = timeout(self.options.slow_call_timeout, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(|_| busy())?;
        while let Some(connection) = self.pop() {
            if !connection.is_stale() {
                return Ok(Lease { connection, reused: true, _permit: permit });
            }
        }
        let (connection, _) = connect(&self.options, self.options.connect_patience).await?;
        Ok(Lease { connection, reused: false, _permit: permit })
    }

    pub(crate) fn give_back(&self, lease: Lease) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(lease.connection);
        }
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(crate) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Connects and greets, trying again while nobody listens.
pub(crate) async fn connect(
    options: &Options,
    patience: Duration,
) -> Result<(Connection, v1::HelloOk), Error> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    loop {
        let attempt = match UnixStream::connect(&options.socket).await {
            Ok(stream) => greet(options, stream).await,
            Err(source) => Err(Error::Unreachable { socket: options.socket.clone(), source }),
        };
        match attempt {
            Err(error) if is_passing(&error) && Instant::now() + pause < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(200));
            }
            other => return other,
        }
    }
}

/// A launcher that is being started has no socket yet, or its old one; one that was killed resets what waited in its queue.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unreachable { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::WouldBlock
        ),
        Error::Lost { .. } => true,
        _ => false,
    }
}

async fn greet(options: &Options, stream: UnixStream) -> Result<(Connection, v1::HelloOk), Error> {
    let mut connection = Connection::new(stream);
    let hello = Op::Hello(v1::Hello { protocol: PROTOCOL });
    let deadline = Instant::now() + options.call_timeout;
    let answer = timeout_at(deadline, connection.call("Hello", hello, &[]))
        .await
        .map_err(|_| Error::Timeout { op: "Hello", after: options.call_timeout })??;
    match answer.0 {
        Answer::Hello(ok) if ok.protocol == PROTOCOL => Ok((connection, ok)),
        Answer::Hello(ok) => Err(Error::Protocol { theirs: ok.protocol, ours: PROTOCOL }),
        _ => Err(Error::Unexpected { op: "Hello" }),
    }
}
