//! The routes of the contract: each lets a request in and hands it to the kernel.

use std::sync::Arc;
use std::time::Duration;

use aion_kernel::{Caller, Kernel, Outcome};
use aion_syscall::{Reason, Refusal, Request as Syscall};
use aion_types::{ErrorCode, TraceParent};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{Request, StatusCode};
use serde_json::{Map, Value, json};

use crate::backend::Backend;
use crate::{auth, docs, events, mcp, openai, reply};

/// What all routes share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) kernel: Kernel,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) mcp: Arc<aion_mcp::Server<mcp::Tools>>,
    /// How often a quiet stream of events gives a sign of life.
    pub(crate) quiet: Duration,
}

pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/agent/register", post(register))
        .route("/v1/agent/heartbeat", post(heartbeat))
        .route("/v1/syscall/{name}", post(syscall))
        .route("/v1/memory/put", post(memory_put))
        .route("/v1/memory/get", post(memory_get))
        .route("/v1/memory/query", post(memory_query))
        .route("/v1/schedule/submit", post(schedule))
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        .route("/mcp", post(mcp::post))
        .route("/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .fallback(nowhere)
        .method_not_allowed_fallback(no_method)
        .with_state(shared)
}

pub(crate) async fn nowhere(request: Request<Body>) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    let refusal =
        Refusal::new(Reason::NotFound, ErrorCode::InvalidField, format!("there is nothing at {path}"))
            .hint("/openapi.json describes what there is");
    reply::refused(&refusal)
}

pub(crate) async fn no_method(request: Request<Body>) -> Response {
    let message = format!("{} is not answered at {}", request.method(), request.uri().path());
    let refusal = Refusal::new(Reason::Invalid, ErrorCode::InvalidField, message)
        .hint("/openapi.json describes what there is");
    let mut response = reply::refused(&refusal);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

pub(crate) async fn openapi() -> Response {
    reply::json_reply(StatusCode::OK, &docs::openapi())
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let mut text = shared.backend.metrics().await;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&shared.kernel.metrics_text());
    reply::text("text/plain; version=0.0.4; charset=utf-8", text)
}

pub(crate) async fn health() -> Response {
    reply::json_reply(StatusCode::OK, &json!({"status": "ok"}))
}

async fn ready(State(shared): State<Shared>) -> Response {
    let parts = shared.backend.parts().await;
    let ok = parts.iter().all(|part| part.ok);
    let told: Vec<_> =
        parts.iter().map(|part| json!({"name": part.name, "ok": part.ok, "detail": part.detail})).collect();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply::json_reply(status, &json!({"status": if ok { "ok" } else { "degraded" }, "parts": told}))
}

fn json_of(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::field("body", format!("it is not JSON: {error}")))
}

pub(crate) async fn syscall(
    State(shared): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let Ok(Path(name)) = name else {
        let refusal = Refusal::field("syscall", "the call's name in the path is not UTF-8")
            .hint("the path is /v1/syscall/NAME, as /v1/syscall/tool.invoke");
        return reply::outcome(&Outcome::refused(refusal));
    };
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::outcome(&Outcome::refused(refusal)),
    };
    let call = auth::agent_header(&admitted).and_then(|agent| match agent {
        None => Syscall::parse(&admitted.body, Some(&name)),
        Some(agent) => Syscall::from_value(with_agent(json_of(&admitted.body)?, agent), Some(&name)),
    });
    match call {
        Ok(call) => {
            let call = call.within(admitted.trace());
            reply::outcome(&shared.kernel.invoke(admitted.caller, call).await)
        }
        Err(refusal) => reply::outcome(&shared.kernel.refused(&admitted.caller, &name, refusal).await),
    }
}

/// What the header says where the body says nothing.
fn with_agent(mut body: Value, agent: &str) -> Value {
    if let Some(map) = body.as_object_mut()
        && ["agent_id", "agent"].iter().all(|field| map.get(*field).is_none_or(Value::is_null))
    {
        map.insert("agent_id".to_owned(), json!(agent));
    }
    body
}

pub(crate) async fn memory_put(state: State<Shared>, request: Request<Body>) -> Response {
    memory(state, request, "memory.put").await
}

pub(crate) async fn memory_get(state: State<Shared>, request: Request<Body>) -> Response {
    memory(state, request, "memory.get").await
}

pub(crate) async fn memory_query(state: State<Shared>, request: Request<Body>) -> Response {
    memory(state, request, "memory.query").await
}

