//! The streamable HTTP transport: one POST for each message; the answer is JSON or a stream of events.
//!
//! Neighbours: `sse` and `incoming` below, [`crate::Client`] above. It opens no stream of its own (no GET), so a
//! server's notices come only beside answers. Invariant: no redirect is followed, no body is read past its limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{RequestBuilder, Response};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::allowance::Allowance;
use super::incoming::{self, Event};
use super::options::HttpOptions;
use super::sse::Decoder;
use super::{Common, INITIALIZE};
use crate::message::{self, Message, RpcError};
use crate::{Closed, Error, Result};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The longest session id that is taken, in bytes.
const MAX_SESSION: usize = 1024;
/// How much of an error's body is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;
/// How long a message may take that nobody waits for: a cancellation, the end of the session.
const AFTERWARDS: Duration = Duration::from_secs(5);

pub(crate) struct Http {
    common: Arc<Common>,
    client: reqwest::Client,
    place: HttpOptions,
    session: OnceLock<HeaderValue>,
    last: AtomicU64,
    closed: CancellationToken,
}

impl Http {
    pub(crate) fn new(
        builder: reqwest::ClientBuilder,
        place: HttpOptions,
        common: Arc<Common>,
    ) -> Result<Self> {
        let client = builder.redirect(reqwest::redirect::Policy::none()).build().map_err(failed)?;
        let (session, last) = (OnceLock::new(), AtomicU64::new(0));
        Ok(Self { common, client, place, session, last, closed: CancellationToken::new() })
    }

    pub(crate) async fn request(&self, method: &'static str, params: Map<String, Value>) -> Result<Value> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let body = self.common.encode(&message::request(id, method, params))?;
        let mut waits = Waits { http: self, id, cancels: method != INITIALIZE };
        let exchange = self.exchange(method, id, body);
        let outcome = tokio::select! {
            outcome = exchange => outcome,
            () = self.closed.cancelled() => Err(Error::Closed(Closed::ByUs)),
        };
        waits.cancels = false;
        outcome
    }

    pub(crate) async fn notify(&self, method: &'static str) -> Result<()> {
        let body = self.common.encode(&message::notification(method))?;
        let response = self.post(body).send().await.map_err(failed)?;
        if response.status().is_success() { Ok(()) } else { Err(self.refusal(method, response).await) }
    }

    /// Resolves once [`Http::close`] was called: there is no connection that could end by itself.
    pub(crate) async fn closed(&self) -> Closed {
        self.closed.cancelled().await;
        Closed::ByUs
    }

    /// Ends the session. That a server does not let clients end sessions is no error.
    pub(crate) async fn close(&self) {
        if self.closed.is_cancelled() {
            return;
        }
        self.closed.cancel();
        if let Some(end) = self.end()
            && let Err(error) = end.send().await.map_err(reqwest::Error::without_url)
        {
            tracing::debug!(%error, "the session with an MCP server was not ended");
        }
    }

    /// The request that ends the session, when there is one.
    fn end(&self) -> Option<RequestBuilder> {
        self.session.get()?;
        Some(self.begin(Method::DELETE).timeout(AFTERWARDS))
    }

    fn begin(&self, method: Method) -> RequestBuilder {
        let mut request = self.client.request(method, self.place.endpoint.clone());
        if let Some(bearer) = &self.place.bearer {
            request = request.header(AUTHORIZATION, bearer.header());
        }
        if let Some(session) = self.session.get() {
            request = request.header(SESSION, session.clone());
        }
        if let Some(revision) = self.common.revision.get() {
            request = request.header(PROTOCOL, revision.as_str());
        }
        request
    }

    fn post(&self, body: Vec<u8>) -> RequestBuilder {
        self.begin(Method::POST)
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
    }

