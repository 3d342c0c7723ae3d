//! The door for clients of OpenAI's API, unmodified: `model.generate` and `model.embed` with another envelope. The API key is a
//! bearer token that speaks for one agent; everything is decided, metered and recorded as any other call.

use aion_kernel::{Caller, Outcome};
use aion_syscall::{Refusal, Request as Syscall};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::routes::Shared;
use crate::{auth, reply};

/// Chunks that wait for a slow client.
const AHEAD: usize = 64;

/// An error as OpenAI's clients read it.
fn failed(refusal: &Refusal) -> Response {
    let status = reply::number(refusal.reason);
    let mut response = reply::json_reply(status, &error_body(refusal));
    if let Some(ms) = refusal.retry_after_ms
        && let Ok(value) = HeaderValue::from_str(&ms.div_ceil(1000).max(1).to_string())
    {
        response.headers_mut().insert("retry-after", value);
    }
    response
}

fn error_body(refusal: &Refusal) -> Value {
    json!({"error": {
        "message": refusal.message, "type": refusal.code.as_str().to_lowercase(), "code": refusal.code.as_str(),
        "param": if refusal.field.is_empty() { Value::Null } else { json!(refusal.field.trim_start_matches("params.")) },
    }})
}

fn call(name: &str, body: &[u8]) -> Result<(Syscall, bool), Refusal> {
    let params: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::field("body", format!("it is not JSON: {error}")))?;
    let streamed = params.get("stream").and_then(Value::as_bool).unwrap_or(false);
    Ok((Syscall::from_value(json!({"params": params}), Some(name))?, streamed))
}

pub(crate) async fn chat(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::bearer(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return failed(&refusal),
    };
    match call("model.generate", &admitted.body) {
        Ok((call, true)) => {
            let call = call.within(admitted.trace());
            streamed(shared, admitted.caller, call).await
        }
        Ok((call, false)) => {
            let call = call.within(admitted.trace());
            whole(&shared.kernel.invoke(admitted.caller, call).await)
        }
        Err(refusal) => failed(&refusal),
    }
}

pub(crate) async fn embeddings(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::bearer(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return failed(&refusal),
    };
    match call("model.embed", &admitted.body) {
        Ok((call, _)) => {
            let call = call.within(admitted.trace());
            whole(&shared.kernel.invoke(admitted.caller, call).await)
        }
        Err(refusal) => failed(&refusal),
    }
}

pub(crate) async fn models(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::bearer(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return failed(&refusal),
    };
    let call = match Syscall::from_value(json!({"params": {}}), Some("model.list")) {
        Ok(call) => call.within(admitted.trace()),
        Err(refusal) => return failed(&refusal),
    };
    let mut outcome = shared.kernel.invoke(admitted.caller, call).await;
    if outcome.refusal.is_none() {
        let items =
            outcome.answer.result.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let data: Vec<_> = items.iter().map(model).collect();
        outcome.answer.result = json!({"object": "list", "data": data});
    }
    whole(&outcome)
}

/// A model as OpenAI's clients read it.
fn model(item: &Value) -> Value {
    let owner = if item["local"] == json!(true) { "local" } else { "cloud" };
    json!({"id": item["name"], "object": "model", "created": 0, "owned_by": owner})
}

fn whole(outcome: &Outcome) -> Response {
    match &outcome.refusal {
        Some(refusal) => failed(refusal),
        None => {
            with_audit(reply::json_reply(StatusCode::OK, &outcome.answer.result), &outcome.answer.audit_id)
        }
    }
}

fn with_audit(mut response: Response, audit_id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(audit_id) {
        response.headers_mut().insert("x-aion-audit-id", value);
    }
    response
}

/// Server-sent events, as they come. What goes wrong before the first of them has a number.
async fn streamed(shared: Shared, caller: Caller, call: Syscall) -> Response {
    let (send, mut chunks) = mpsc::channel(AHEAD);
    let kernel = shared.kernel.clone();
    let mut ending = tokio::spawn(async move { kernel.invoke_stream(caller, call, send).await });
    let first = chunks.recv().await;
    if first.is_none() {
        return match (&mut ending).await {
            Ok(outcome) => match &outcome.refusal {
                Some(refusal) => failed(refusal),
                None => events_of(Body::from("data: [DONE]\n\n")),
            },
            Err(_) => failed(&Refusal::field("body", "the call did not run to its end")),
        };
    }
    let parts = stream::unfold((first, chunks, Some(ending)), |(next, mut chunks, ending)| async move {
        if let Some(chunk) = next {
            let line = Bytes::from(format!("data: {chunk}\n\n"));
            let next = chunks.recv().await;
            return Some((Ok::<_, std::convert::Infallible>(line), (next, chunks, ending)));
        }
        let ended = ending?.await;
        let last = match ended {
            Ok(Outcome { refusal: Some(refusal), .. }) => format!("data: {}\n\n", error_body(&refusal)),
            _ => "data: [DONE]\n\n".to_owned(),
        };
        Some((Ok(Bytes::from(last)), (None, chunks, None)))
    });
    events_of(Body::from_stream(parts))
}

fn events_of(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
