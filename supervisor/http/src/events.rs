//! Events as they happen: a WebSocket, or server-sent events for those who accept them. Each has a cursor; a client that comes
//! back with the last one it saw (`Last-Event-ID`, or `cursor=`) misses and repeats nothing.

use std::time::Duration;

use aion_kernel::Caller;
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

use crate::auth;
use crate::backend::{EventQuery, EventStream};
use crate::reply;
use crate::routes::Shared;

/// A sign of life in a quiet stream.
const QUIET: Duration = Duration::from_secs(15);
/// A client that takes nothing for so long is let go.
const STUCK: Duration = Duration::from_secs(30);
const MAX_TOPICS: usize = 32;

pub(crate) async fn stream(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::refused(&refusal),
    };
    let mut parts = admitted.parts;
    let query = match query_of(&parts, &admitted.caller) {
        Ok(query) => query,
        Err(refusal) => return reply::refused(&refusal),
    };
    let events = match shared.backend.events(query) {
        Ok(events) => events,
        Err(refusal) => return reply::refused(&refusal),
    };
    let plain = parts
        .headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if plain {
        return server_sent(events);
    }
    match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.max_message_size(1 << 16).on_upgrade(move |socket| websocket(socket, events)),
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

fn server_sent(events: EventStream) -> Response {
    let lines = futures::stream::unfold(Some(events), |events| async move {
        let mut events = events?;
        match tokio::time::timeout(QUIET, events.next()).await {
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

async fn websocket(mut socket: WebSocket, mut events: EventStream) {
    loop {
        let message = tokio::select! {
            event = events.next() => match event {
                Some(Ok((cursor, mut value))) => {
                    if let Some(map) = value.as_object_mut() {
                        map.insert("cursor".to_owned(), json!(cursor));
                    }
                    Message::Text(value.to_string().into())
                }
                Some(Err(refusal)) => {
                    let text = json!({"topic": "error", "error": ErrorBody::from(&refusal)}).to_string();
                    let _ = tokio::time::timeout(STUCK, socket.send(Message::Text(text.into()))).await;
                    return;
                }
                None => return,
            },
            // What a client says is of no interest; that it goes is.
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            () = tokio::time::sleep(QUIET) => Message::Ping(Bytes::new()),
        };
        match tokio::time::timeout(STUCK, socket.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}
