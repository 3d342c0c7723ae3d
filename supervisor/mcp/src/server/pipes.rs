//! The server over a pair of pipes: a message on each line, calls side by side, each answered when it is done.
//!
//! Neighbours: the dispatcher, which answers one message. Invariant: whatever comes, memory is bounded: by the bytes of
//! the messages that are taken, and by the number of calls whose answers are not yet written.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{self, AbortHandle, JoinError, JoinSet};

use super::{Reply, Server, Toolbox};
use crate::lines::Lines;
use crate::message::{self, Id, Message, Unreadable};
use crate::message::{INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR};
use crate::{Closed, Revision};

/// The least that a message counts for, so that small ones are bounded in number.
const LEAST: usize = 64 << 10;

/// The limits of a server over pipes.
#[derive(Debug, Clone)]
pub struct PipeOptions {
    /// The longest line, in bytes; 4 MiB and 64 KiB for what is around the arguments.
    pub max_message_bytes: usize,
    /// The most bytes of requests that wait or are answered; 8 MiB. A request counts for at least 64 KiB. What does not
    /// fit is refused at once.
    pub max_pending_bytes: usize,
    /// How many calls run side by side; 4. Others wait.
    pub max_calls: usize,
}

impl Default for PipeOptions {
    fn default() -> Self {
        Self { max_message_bytes: (4 << 20) + (64 << 10), max_pending_bytes: 8 << 20, max_calls: 4 }
    }
}

/// One line of the answer's stream.
type Answers = mpsc::Sender<Vec<u8>>;

