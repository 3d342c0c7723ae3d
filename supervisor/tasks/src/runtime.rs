//! RuntimeService: what an agent says on its stream, checked and handed to the engine. What it is told comes from the engine and
//! the effects, through its session's outbox.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::runtime_service_server::RuntimeService;
use aion_scheduler::{Attempt, Command};
use aion_task_journal::CheckpointWriter;
use aion_types::ErrorCode;
use api::from_agent::Kind;
use futures::{Stream, StreamExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::doors::Visitor;
use crate::error::Error;
use crate::sessions::{Held, Session, attempt};
use crate::spec;
use crate::tasks::Tasks;
use crate::work::{Said, Work};

/// The protocol that is spoken here.
const PROTOCOL: u32 = 1;
/// How long the first message may take.
const HELLO: Duration = Duration::from_secs(10);
/// Attempts that one message may name.
const MAX_NAMED: usize = 4096;
/// Checkpoints that an agent may be sending at once.
const MAX_UPLOADS: usize = 64;
/// The longest note.
const MAX_NOTE: usize = 512;
/// The longest code and message of a failure.
const MAX_CODE: usize = 64;
const MAX_MESSAGE: usize = 4096;

/// The service; one for all doors.
pub(crate) struct Runtime(pub(crate) Tasks);

type Answers = Pin<Box<dyn Stream<Item = Result<api::ToAgent, Status>> + Send>>;

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type AttachStream = Answers;

    async fn attach(&self, request: Request<Streaming<api::FromAgent>>) -> Result<Response<Answers>, Status> {
        let Some(visitor) = request.extensions().get::<Visitor>().cloned() else {
            return Err(Status::unauthenticated("this is no agent's door"));
        };
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(api::FromAgent { kind: Some(Kind::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message must be hello"));
        };
        if hello.protocol != PROTOCOL {
            let text = format!("protocol {} is not known here; this is {PROTOCOL}", hello.protocol);
            return Err(Status::failed_precondition(text));
        }
        if hello.running.len() > MAX_NAMED {
            return Err(Status::invalid_argument("too many attempts in hello"));
        }
        let (session, outbox) = self.0.inner.sessions.open(&visitor.tenant, &visitor.agent);
        tracing::info!(tenant = %visitor.tenant, agent = %visitor.agent, sdk = ?hello.sdk, running = hello.running.len(), "an agent attached");
        let running = hello.running.into_iter().map(attempt).collect();
        let attach = Work::Attach { session: Arc::clone(&session), concurrency: hello.concurrency, running };
        self.0.inner.inbox.system(attach);
        let end = session.end.clone();
        tokio::spawn(listen(self.0.clone(), session, incoming));
        let answers = ReceiverStream::new(outbox).take_until(end.cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Hears the agent until its stream ends, from either side.
async fn listen(tasks: Tasks, session: Arc<Session>, mut incoming: Streaming<api::FromAgent>) {
    let mut ear = Ear { tasks: tasks.clone(), session: Arc::clone(&session), uploads: HashMap::new() };
    loop {
        let message = tokio::select! {
            () = session.end.cancelled() => break,
            message = incoming.message() => message,
        };
        match message {
            Ok(Some(api::FromAgent { kind: Some(kind) })) => ear.hear(kind).await,
            // A kind of a later version.
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(tenant = %session.tenant, agent = %session.agent, %status, "an agent's stream broke");
                break;
            }
        }
    }
    session.end.cancel();
    if tasks.inner.sessions.close(&session) {
        let (tenant, name) = (session.tenant.clone(), session.agent.clone());
        tasks.inner.inbox.system(Work::Command(Command::Detached { tenant, name, process_gone: false }));
    }
}

/// A checkpoint that is coming in.
struct Upload {
    /// None while a part is being written, and after a failure.
    writer: Option<CheckpointWriter>,
    offset: u64,
}

struct Ear {
    tasks: Tasks,
    session: Arc<Session>,
    uploads: HashMap<Attempt, Upload>,
}

impl Ear {
    async fn hear(&mut self, kind: Kind) {
        match kind {
            Kind::Heartbeat(_) => {}
            Kind::Hello(_) => {
                tracing::warn!(tenant = %self.session.tenant, agent = %self.session.agent, "an agent said hello twice");
                self.session.end.cancel();
            }
            Kind::Started(started) => {
                let all: Vec<_> = started.attempts.into_iter().take(MAX_NAMED).map(attempt).collect();
                self.say(Said::Started(all)).await;
            }
            Kind::Progress(progress) => {
                let Some(token) = progress.attempt else { return };
                let fraction =
                    if progress.fraction.is_finite() { progress.fraction.clamp(0.0, 1.0) } else { 0.0 };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
                let permille = (fraction * 1000.0).round() as u16;
                let note = cut(progress.note, MAX_NOTE);
                self.say(Said::Progress { attempt: attempt(token), permille, note }).await;
            }
            Kind::Usage(usage) => {
                let Some(token) = usage.attempt else { return };
                let api::UsageReport { tokens, usd_micros, .. } = usage;
                self.say(Said::Usage { attempt: attempt(token), tokens, usd_micros }).await;
            }
            Kind::Completions(completions) => self.completions(completions.completions).await,
            Kind::Checkpoint(part) => self.part(part).await,
        }
    }

    async fn say(&self, said: Said) {
        // What an agent says waits for what it said before: it cannot flood the engine.
        let Ok(permit) = Arc::clone(&self.session.allowance).acquire_owned().await else { return };
        self.tasks.inner.inbox.system(Work::Said { session: Arc::clone(&self.session), said, permit });
    }

    async fn completions(&mut self, given: Vec<api::Completion>) {
        let mut all = Vec::with_capacity(given.len());
        for completion in given {
            let Some(attempt) = completion.attempt.map(attempt) else { continue };
            self.uploads.remove(&attempt);
            let outcome = completion
                .outcome
                .ok_or_else(|| Error::field("completions.outcome", "it does not say how the attempt ended"));
            match outcome.and_then(checked) {
                Ok(outcome) => all.push((attempt, outcome)),
                Err(error) => {
                    self.tasks.inner.metrics.refused(error.code);
                    self.session.refuse(attempt, &error);
                }
            }
        }
        if !all.is_empty() {
            self.say(Said::Completions(all)).await;
        }
    }

    async fn part(&mut self, part: api::CheckpointPart) {
        let Some(token) = part.attempt else { return };
        let attempt = attempt(token);
        let last = part.last;
        if let Err(error) = self.try_part(attempt, part).await {
            self.tasks.inner.metrics.refused(error.code);
            // What is still on its way of it is passed over, up to the last part.
            if last {
                self.uploads.remove(&attempt);
            } else {
                self.uploads.insert(attempt, Upload { writer: None, offset: u64::MAX });
            }
            self.session.refuse(attempt, &error);
        }
    }

    async fn try_part(&mut self, attempt: Attempt, part: api::CheckpointPart) -> Result<(), Error> {
        if let Some(upload) = self.uploads.get(&attempt)
            && upload.offset == u64::MAX
        {
            if part.last {
                self.uploads.remove(&attempt);
            }
            return Ok(());
        }
        let Some(Held { task, next_checkpoint }) = self.session.held(attempt) else {
            return Err(Error::new(
                ErrorCode::AttemptStale,
                format!("attempt {attempt} does not count any more"),
            ));
        };
        if !self.uploads.contains_key(&attempt) {
            if self.uploads.len() >= MAX_UPLOADS {
                return Err(Error::new(ErrorCode::ResourceExhausted, "too many checkpoints at once"));
            }
            let writer = self.tasks.inner.journal.checkpoint_writer(task, next_checkpoint)?;
            self.uploads.insert(attempt, Upload { writer: Some(writer), offset: 0 });
        }
        let own = self.tasks.inner.roster.checkpoint_max(&self.session.tenant, &self.session.agent);
        let max = self.tasks.inner.settings.borrow().checkpoint_max.min(own.unwrap_or(u64::MAX));
        let Some(upload) = self.uploads.get_mut(&attempt) else { return Ok(()) };
        if part.offset != upload.offset {
            let text = format!("a part at {} came, {} was expected", part.offset, upload.offset);
            return Err(Error::field("checkpoint.offset", text));
        }
        upload.offset = upload.offset.saturating_add(part.data.len() as u64);
        if upload.offset > max {
            return Err(Error::too_large("checkpoint", format!("a checkpoint has at most {max} bytes")));
        }
        let Some(mut writer) = upload.writer.take() else { return Ok(()) };
        let (data, last, sha256) = (part.data, part.last, part.sha256);
        let stored = crate::read::blocking(move || {
            writer.write(&data)?;
            if !last {
                return Ok((Some(writer), None));
            }
            let checkpoint = writer.finish()?;
            if !sha256.is_empty() && sha256 != checkpoint.info().sha256 {
                return Err(Error::new(
                    ErrorCode::CheckpointCorrupt,
                    "the checkpoint's SHA-256 is not what the agent says; the one before it stays",
                ));
            }
            Ok((None, Some(checkpoint)))
        })
        .await?;
        match stored {
            (writer, None) => upload.writer = writer,
            (_, Some(checkpoint)) => {
                self.uploads.remove(&attempt);
                let Ok(permit) = Arc::clone(&self.session.allowance).acquire_owned().await else {
                    return Ok(());
                };
                let session = Some((Arc::clone(&self.session), permit));
                let (checkpoint, yields) = (Box::new(checkpoint), part.yields);
                let (answer, answered) = tokio::sync::oneshot::channel();
                let work = Work::Checkpointed { attempt, checkpoint, yields, session, answer: Some(answer) };
                self.tasks.inner.inbox.system(work);
                // The next one needs to know its number.
                let _ = answered.await;
            }
        }
        Ok(())
    }
}

/// Whether what an attempt ended with can be kept.
fn checked(outcome: api::completion::Outcome) -> Result<api::completion::Outcome, Error> {
    use api::completion::Outcome;
    match outcome {
        Outcome::ResultJson(json) if json.is_empty() => Ok(Outcome::ResultJson("null".to_owned())),
        Outcome::ResultJson(json) => {
            spec::json("result_json", &json)?;
            Ok(Outcome::ResultJson(json))
        }
        Outcome::Failure(failure) => Ok(Outcome::Failure(api::Failure {
            code: if failure.code.is_empty() { "FAILED".to_owned() } else { cut(failure.code, MAX_CODE) },
            message: cut(failure.message, MAX_MESSAGE),
            retryable: failure.retryable,
        })),
        Outcome::Yielded(_) => Ok(Outcome::Yielded(true)),
    }
}

/// Shortens a text, at a character.
fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let at = (0..=max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(at);
    }
    text
}
