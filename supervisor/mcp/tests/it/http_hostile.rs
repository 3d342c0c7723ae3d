//! HTTP servers that break the protocol, on purpose.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_mcp::{Client, Closed, Error, HttpOptions, METHOD_NOT_FOUND, Options, ToolResult};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::fake::text;
use crate::http::serve;
use crate::soon;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// Whatever the client posted that is neither the handshake nor a call.
type Others = Arc<Mutex<Vec<Value>>>;

/// Calls a tool of a server whose handshake is right and which answers calls like this, given the call's id.
async fn call<F>(answer: F) -> (aion_mcp::Result<ToolResult>, Vec<Value>)
where
    F: Fn(&Value) -> Response + Clone + Send + Sync + 'static,
{
    let others = Others::default();
    let seen = Arc::clone(&others);
    let route = any(move |body: Bytes| {
        let (answer, seen) = (answer.clone(), Arc::clone(&seen));
        async move {
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            match message["method"].as_str() {
                Some("initialize") => reply(JSON, initialized(&message["id"])),
                Some("tools/call") => answer(&message["id"]),
                _ => {
                    seen.lock().unwrap().push(message);
                    StatusCode::ACCEPTED.into_response()
                }
            }
        }
    });
    let endpoint = serve(Router::new().route("/mcp", route.clone()).route("/elsewhere", route)).await;
    let options = Options { max_message_bytes: 4096, max_unsolicited: 100, ..Options::default() };
    let client = Client::http(HttpOptions::new(&endpoint).unwrap(), options).unwrap();
    client.initialize().await.unwrap();
    let result = client.call_tool("x", Map::new(), soon()).await;
    let others = others.lock().unwrap().clone();
    (result, others)
}

fn initialized(id: &Value) -> String {
    let result = json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}});
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

fn reply(kind: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], body.into()).into_response()
}

fn done(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": text("done")})
}

#[tokio::test]
async fn a_stream_with_other_messages_before_the_answer() {
    let (result, others) = call(|id| {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
        let ask = json!({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage"});
        let odd = "event: other\ndata: no JSON\n\n";
        let body = format!(
            ": hi\n\nid: 1\ndata: {note}\n\n{odd}event: message\ndata: {ask}\r\n\r\ndata: {}\n\n",
            done(id)
        );
        reply(EVENTS, body)
    })
    .await;
    assert_eq!(result.unwrap().content[0]["text"], "done");
    let refused = others.iter().find(|message| message["id"] == "s").unwrap();
    assert_eq!(refused["error"]["code"], METHOD_NOT_FOUND);
}

#[tokio::test]
async fn streams_that_do_not_keep_to_the_protocol() {
    let reason = |result: aion_mcp::Result<ToolResult>| match result {
        Err(Error::Closed(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let (result, _) = call(|_| reply(EVENTS, "data: hello\n\n")).await;
    assert!(matches!(reason(result), Closed::NotJson));
    let (result, _) = call(|_| reply(EVENTS, "")).await;
    assert!(matches!(reason(result), Closed::Eof));
    let (result, _) = call(|id| reply(EVENTS, format!("data: {}", done(id)))).await;
    assert!(matches!(reason(result), Closed::Eof), "the event was not complete");
    let (result, _) = call(|_| reply(EVENTS, format!("data: {}\n\n", done(&json!(99))))).await;
    assert!(matches!(reason(result), Closed::UnknownId));
    let endless = || futures::stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1000])));
    let (result, _) = call(move |_| reply(EVENTS, Body::from_stream(endless()))).await;
    assert!(matches!(reason(result), Closed::TooLong { limit: 4096 }));
    let (result, _) = call(|_| {
        let note = "data: {\"jsonrpc\":\"2.0\",\"method\":\"n\"}\n\n";
        reply(EVENTS, Body::from_stream(futures::stream::repeat(Ok::<_, Infallible>(note))))
    })
    .await;
    assert!(matches!(reason(result), Closed::Flood));
}

#[tokio::test]
async fn bodies_that_do_not_keep_to_the_protocol() {
    let (result, _) = call(|_| {
        let endless = futures::stream::repeat(Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1000])));
        reply(JSON, Body::from_stream(endless))
    })
    .await;
    assert!(matches!(result, Err(Error::Closed(Closed::TooLong { .. }))));
    let (result, _) = call(|_| reply(JSON, "")).await;
    assert!(matches!(result, Err(Error::Closed(Closed::Eof))));
    let (result, _) = call(|id| reply("text/html", done(id).to_string())).await;
    assert!(matches!(result, Err(Error::Malformed { .. })));
    let (result, _) = call(|_| StatusCode::ACCEPTED.into_response()).await;
    assert!(matches!(result, Err(Error::Status { status: 202, .. })));
    let (result, _) = call(|_| StatusCode::NOT_FOUND.into_response()).await;
    assert!(matches!(result, Err(Error::Status { status: 404, source: None, .. })), "there is no session");
    let (result, _) = call(|id| {
        let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32600, "message": "no"}});
        (StatusCode::BAD_REQUEST, reply(JSON, error.to_string())).into_response()
    })
    .await;
    let Err(Error::Status { status: 400, source: Some(source), .. }) = result else { panic!("{result:?}") };
    assert_eq!(source.code, -32600);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [StatusCode::TEMPORARY_REDIRECT, StatusCode::SEE_OTHER, StatusCode::PERMANENT_REDIRECT] {
        let (result, others) =
            call(move |_| (status, [(header::LOCATION, "/elsewhere")]).into_response()).await;
        assert!(matches!(result, Err(Error::Status { status: s, .. }) if s == status.as_u16()));
        // Only the end of the handshake.
        assert_eq!(others.len(), 1, "{others:?}");
    }
}

#[tokio::test]
async fn session_ids_that_are_not_valid() {
    for session in ["a b".to_owned(), "x".repeat(2000), "é".to_owned(), String::new()] {
        let session = header::HeaderValue::from_bytes(session.as_bytes()).unwrap();
        let route = any(move |body: Bytes| async move {
            let message: Value = serde_json::from_slice(&body).unwrap();
            ([("mcp-session-id", session)], reply(JSON, initialized(&message["id"]))).into_response()
        });
        let endpoint = serve(Router::new().route("/mcp", route)).await;
        let client = Client::http(HttpOptions::new(&endpoint).unwrap(), Options::default()).unwrap();
        assert!(matches!(client.initialize().await, Err(Error::Malformed { .. })));
    }
}

#[tokio::test]
async fn a_stream_that_never_comes_to_the_point() {
    let slow = futures::stream::repeat(Ok::<_, Infallible>(": still here\n\n")).then(|line| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        line
    });
    let slow = Arc::new(Mutex::new(Some(slow.boxed())));
    let route = any(move |body: Bytes| async move {
        let message: Value = serde_json::from_slice(&body).unwrap();
        match message["method"].as_str() {
            Some("initialize") => reply(JSON, initialized(&message["id"])),
            Some("tools/call") => reply(EVENTS, Body::from_stream(slow.lock().unwrap().take().unwrap())),
            _ => StatusCode::ACCEPTED.into_response(),
        }
    });
    let endpoint = serve(Router::new().route("/mcp", route)).await;
    let client = Client::http(HttpOptions::new(&endpoint).unwrap(), Options::default()).unwrap();
    client.initialize().await.unwrap();
    let began = Instant::now();
    let result = client.call_tool("x", Map::new(), began + Duration::from_millis(200)).await;
    assert!(matches!(result, Err(Error::Timeout { .. })));
    assert!(began.elapsed() < Duration::from_secs(5));
}