/// The contract's bodies have no envelope: whose memory it is stands in `agent_id`, in the header `X-Agent-Id`, in
/// `meta.agent` or in `filter.agent`. Where nothing of this is there, it is the tenant's own.
async fn memory(State(shared): State<Shared>, request: Request<Body>, name: &str) -> Response {
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::outcome(&Outcome::refused(refusal)),
    };
    let call = auth::agent_header(&admitted)
        .and_then(|header| enveloped(&admitted.body, header, &admitted.caller))
        .and_then(|body| Syscall::from_value(body, Some(name)));
    match call {
        Ok(call) => {
            let call = call.within(admitted.trace());
            reply::outcome(&shared.kernel.invoke(admitted.caller, call).await)
        }
        Err(refusal) => reply::outcome(&shared.kernel.refused(&admitted.caller, name, refusal).await),
    }
}

fn enveloped(body: &[u8], header: Option<&str>, caller: &Caller) -> Result<Value, Refusal> {
    let Value::Object(mut params) = json_of(body)? else {
        return Err(Refusal::field("body", "it is not a JSON object"));
    };
    let mut envelope = Map::new();
    for field in ["context", "caps_required", "budget", "schema"] {
        if let Some(value) = params.remove(field) {
            envelope.insert(field.to_owned(), value);
        }
    }
    // Whoever means an agent and has lost its name does not mean the tenant.
    let lost = |field: &str| {
        Refusal::field(field, "it names no agent")
            .hint("name an agent, or leave it out: then it is the tenant's own memory")
    };
    let named = |outer: &str| match params.get(outer).and_then(|value| value.get("agent")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(agent)) if agent.contains("://") => Ok(Some(agent.clone())),
        Some(Value::String(agent)) if !agent.is_empty() => {
            Ok(Some(format!("agent://{}/{agent}", caller.tenant())))
        }
        Some(_) => Err(lost(&format!("{outer}.agent"))),
    };
    let agent = match (params.get("agent_id"), header) {
        (Some(Value::String(given)), _) if given.is_empty() => return Err(lost("agent_id")),
        (Some(given), _) if !given.is_null() => Some(given.clone()),
        (_, Some(header)) => Some(json!(header)),
        _ => match named("filter")? {
            Some(agent) => Some(Value::String(agent)),
            None => named("meta")?.map(Value::String),
        },
    };
    params.remove("agent_id");
    if let Some(agent) = agent {
        envelope.insert("agent_id".to_owned(), agent);
    }
    envelope.insert("params".to_owned(), Value::Object(params));
    Ok(Value::Object(envelope))
}

async fn register(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::refused(&refusal),
    };
    match json_of(&admitted.body) {
        Ok(body) => reply::result(shared.kernel.register(&admitted.caller, &body).await),
        Err(refusal) => reply::refused(&refusal),
    }
}

pub(crate) async fn heartbeat(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::refused(&refusal),
    };
    let beat = auth::agent_header(&admitted).and_then(|agent| {
        let body = json_of(&admitted.body)?;
        let body = match agent {
            Some(agent) => with_agent(body, agent),
            None => body,
        };
        shared.kernel.heartbeat(&admitted.caller, &body)
    });
    reply::result(beat)
}

async fn schedule(State(shared): State<Shared>, request: Request<Body>) -> Response {
    let admitted = match auth::signed(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::refused(&refusal),
    };
    match json_of(&admitted.body) {
        Ok(mut body) => {
            let header = match auth::agent_header(&admitted) {
                Ok(header) => header,
                Err(refusal) => return reply::refused(&refusal),
            };
            let says = |field: &str| body.get(field).is_some_and(|value| !value.is_null());
            if says("agent") && says("agent_id") {
                return reply::refused(&Refusal::field(
                    "agent",
                    "agent_id says it already: leave one of them out",
                ));
            }
            if let Some(agent) = header {
                body = with_agent(body, agent);
            }
            // What the body says of its trace is signed, and counts more.
            if let Some(parent) = admitted.trace().and_then(TraceParent::parse)
                && let Some(map) = body.as_object_mut()
                && map.get("trace_id").is_none_or(Value::is_null)
            {
                map.insert("trace_id".to_owned(), json!(parent.trace_id()));
            }
            reply::result(shared.kernel.schedule(&admitted.caller, body).await)
        }
        Err(refusal) => reply::refused(&refusal),
    }
}
