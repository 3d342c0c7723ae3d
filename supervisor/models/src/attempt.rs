//! One call as a row of attempts: what may be repeated, when, and until when.
//!
//! An attempt is over with the whole answer, or for a stream with its first bytes: after those nothing is repeated,
//! since the caller has seen them. A timeout is not repeated either: the backend may still be at work, for money.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::breaker::Outcome;
use crate::metrics::Counters;
use crate::models::Inner;
use crate::{CloudRule, Error, Plan, Result, retry};

/// How much of an error's body is read, in bytes, and how much of it is told, in characters.
const ERROR_BYTES: usize = 64 << 10;
const ERROR_CHARS: usize = 500;

/// When a call must be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: tokio::time::Instant,
    /// Whether it is the model's own. A caller's shorter one says nothing about the backend, and must not open the
    /// circuit for others.
    own: bool,
}

impl Deadline {
    pub(crate) fn new(timeout_ms: u64, asked: Option<Instant>) -> Self {
        let own = Instant::now() + Duration::from_millis(timeout_ms);
        match asked {
            Some(asked) if asked < own => Self { at: asked.into(), own: false },
            _ => Self { at: own.into(), own: true },
        }
    }

    /// Runs until then; None when that was not enough.
    pub(crate) async fn limit<F: Future>(self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at, future).await.ok()
    }
}

/// What has come of an answer: all of it, or its beginning and where the rest will come from.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) head: Bytes,
    pub(crate) rest: Option<Response>,
    pub(crate) attempts: u32,
}

/// A failed attempt.
struct Failure {
    error: Error,
    outcome: Outcome,
    repeat: bool,
    wait: Option<Duration>,
}

impl Failure {
    /// One that the backend is not to blame for, or that would come again.
    const fn last(error: Error) -> Self {
        Self { error, outcome: Outcome::Answered, repeat: false, wait: None }
    }
}

/// Makes the call, with `whole` until all of the answer is there.
pub(crate) async fn run(inner: &Inner, plan: &Plan, deadline: Deadline, whole: bool) -> Result<Arrived> {
    let model = &plan.model;
    let body = Bytes::from(plan.body(!whole)?);
    let mut last = None;
    for attempt in 0_u32.. {
        let permit = match model.admit() {
            Ok(permit) => permit,
            Err(wait) => {
                let retry_after_ms = millis(wait).max(1);
                return Err(last.unwrap_or_else(|| Error::Unavailable {
                    model: plan.quote.model.clone(),
                    retry_after_ms,
                }));
            }
        };
        if attempt > 0 {
            Counters::one(&model.counters.retries);
        }
        let failure = match deadline.limit(once(inner, plan, body.clone(), whole)).await {
            Some(Ok((head, rest))) => {
                permit.settle(Outcome::Answered);
                return Ok(Arrived { head, rest, attempts: attempt + 1 });
            }
            Some(Err(failure)) => failure,
            None => {
                permit.settle(if deadline.own { Outcome::Failed } else { Outcome::Abandoned });
                return Err(Error::Timeout { model: plan.quote.model.clone() });
            }
        };
        permit.settle(failure.outcome);
        let options = &inner.options;
        let backoff = retry::backoff(options.backoff, options.backoff_max, attempt, rand::random());
        let wait = failure.wait.map_or(backoff, |asked| asked.max(backoff));
        let next = tokio::time::Instant::now().checked_add(wait);
        if !failure.repeat
            || attempt >= model.config.max_retries
            || next.is_none_or(|next| next >= deadline.at)
        {
            return Err(failure.error);
        }
        tokio::time::sleep(wait).await;
        last = Some(failure.error);
    }
    Err(Error::Timeout { model: plan.quote.model.clone() })
}

