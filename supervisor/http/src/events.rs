//! Events as they happen: a WebSocket, or server-sent events for those who accept them. Each has a cursor; a client that comes
//! back with the last one it saw (`Last-Event-ID`, or `cursor=`) misses and repeats nothing.
//!
//! A stream holds a place of its tenant, so it ends when nobody is there any more (a closed connection; no pong to a ping; over TCP no
//! acknowledgement, see [`crate::listen`]) and when the right to it does.

use std::time::{Duration, Instant};

use aion_kernel::{Caller, Kernel};
use aion_syscall::{ErrorBody, Refusal};
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request};
use serde_json::json;

use crate::auth::{self, Stands};
use crate::backend::{EventQuery, EventStream};
use crate::reply;
use crate::routes::Shared;

/// A sign of life in a quiet stream, and on a WebSocket a question for one.
pub(crate) const QUIET: Duration = Duration::from_secs(10);
/// So many times [`QUIET`] a client may take nothing, and say nothing to pings, before it is let go.
const STUCK: u32 = 3;
/// A right that has ended is noticed within this time.
const RIGHTS: Duration = Duration::from_millis(500);
const MAX_TOPICS: usize = 32;

pub(crate) async fn stream(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::refused(&refusal),
    };
    // A signature of some call's body that somebody has seen opens no stream.
    if !admitted.body.is_empty() {
        return reply::refused(&Refusal::field("body", "a stream is asked for without a body"));
    }
    let opened = query_of(&admitted.parts, &admitted.caller).and_then(|query| {
        let stands = Stands::of(&shared.kernel, &admitted)?;
        Ok(while_it_stands(shared.backend.events(query)?, shared.kernel.clone(), stands))
    });
    let events = match opened {
        Ok(events) => events,
        Err(refusal) => return reply::refused(&refusal),
    };
    let (mut parts, quiet) = (admitted.parts, shared.quiet);
    let plain = parts
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if plain {
        return server_sent(events, quiet);
    }
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => {
            upgrade.max_message_size(1 << 16).on_upgrade(move |socket| websocket(socket, events, quiet))
        }
        Err(rejection) => {
            let hint = Refusal::field("accept", rejection.to_string())
                .hint("upgrade to a WebSocket, or accept text/event-stream");
            let mut response = reply::refused(&hint);
            *response.status_mut() = rejection.into_response().status();
            response
        }
    }
}

fn query_of(parts: &http::request::Parts, caller: &Caller) -> Result<EventQuery, Refusal> {
    // An agent hears of itself; who signs hears of the tenant.
    let agent = match caller {
        Caller::Agent { name, .. } => Some(name.clone()),
        _ => None,
    };
    let mut query = EventQuery { tenant: caller.tenant().clone(), agent, topics: Vec::new(), after: None };
    for pair in parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "topics" => {
                let value =
                    value.replace("%2C", ",").replace("%2c", ",").replace("%2A", "*").replace("%2a", "*");
                query.topics =
                    value.split(',').filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
            }
            "cursor" => {
                let number = value.parse().map_err(|_| Refusal::field("cursor", "it is not a number"))?;
                query.after = Some(number);
            }
            _ => {
                let shown: String = name.chars().take(80).collect();
                return Err(
                    Refusal::field(shown, "it is not a parameter of this call").hint("topics, cursor")
                );
            }
        }
    }
    if query.topics.len() > MAX_TOPICS {
        return Err(Refusal::field("topics", format!("at most {MAX_TOPICS} are taken")));
    }
    if let Some(last) = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        query.after = Some(last.parse().map_err(|_| Refusal::field("Last-Event-ID", "it is not a number"))?);
    }
    Ok(query)
}

/// The same events, as long as whoever asked for them still may.
fn while_it_stands(events: EventStream, kernel: Kernel, stands: Stands) -> EventStream {
    let state = Some((events, kernel, stands));
    let events = futures::stream::unfold(state, |state| async move {
        let (mut events, kernel, stands) = state?;
        loop {
            let next = tokio::time::timeout(RIGHTS, events.next()).await;
            // Also what has come is not told any more.
            if !stands.hold(&kernel) {
                return Some((Err(Stands::over()), None));
            }
            match next {
                Ok(next) => return Some((next?, Some((events, kernel, stands)))),
                Err(_) => continue,
            }
        }
    });
    Box::pin(events)
}

fn server_sent(events: EventStream, quiet: Duration) -> Response {
    let lines = futures::stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        match tokio::time::timeout(quiet, events.next()).await {
            Ok(Some(Ok((cursor, value)))) => {
                let topic = value["topic"].as_str().unwrap_or("event").to_owned();
                let text = format!("id: {cursor}\nevent: {topic}\ndata: {value}\n\n");
                Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), Some(events)))
            }
            Ok(Some(Err(refusal))) => {
                let text = format!("event: error\ndata: {}\n\n", json!(ErrorBody::from(&refusal)));
                Some((Ok(Bytes::from(text)), None))
            }
            Ok(None) => None,
            Err(_) => Some((Ok(Bytes::from_static(b": quiet\n\n")), Some(events))),
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn websocket(mut socket: WebSocket, mut events: EventStream, quiet: Duration) {
    let stuck = quiet * STUCK;
    let mut ticks = tokio::time::interval(quiet);
    let mut heard = Instant::now();
    loop {
        let (message, last) = tokio::select! {
            event = events.next() => match event {
                Some(Ok((cursor, mut value))) => {
                    if let Some(map) = value.as_object_mut() {
                        map.insert("cursor".to_owned(), json!(cursor));
                    }
                    (Message::Text(value.to_string().into()), false)
                }
                Some(Err(refusal)) => {
                    let text = json!({"topic": "error", "error": ErrorBody::from(&refusal)}).to_string();
                    (Message::Text(text.into()), true)
                }
                None => return,
            },
            // What a client says is of no interest; that it does is, and that it goes.
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
            },
            _ = ticks.tick() => {
                // One that is there answers a ping; one that went without a word never does.
                if heard.elapsed() >= stuck {
                    return;
                }
                (Message::Ping(Bytes::new()), false)
            }
        };
        match tokio::time::timeout(stuck, socket.send(message)).await {
            Ok(Ok(())) if !last => {}
            _ => return,
        }
    }
}