impl<T> Server<T>
where
    T: Toolbox + 'static,
    T::Caller: 'static,
{
    /// Answers until the reader ends, and then what is under way; or until the writer fails, upon which every call is
    /// ended.
    ///
    /// # Errors
    /// When reading or writing failed.
    pub async fn serve_pipes<R, W>(
        self: Arc<Self>,
        caller: Arc<T::Caller>,
        reader: R,
        writer: W,
        options: PipeOptions,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (answers, outbox) = mpsc::channel(1);
        let mut writing = tokio::spawn(write(writer, outbox));
        let mut connection = Connection::new(self, caller, answers, &options);
        let mut lines = Lines::new(reader, options.max_message_bytes);
        let mut open = true;
        while open || !connection.tasks.is_empty() {
            tokio::select! {
                line = lines.next(), if open => match line {
                    Ok(line) => connection.line(&line).await,
                    Err(Closed::TooLong { .. }) => {
                        connection.refuse(INVALID_REQUEST, "the message is too long").await;
                        open = lines.skip().await.is_ok();
                    }
                    Err(Closed::Io(error)) => return Err(io::Error::new(error.kind(), error)),
                    Err(_) => open = false,
                },
                Some(done) = connection.tasks.join_next_with_id() => connection.done(done).await,
                written = &mut writing => return written.map_err(io::Error::other)?,
            }
        }
        drop(connection);
        writing.await.map_err(io::Error::other)?
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut outbox: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(line) = outbox.recv().await {
        writer.write_all(&line).await?;
        writer.flush().await?;
    }
    Ok(())
}

async fn send(answers: &Answers, answer: &Value) {
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    // Without a reader the writer has ended, and with it the connection soon does.
    let _ = answers.send(line).await;
}

struct Connection<T: Toolbox> {
    server: Arc<Server<T>>,
    caller: Arc<T::Caller>,
    answers: Answers,
    revision: Revision,
    /// Bytes of requests; each task holds its own until it ends.
    pending: Arc<Semaphore>,
    max_pending: usize,
    calls: Arc<Semaphore>,
    tasks: JoinSet<()>,
    running: HashMap<Id, AbortHandle>,
    ids: HashMap<task::Id, Id>,
}

impl<T> Connection<T>
where
    T: Toolbox + 'static,
    T::Caller: 'static,
{
    fn new(server: Arc<Server<T>>, caller: Arc<T::Caller>, answers: Answers, options: &PipeOptions) -> Self {
        // The longest message is taken when there is no other.
        let max_pending = options.max_pending_bytes.max(options.max_message_bytes).max(LEAST);
        Self {
            server,
            caller,
            answers,
            revision: Revision::ASSUMED,
            pending: Arc::new(Semaphore::new(max_pending)),
            max_pending,
            calls: Arc::new(Semaphore::new(options.max_calls.max(1))),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            ids: HashMap::new(),
        }
    }

    async fn refuse(&self, code: i64, text: &str) {
        send(&self.answers, &message::failure(None, code, text)).await;
    }

    async fn line(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let value = match message::read(line) {
            Ok(value) => value,
            Err(Unreadable::NotJson) => return self.refuse(PARSE_ERROR, "the message is not JSON").await,
            Err(Unreadable::TooManyValues) => {
                return self.refuse(INVALID_REQUEST, "the message has too many values").await;
            }
        };
        match value.get("method").and_then(Value::as_str) {
            Some("initialize") => self.handshake(value).await,
            Some("notifications/cancelled") if value.get("id").is_none() => self.cancel(&value),
            _ => self.take(value, line.len()).await,
        }
    }

    async fn handshake(&mut self, value: Value) {
        let Some(answer) = body(self.server.handshake(&self.caller, value).await) else { return };
        let agreed = answer.pointer("/result/protocolVersion").and_then(Value::as_str);
        self.revision = agreed.and_then(Revision::parse).unwrap_or(self.revision);
        send(&self.answers, &answer).await;
    }

    /// A call that is cancelled is not answered any more.
    fn cancel(&mut self, value: &Value) {
        let id = value.pointer("/params/requestId").and_then(Id::read);
        if let Some(task) = id.and_then(|id| self.running.remove(&id)) {
            task.abort();
        }
    }

    /// Answers it in a task of its own: the next line may cancel it.
    async fn take(&mut self, value: Value, bytes: usize) {
        let work = match value {
            Value::Array(batch) => Work::Batch(batch),
            value => match Message::from_value(value) {
                Err(defect) => return send(&self.answers, &super::defective(&defect)).await,
                Ok(message @ Message::Request { .. }) => Work::One(message),
                // As little as in the dispatcher.
                Ok(_) => return,
            },
        };
        let id = work.id().cloned();
        let failure = |text: &str| message::failure(id.as_ref(), INVALID_REQUEST, text);
        if id.as_ref().is_some_and(|id| self.running.contains_key(id)) {
            return send(&self.answers, &failure("a request with this id is under way")).await;
        }
        let cost = u32::try_from(bytes.clamp(LEAST, self.max_pending)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.pending).try_acquire_many_owned(cost) else {
            return send(&self.answers, &failure("too many requests are under way")).await;
        };
        let (server, caller) = (Arc::clone(&self.server), Arc::clone(&self.caller));
        let (calls, answers, revision) = (Arc::clone(&self.calls), self.answers.clone(), self.revision);
        let task = self.tasks.spawn(async move {
            let _room = room;
            // Held until the answer is handed over: answers that nobody reads stop the calls.
            let _call = if work.calls() { calls.acquire_owned().await.ok() } else { None };
            let answer = match work {
                Work::One(message) => server.answer(&caller, revision, message).await,
                Work::Batch(batch) => body(server.batch(&caller, revision, batch).await),
            };
            if let Some(answer) = answer {
                send(&answers, &answer).await;
            }
        });
        if let Some(id) = id {
            self.ids.insert(task.id(), id.clone());
            self.running.insert(id, task);
        }
    }

    async fn done(&mut self, done: Result<(task::Id, ()), JoinError>) {
        let (task, panicked) = match done {
            Ok((task, ())) => (task, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(id) = self.ids.remove(&task) else { return };
        // Its id may be another call's by now, when it was cancelled.
        if self.running.get(&id).is_some_and(|other| other.id() == task) {
            self.running.remove(&id);
        }
        if panicked {
            let answer = message::failure(Some(&id), INTERNAL_ERROR, "the call failed");
            send(&self.answers, &answer).await;
        }
    }
}

enum Work {
    One(Message),
    Batch(Vec<Value>),
}

impl Work {
    fn id(&self) -> Option<&Id> {
        match self {
            Self::One(Message::Request { id, .. }) => Some(id),
            _ => None,
        }
    }

    fn calls(&self) -> bool {
        match self {
            Self::One(Message::Request { method, .. }) => method == "tools/call",
            Self::One(_) => false,
            Self::Batch(_) => true,
        }
    }
}

fn body(reply: Reply) -> Option<Value> {
    match reply {
        Reply::Json(value, _) | Reply::Error(_, value) => Some(value),
        Reply::Accepted => None,
    }
}

#[cfg(test)]
#[path = "pipes_tests.rs"]
mod tests;
