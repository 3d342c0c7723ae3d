//! AION's tools for clients of the Model Context Protocol, at `/mcp`: streamable HTTP, a bearer token that speaks for one agent.

use aion_kernel::{Caller, Kernel};
use aion_mcp::{Post, Reply, Server, ServerOptions, ToolFailure, ToolInfo, ToolResult, Toolbox};
use aion_syscall::{Reason, Refusal, Request as Syscall};
use aion_types::ErrorCode;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, Uri};
use serde_json::{Map, Value, json};

use crate::routes::Shared;
use crate::{auth, reply};

/// The installed tools, as a client sees them.
pub(crate) struct Tools(pub(crate) Kernel);

pub(crate) fn server(kernel: Kernel) -> Server<Tools> {
    let options = ServerOptions {
        name: "aion".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..ServerOptions::default()
    };
    Server::new(Tools(kernel), options)
}

/// Who calls, and from which trace.
pub(crate) struct Visitor {
    caller: Caller,
    trace: Option<String>,
}

/// A tool as clients of the protocol read it.
fn tool(item: Value) -> Option<ToolInfo> {
    let Value::Object(mut item) = item else { return None };
    let mut text = |name: &str| item.remove(name).and_then(|text| text.as_str().map(str::to_owned));
    let (name, description) = (text("name")?, text("description").unwrap_or_default());
    let mut schema = |name: &str| item.remove(name).filter(Value::is_object);
    Some(ToolInfo {
        name,
        description,
        input_schema: schema("input").unwrap_or_else(|| json!({"type": "object"})),
        // Only an object can be promised as structured content.
        output_schema: schema("output").filter(|schema| schema["type"] == "object"),
    })
}

impl Toolbox for Tools {
    type Caller = Visitor;

    async fn list(&self, visitor: &Visitor) -> Vec<ToolInfo> {
        // A call as any other: who may not ask is told of none, and the log says that it asked.
        let Ok(call) = Syscall::from_value(json!({"params": {}}), Some("tool.list")) else {
            return Vec::new();
        };
        let outcome = self.0.invoke(visitor.caller.clone(), call.within(visitor.trace.as_deref())).await;
        let Value::Object(mut result) = outcome.answer.result else { return Vec::new() };
        let Some(Value::Array(items)) = result.remove("items") else { return Vec::new() };
        items.into_iter().filter_map(tool).collect()
    }

    async fn call(
        &self,
        visitor: &Visitor,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<ToolResult, ToolFailure> {
        let mut params = arguments;
        if params.insert("tool".to_owned(), json!(name)).is_some() {
            return Err(ToolFailure::InvalidArguments { reason: "the argument tool is AION's".to_owned() });
        }
        let call = Syscall::from_value(json!({"params": params}), Some("tool.invoke"))
            .map_err(|refusal| ToolFailure::InvalidArguments { reason: refusal.message })?
            .within(visitor.trace.as_deref());
        let outcome = self.0.invoke(visitor.caller.clone(), call).await;
        match (outcome.refusal, outcome.answer.result) {
            (Some(refusal), _) if refusal.code == ErrorCode::ToolNotFound => Err(ToolFailure::Unknown),
            (Some(refusal), _) if refusal.reason == Reason::Internal => {
                Err(ToolFailure::Internal { reason: refusal.message })
            }
            (Some(refusal), _) => Err(ToolFailure::Failed { reason: refusal.to_string() }),
            (None, Value::Object(result)) => Ok(ToolResult::structured(result)),
            (None, other) => Ok(ToolResult::text(other.to_string())),
        }
    }
}

/// A page of another origin must not speak for the person before the browser.
fn is_foreign(origin: &HeaderValue) -> bool {
    let host = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok());
    let host = host.as_ref().and_then(Uri::host).unwrap_or_default();
    !matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

pub(crate) async fn post(State(shared): State<Shared>, request: Request<Body>) -> Response {
    if request.headers().get("origin").is_some_and(is_foreign) {
        return reply::refused(&Refusal::denied("requests of other origins are not taken", "door: origin"));
    }
    let admitted = match auth::bearer(&shared.kernel, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return reply::refused(&refusal),
    };
    let header = |name: &str| admitted.parts.headers.get(name).and_then(|value| value.to_str().ok());
    let post = Post {
        session: header("mcp-session-id"),
        protocol: header("mcp-protocol-version"),
        body: &admitted.body,
    };
    let visitor = Visitor { caller: admitted.caller.clone(), trace: admitted.trace().map(str::to_owned) };
    match shared.mcp.handle(&visitor, post).await {
        Reply::Json(value, session) => {
            let mut response = reply::json_reply(StatusCode::OK, &value);
            if let Some(Ok(session)) = session.map(|session| HeaderValue::from_str(&session)) {
                response.headers_mut().insert("mcp-session-id", session);
            }
            response
        }
        Reply::Accepted => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
        Reply::Error(status, value) => {
            reply::json_reply(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), &value)
        }
    }
}
