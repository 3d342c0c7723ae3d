//! The same on an agent's own socket: HTTP for programs that bring no gRPC. Who calls, the socket says; nothing is signed, and an
//! agent finds there what is its own: no registration of others, no tasks of others, no figures.

use std::sync::Arc;

use aion_kernel::{Caller, Kernel};
use axum::Router;
use axum::body::Body;
use axum::middleware::map_request;
use axum::routing::{get, post};
use http::{Extensions, Request};

use crate::auth::Known;
use crate::backend::Backend;
use crate::routes::{self, Shared};
use crate::{events, mcp, openai};

/// Routes for a socket whose connections are one agent's each; `caller_of` says whose, from what the connection left with the request.
pub fn own_routes(
    kernel: Kernel,
    backend: Arc<dyn Backend>,
    caller_of: fn(&Extensions) -> Option<Caller>,
) -> Router {
    let mcp = Arc::new(mcp::server(kernel.clone()));
    Router::new()
        .route("/v1/agent/heartbeat", post(routes::heartbeat))
        .route("/v1/syscall/{name}", post(routes::syscall))
        .route("/v1/memory/put", post(routes::memory_put))
        .route("/v1/memory/get", post(routes::memory_get))
        .route("/v1/memory/query", post(routes::memory_query))
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        .route("/mcp", post(mcp::post))
        .route("/openapi.json", get(routes::openapi))
        .route("/healthz", get(routes::health))
        .fallback(routes::nowhere)
        .method_not_allowed_fallback(routes::no_method)
        .with_state(Shared { kernel, backend, mcp, quiet: events::QUIET })
        .layer(map_request(move |mut request: Request<Body>| async move {
            if let Some(caller) = caller_of(request.extensions()) {
                request.extensions_mut().insert(Known(caller));
            }
            request
        }))
}