    async fn exchange(&self, method: &'static str, id: u64, body: Vec<u8>) -> Result<Value> {
        let response = self.post(body).send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(method, response).await);
        }
        let session = response.headers().get(SESSION).cloned();
        let outcome = self.answer(method, id, response).await?;
        let outcome = outcome.map_err(|source| Error::Refused { method, source })?;
        if let Some(mut session) = session.filter(|_| method == INITIALIZE) {
            let valid = session.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte));
            if !valid || session.is_empty() || session.len() > MAX_SESSION {
                return Err(Error::Malformed { method, what: "the session id is not valid" });
            }
            // It opens the session to whoever knows it.
            session.set_sensitive(true);
            let _ = self.session.set(session);
        }
        Ok(outcome)
    }

    async fn answer(
        &self,
        method: &'static str,
        id: u64,
        mut response: Response,
    ) -> Result<std::result::Result<Value, RpcError>> {
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let mut allowance = Allowance::new(self.common.options.max_unsolicited, Instant::now());
        if kind.eq_ignore_ascii_case("application/json") {
            let limit = self.common.options.max_message_bytes;
            let body = bounded(&mut response, limit).await?;
            return self.take(&body, id, &mut allowance).await?.ok_or(Error::Closed(Closed::Eof));
        }
        if !kind.eq_ignore_ascii_case("text/event-stream") {
            return Err(Error::Malformed { method, what: "it is neither JSON nor a stream of events" });
        }
        let mut decoder = Decoder::new(self.common.options.max_message_bytes);
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            let mut chunk = &chunk[..];
            while !chunk.is_empty() {
                if let Some(event) = decoder.take(&mut chunk)?
                    && let Some(outcome) = self.take(&event, id, &mut allowance).await?
                {
                    return Ok(outcome);
                }
            }
        }
        Err(Error::Closed(Closed::Eof))
    }

    /// Acts on one message; gives the outcome when it is the answer that is waited for.
    async fn take(
        &self,
        bytes: &[u8],
        id: u64,
        allowance: &mut Allowance,
    ) -> Result<Option<std::result::Result<Value, RpcError>>> {
        let mut found = None;
        for event in incoming::read(bytes, self.common.revision.get().copied())? {
            match event {
                Event::Answer { id: theirs, outcome } if theirs == id && found.is_none() => {
                    found = Some(outcome);
                    continue;
                }
                Event::Answer { .. } => return Err(Error::Closed(Closed::UnknownId)),
                Event::Reply(reply) => self.reply(&reply).await,
                Event::ToolsChanged => self.common.tools_changed.send_modify(|count| *count += 1),
                Event::Ignored => {}
            }
            allowance.take(Instant::now())?;
        }
        Ok(found)
    }

    /// Answers the server. It may wait for this before it goes on; that it fails shows in what the server does next.
    async fn reply(&self, reply: &Value) {
        let Ok(body) = self.common.encode(reply) else { return };
        if let Err(error) =
            self.post(body).timeout(AFTERWARDS).send().await.map_err(reqwest::Error::without_url)
        {
            tracing::debug!(%error, "a reply to an MCP server was dropped");
        }
    }

    async fn refusal(&self, method: &'static str, mut response: Response) -> Error {
        let status = response.status();
        if status == StatusCode::NOT_FOUND && self.session.get().is_some() {
            return Error::SessionEnded;
        }
        let body = bounded(&mut response, MAX_ERROR_BODY).await.unwrap_or_default();
        let source = match message::read(&body).map(Message::from_value) {
            Ok(Ok(Message::Answer { outcome: Err(error), .. })) => Some(error),
            _ => None,
        };
        Error::Status { method, status: status.as_u16(), source }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        if !self.closed.is_cancelled()
            && let Some(end) = self.end()
        {
            afterwards(end);
        }
    }
}

/// A call that waits. Dropped before the answer came, it tells the server.
struct Waits<'a> {
    http: &'a Http,
    id: u64,
    cancels: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.cancels
            && let Ok(body) = self.http.common.encode(&message::cancelled(self.id))
        {
            afterwards(self.http.post(body).timeout(AFTERWARDS));
        }
    }
}

/// Sends what nobody waits for, where there is still a runtime to do it.
fn afterwards(request: RequestBuilder) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            if let Err(error) = request.send().await.map_err(reqwest::Error::without_url) {
                tracing::debug!(%error, "an MCP server was not told");
            }
        });
    }
}

async fn bounded(response: &mut Response, limit: usize) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > limit {
            return Err(Error::Closed(Closed::TooLong { limit }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The address may carry a key in its query; an error is no place for it.
fn failed(error: reqwest::Error) -> Error {
    Error::Http(error.without_url())
}