async fn once(
    inner: &Inner,
    plan: &Plan,
    body: Bytes,
    whole: bool,
) -> std::result::Result<(Bytes, Option<Response>), Failure> {
    let model = &plan.model;
    let Some(client) = inner.transport.client(model.config.local) else {
        let denied = Error::CloudDenied { model: plan.quote.model.clone(), rule: CloudRule::OfflineMode };
        return Err(Failure::last(denied));
    };
    let mut request = client
        .post(model.url(plan.kind).clone())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(body);
    if let Some(key) = &model.key {
        request = request.header(AUTHORIZATION, key.header().map_err(Failure::last)?);
    }
    let mut response = request.send().await.map_err(|error| lost(plan, error))?;
    if !response.status().is_success() {
        return Err(refusal(plan, response).await);
    }
    let limit = inner.options.answer_bytes;
    let mut head = BytesMut::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| lost(plan, error))? {
        if head.len() + bytes.len() > limit {
            return Err(Failure::last(Error::TooLarge { what: "the answer", limit }));
        }
        head.extend_from_slice(&bytes);
        if !whole && !head.is_empty() {
            return Ok((head.freeze(), Some(response)));
        }
    }
    Ok((head.freeze(), None))
}

/// A connection that could not be made, or broke.
fn lost(plan: &Plan, error: reqwest::Error) -> Failure {
    Failure { error: broken(&plan.quote.model, error), outcome: Outcome::Failed, repeat: true, wait: None }
}

/// Says what happened without an address: callers need not know where a backend is.
pub(crate) fn broken(model: &str, error: reqwest::Error) -> Error {
    let sent = !error.is_connect();
    let message = if sent { "the connection to the backend broke" } else { "the backend cannot be reached" };
    tracing::debug!(model, error = ?error.without_url(), "{message}");
    Error::Transport { model: model.to_owned(), message: message.to_owned(), sent }
}

/// An answer whose status is not a success.
async fn refusal(plan: &Plan, mut response: Response) -> Failure {
    let status = response.status();
    let wait = retry::retry_after(response.headers());
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() >= ERROR_BYTES {
            body.truncate(ERROR_BYTES);
            break;
        }
    }
    let message = match status {
        // The words here are about a key that is not the caller's.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "the supervisor's credentials were not accepted".to_owned()
        }
        status if status.is_redirection() => "a redirect, which is not followed".to_owned(),
        _ => told(plan, &words(&body)),
    };
    let repeat = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    Failure {
        error: Error::Upstream {
            model: plan.quote.model.clone(),
            status: status.as_u16(),
            message,
            retry_after_ms: wait.map(millis),
        },
        outcome: if status.is_server_error() { Outcome::Failed } else { Outcome::Answered },
        repeat,
        wait,
    }
}

/// The message of an error's body: OpenAI's, Ollama's, FastAPI's or none of these.
fn words(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail"];
    match places.iter().find_map(|place| value.pointer(place)?.as_str()) {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}

/// A backend's words as callers may see them: without the key, on one line, not too long.
pub(crate) fn told(plan: &Plan, words: &str) -> String {
    let words: String = words.chars().take(4 * ERROR_CHARS).collect();
    let words = plan.model.key.as_ref().map_or_else(|| words.clone(), |key| key.redact(&words));
    let line = words.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    line.take(ERROR_CHARS).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_message() {
        for (body, message) in [
            (r#"{"error":{"message":"a","type":"x"}}"#, "a"),
            (r#"{"error":"b"}"#, "b"),
            (r#"{"object":"error","message":"c"}"#, "c"),
            (r#"{"detail":"d"}"#, "d"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(words(body.as_bytes()), message);
        }
    }

    #[test]
    fn the_shorter_deadline_counts() {
        let now = Instant::now();
        assert!(Deadline::new(1000, None).own);
        assert!(Deadline::new(1000, Some(now + Duration::from_secs(60))).own);
        let asked = Deadline::new(1000, Some(now + Duration::from_millis(10)));
        assert!(!asked.own && asked.at == (now + Duration::from_millis(10)).into());
    }
}
