//! Streamed chat completions: a stream of chunks that ends with what they cost.
//!
//! Nothing runs in the background: the backend is read as the stream is polled, and dropping it closes the connection,
//! which is how backends learn that nobody listens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use reqwest::Response;
use serde_json::{Value, json};

use crate::attempt::{self, Deadline, broken, told};
use crate::estimate::Seen;
use crate::metrics::Counters;
use crate::sse::{Parser, TooLong};
use crate::{Call, Error, Kind, Models, Plan, Result, Tokens, Usage, answer, render};

/// How long a finished stream is read on for its end, so that its connection can serve the next call.
const END: Duration = Duration::from_millis(50);

/// Bytes of text that a token stands for at most, on average: vocabularies have a few longer ones (a line of blanks).
const TOKEN_BYTES: u64 = 64;
/// Short answers may be all of long tokens.
const SLACK: u64 = 4096;

/// A piece of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// OpenAI's `chat.completion.chunk`; `model` is the public name.
    Chunk(Value),
    /// What it all consumed. Always the last one, unless an error is.
    Usage(Usage),
}

/// An answer as it comes. After an error there is nothing more.
pub struct Generation {
    events: BoxStream<'static, Result<Event>>,
    meter: Arc<Meter>,
    attempts: u32,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("model", &self.model()).finish_non_exhaustive()
    }
}

impl Generation {
    /// The public name of the model that answers.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.meter.plan.quote.model
    }

    /// How often the backend was asked until it began to answer.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What it has consumed so far; until the backend says, an upper bound, and at a stream's end an estimate. This is what a
    /// stream costs that broke, or that is dropped before its end.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }
}

impl Stream for Generation {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

impl Models {
    /// Makes a planned chat completion and waits until its answer begins. The deadline holds for all of the stream.
    ///
    /// # Errors
    /// As [`Models::answer`]; [`Error::Invalid`] for embeddings, which do not stream.
    pub async fn stream(&self, plan: Plan, call: &Call) -> Result<Generation> {
        if plan.kind != Kind::Generate {
            return Err(Error::invalid("stream", "embeddings do not stream"));
        }
        Counters::one(&plan.model.counters.calls);
        let deadline = Deadline::new(plan.model.config.timeout_ms, call.deadline);
        let arrived = match attempt::run(&self.inner, &plan, deadline, false).await {
            Ok(arrived) => arrived,
            Err(error) => {
                Counters::one(&plan.model.counters.errors);
                return Err(error);
            }
        };
        let meter = Arc::new(Meter::new(plan));
        let mut parser = Parser::new(self.inner.options.event_bytes);
        parser.push(&arrived.head);
        let reader = Reader {
            parser,
            response: arrived.rest,
            deadline,
            meter: Arc::clone(&meter),
            ready: VecDeque::new(),
            complete: false,
            over: false,
        };
        let events = stream::unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((event, reader))
        });
        Ok(Generation { events: events.boxed(), meter, attempts: arrived.attempts })
    }
}

/// What a stream has consumed. Counted into the model's totals once, when the stream ends in whatever way.
struct Meter {
    plan: Plan,
    text: AtomicU64,
    pieces: AtomicU64,
    whole: AtomicBool,
    told: Mutex<Option<Tokens>>,
    settled: AtomicBool,
}

impl Meter {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            text: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            told: Mutex::new(None),
            settled: AtomicBool::new(false),
        }
    }

    fn usage(&self) -> Usage {
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        answer::usage(&self.plan, told, || Seen {
            bytes: self.text.load(Relaxed),
            pieces: self.pieces.load(Relaxed),
            whole: self.whole.load(Relaxed),
        })
    }

    fn tell(&self, tokens: Tokens) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
    }

    fn settle(&self, failed: bool) {
        if !self.settled.swap(true, Relaxed) {
            let counters = &self.plan.model.counters;
            counters.used(self.usage());
            if failed {
                Counters::one(&counters.errors);
            }
        }
    }
}

