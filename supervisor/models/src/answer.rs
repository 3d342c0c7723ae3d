//! Calls that are answered in one piece: chat completions and embeddings, from the cache where it has them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::attempt::{self, Deadline};
use crate::estimate::{self, Seen};
use crate::metrics::Counters;
use crate::price::usd_micros;
use crate::{Error, Kind, Models, Plan, Result, Tokens, Usage, render};

/// What a call is made for.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Who shares cached answers: the tenant. An answer kept for one scope is never given to another.
    pub scope: String,
    /// When it must be over. The model's `timeout_ms` holds too; default that alone.
    pub deadline: Option<Instant>,
}

impl Call {
    /// A call for this scope, without a deadline of its own.
    #[must_use]
    pub fn new(scope: impl Into<String>) -> Self {
        Self { scope: scope.into(), deadline: None }
    }
}

/// An answer in one piece.
#[derive(Debug, Clone)]
pub struct Answer {
    /// OpenAI's chat completion or list of embeddings; `model` is the public name.
    pub body: Value,
    /// What the call consumed: nothing when it was cached, although `body` still says what the first one did.
    pub usage: Usage,
    /// The public name of the model that answered.
    pub model: String,
    /// Whether it stayed on this host.
    pub local: bool,
    /// Whether it came from the cache.
    pub cached: bool,
    /// How often the backend was asked; 0 when it was cached.
    pub attempts: u32,
}

impl Models {
    /// Makes a planned call and waits for the whole answer. Dropping the future ends the call.
    ///
    /// # Errors
    /// [`Error::Upstream`], [`Error::Transport`], [`Error::Unavailable`], [`Error::Timeout`] or [`Error::TooLarge`].
    pub async fn answer(&self, plan: Plan, call: &Call) -> Result<Answer> {
        let counters = &plan.model.counters;
        Counters::one(&counters.calls);
        let answer = self.answered(&plan, call).await;
        match &answer {
            Ok(answer) => {
                if answer.cached {
                    Counters::one(&counters.cache_hits);
                }
                counters.used(answer.usage);
            }
            Err(_) => Counters::one(&counters.errors),
        }
        answer
    }

    async fn answered(&self, plan: &Plan, call: &Call) -> Result<Answer> {
        let ttl = Duration::from_secs(plan.model.config.cache_ttl_s);
        let key = (!ttl.is_zero()).then(|| plan.cache_key(&call.scope));
        let kept = key.as_ref().and_then(|key| self.inner.cache().get(key, Instant::now()));
        if let Some(bytes) = kept {
            return Ok(Answer {
                body: read(plan, &bytes)?,
                usage: Usage::default(),
                model: plan.quote.model.clone(),
                local: plan.quote.local,
                cached: true,
                attempts: 0,
            });
        }
        let deadline = Deadline::new(plan.model.config.timeout_ms, call.deadline);
        let arrived = attempt::run(&self.inner, plan, deadline, true).await?;
        let body = read(plan, &arrived.head)?;
        if let Some(key) = key {
            self.keep(key, arrived.head, ttl);
        }
        Ok(Answer {
            usage: usage(plan, body.get("usage").and_then(Tokens::from_usage), || Seen {
                bytes: body.get("choices").map_or(0, render::text_len),
                pieces: 0,
                whole: true,
            }),
            body,
            model: plan.quote.model.clone(),
            local: plan.quote.local,
            cached: false,
            attempts: arrived.attempts,
        })
    }

    fn keep(&self, key: crate::cache::Key, answer: Bytes, ttl: Duration) {
        self.inner.cache().put(key, answer, ttl, Instant::now());
    }
}

/// Reads an answer and gives it the public name.
fn read(plan: &Plan, bytes: &[u8]) -> Result<Value> {
    let name = &plan.quote.model;
    // A backend that echoes headers, say for debugging, must not hand the key on.
    if plan.model.key.as_ref().is_some_and(|key| key.is_in(bytes)) {
        return Err(Error::malformed(name, "the answer held the supervisor's credentials"));
    }
    let mut body: Value =
        serde_json::from_slice(bytes).map_err(|_| Error::malformed(name, "the answer is not JSON"))?;
    let list = match plan.kind {
        Kind::Generate => "choices",
        Kind::Embed => "data",
    };
    match body.as_object_mut() {
        Some(fields) if fields.get(list).is_some_and(Value::is_array) => {
            fields.insert("model".to_owned(), json!(name));
            Ok(body)
        }
        _ => Err(Error::malformed(name, &format!("the answer has no list of {list}"))),
    }
}

/// What a call consumed: as the backend says, else as its bytes do.
pub(crate) fn usage(plan: &Plan, told: Option<Tokens>, seen: impl FnOnce() -> Seen) -> Usage {
    let most = plan.quote.tokens;
    let config = &plan.model.config;
    let tokens = told.unwrap_or_else(|| estimate::tokens(plan, seen()));
    if tokens.input > most.input || tokens.output > most.output {
        // Real money, so it is told as it is; but limits or the context are not what was configured.
        tracing::warn!(
            model = config.name,
            input = tokens.input,
            output = tokens.output,
            max_input = most.input,
            max_output = most.output,
            "the backend took more tokens than it was allowed"
        );
    }
    Usage { tokens, usd_micros: usd_micros(config, tokens), estimated: told.is_none() }
}