struct Reader {
    parser: Parser,
    response: Option<Response>,
    deadline: Deadline,
    meter: Arc<Meter>,
    ready: VecDeque<Event>,
    /// Whether a choice has said why it ended.
    complete: bool,
    over: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.meter.settle(false);
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Event>> {
        if self.over && self.ready.is_empty() {
            if let Some(mut response) = self.response.take() {
                let end = async { while let Ok(Some(_)) = response.chunk().await {} };
                let _ = tokio::time::timeout(END, end).await;
            }
            return None;
        }
        match self.read().await {
            Ok(event) => Some(Ok(event)),
            Err(error) => {
                self.over = true;
                self.ready.clear();
                self.response = None;
                self.meter.settle(true);
                Some(Err(error))
            }
        }
    }

    async fn read(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(data) = self.parser.next().map_err(|TooLong| self.too_long())? {
                self.take(&data)?;
                continue;
            }
            let name = &self.meter.plan.quote.model;
            let chunk = match &mut self.response {
                Some(response) => self
                    .deadline
                    .limit(response.chunk())
                    .await
                    .ok_or_else(|| Error::Timeout { model: name.clone() })?
                    .map_err(|error| broken(name, error))?,
                None => None,
            };
            if let Some(bytes) = chunk {
                self.parser.push(&bytes);
                continue;
            }
            self.response = None;
            if let Some(data) = self.parser.finish().map_err(|TooLong| self.too_long())? {
                self.take(&data)?;
            }
            if !self.over {
                // Some backends end without [DONE]; that counts once they have said why a choice ended.
                if !self.complete {
                    let message = "the stream ended too early".to_owned();
                    let model = self.meter.plan.quote.model.clone();
                    return Err(Error::Transport { model, message, sent: true });
                }
                self.end();
            }
        }
    }

    /// Takes one event's data in.
    fn take(&mut self, data: &[u8]) -> Result<()> {
        if data.trim_ascii() == b"[DONE]" {
            self.end();
            return Ok(());
        }
        let plan = &self.meter.plan;
        let name = &plan.quote.model;
        let Ok(Value::Object(mut chunk)) = serde_json::from_slice(data) else {
            return Err(Error::malformed(name, "an event of the stream is not a JSON object"));
        };
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let words = error.get("message").or(Some(error)).and_then(Value::as_str).unwrap_or("an error");
            let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            return Err(Error::Upstream {
                model: name.clone(),
                status: status.filter(|status| (400..600).contains(status)).unwrap_or(502),
                message: told(plan, words),
                retry_after_ms: None,
            });
        }
        if plan.model.key.as_ref().is_some_and(|key| key.is_in(data)) {
            return Err(Error::malformed(name, "the answer held the supervisor's credentials"));
        }
        let tokens = chunk.get("usage").and_then(Tokens::from_usage);
        if let Some(tokens) = tokens {
            self.meter.tell(tokens);
        }
        let choices = chunk.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for choice in choices {
            self.complete |= choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
            let text = choice.get("delta").map_or(0, render::text_len);
            self.meter.text.fetch_add(text, Relaxed);
            self.meter.pieces.fetch_add(u64::from(text > 0), Relaxed);
        }
        // One that does not keep to what it was asked for is not paid for without an end, nor passed on.
        let most = plan.quote.tokens.output.saturating_mul(TOKEN_BYTES).saturating_add(SLACK);
        if self.meter.text.load(Relaxed) > most {
            return Err(Error::malformed(
                name,
                "it writes more than the tokens that it was asked for can hold",
            ));
        }
        if !plan.include_usage {
            if tokens.is_some() && choices.is_empty() {
                return Ok(());
            }
            chunk.remove("usage");
        }
        chunk.insert("model".to_owned(), json!(name));
        self.ready.push_back(Event::Chunk(Value::Object(chunk)));
        Ok(())
    }

    fn end(&mut self) {
        if !self.over {
            self.over = true;
            self.meter.whole.store(true, Relaxed);
            self.meter.settle(false);
            self.ready.push_back(Event::Usage(self.meter.usage()));
        }
    }

    fn too_long(&self) -> Error {
        let limit = self.parser.limit();
        Error::TooLarge { what: "an event of the stream", limit }
    }
}
