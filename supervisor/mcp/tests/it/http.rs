//! The HTTP client and the server against each other, over a real listener on the loopback interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aion_mcp::{
    Bearer, Client, Closed, Error, HttpOptions, INVALID_PARAMS, Options, Post, Reply, Revision, Server,
    ServerOptions, ToolFailure, ToolInfo, ToolResult, Toolbox,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::soon;

/// Sessions that are open, and calls that are under way.
#[derive(Default)]
pub(crate) struct Tools {
    with_sessions: bool,
    sessions: AtomicUsize,
    running: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Toolbox for Tools {
    type Caller = str;

    async fn list(&self, _: &str) -> Vec<ToolInfo> {
        ["add", "fails", "sleep", "whoami"]
            .map(|name| ToolInfo {
                name: name.to_owned(),
                description: format!("The tool {name}."),
                input_schema: json!({"type": "object"}),
                output_schema: (name == "add").then(
                    || json!({"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}),
                ),
            })
            .to_vec()
    }

    async fn call(
        &self,
        caller: &str,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<ToolResult, ToolFailure> {
        match name {
            "add" => {
                let number = |key| arguments.get(key).and_then(Value::as_i64);
                let (Some(a), Some(b)) = (number("a"), number("b")) else {
                    return Err(ToolFailure::InvalidArguments { reason: "a and b are numbers".to_owned() });
                };
                Ok(ToolResult::structured(Map::from_iter([("sum".to_owned(), json!(a + b))])))
            }
            "whoami" => Ok(ToolResult::text(caller)),
            "fails" => Err(ToolFailure::Failed { reason: "disk full".to_owned() }),
            "sleep" => {
                self.running.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
            _ => Err(ToolFailure::Unknown),
        }
    }

    async fn open_session(&self, _: &str) -> Option<String> {
        self.with_sessions.then(|| format!("session-{}", self.sessions.fetch_add(1, Ordering::SeqCst) + 1))
    }

    async fn has_session(&self, _: &str, session: &str) -> bool {
        session == format!("session-{}", self.sessions.load(Ordering::SeqCst))
    }
}

type Shared = Arc<Server<Tools>>;

async fn handle(State(server): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let caller = match text("authorization") {
        None => "nobody",
        Some("Bearer good") => "ann",
        Some(_) => return StatusCode::UNAUTHORIZED.into_response(),
    };
    if body.windows(23).any(|part| part == b"notifications/cancelled") {
        server.toolbox().cancelled.fetch_add(1, Ordering::SeqCst);
    }
    let post = Post { session: text("mcp-session-id"), protocol: text("mcp-protocol-version"), body: &body };
    let json = [(header::CONTENT_TYPE, "application/json")];
    match server.handle(caller, post).await {
        Reply::Json(value, None) => (json, value.to_string()).into_response(),
        Reply::Json(value, Some(id)) => (json, [("mcp-session-id", id)], value.to_string()).into_response(),
        Reply::Accepted => StatusCode::ACCEPTED.into_response(),
        Reply::Error(status, value) => {
            (StatusCode::from_u16(status).unwrap(), json, value.to_string()).into_response()
        }
    }
}

async fn end(State(server): State<Shared>, headers: HeaderMap) -> StatusCode {
    assert!(headers.contains_key("mcp-session-id") && headers.contains_key("mcp-protocol-version"));
    server.toolbox().sessions.store(0, Ordering::SeqCst);
    StatusCode::NO_CONTENT
}

/// Serves on a free port and says its address.
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/mcp")
}

pub(crate) async fn start(with_sessions: bool) -> (Shared, String) {
    let tools = Tools { with_sessions, ..Tools::default() };
    let server = Arc::new(Server::new(tools, ServerOptions { page_size: 3, ..ServerOptions::default() }));
    let routes = post(handle).merge(delete(end));
    let endpoint = serve(Router::new().route("/mcp", routes).with_state(Arc::clone(&server))).await;
    (server, endpoint)
}

pub(crate) fn connect(endpoint: &str) -> Client {
    Client::http(HttpOptions::new(endpoint).unwrap(), Options::default()).unwrap()
}

/// Waits for what another task does.
async fn becomes(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not become so");
}

#[tokio::test]
async fn both_sides_agree() {
    for with_sessions in [false, true] {
        let (server, endpoint) = start(with_sessions).await;
        let client = connect(&endpoint);
        let info = client.initialize().await.unwrap();
        assert_eq!((info.revision, info.name.as_str()), (Revision::LATEST, "aion"));
        client.ping().await.unwrap();
        let tools = client.list_tools().await.unwrap();
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["add", "fails", "sleep", "whoami"]);
        assert!(tools[0].output_schema.is_some() && tools[0].description == "The tool add.");

        let arguments = Map::from_iter([("a".to_owned(), json!(2)), ("b".to_owned(), json!(3))]);
        let result = client.call_tool("add", arguments, soon()).await.unwrap();
        assert_eq!(result.structured, Some(json!({"sum": 5})));
        assert!(client.call_tool("fails", Map::new(), soon()).await.unwrap().is_error);
        for name in ["add", "no such"] {
            let error = client.call_tool(name, Map::new(), soon()).await.unwrap_err();
            assert!(matches!(error, Error::Refused { source, .. } if source.code == INVALID_PARAMS));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.toolbox().cancelled.load(Ordering::SeqCst), 0, "an answered call was cancelled");
    }
}

#[tokio::test]
async fn the_token_is_sent() {
    let (_, endpoint) = start(false).await;
    let place = HttpOptions::new(&endpoint).unwrap();
    for (token, caller) in [("good", Some("ann")), ("bad", None)] {
        let place = place.clone().bearer(Bearer::new(token).unwrap());
        let client = Client::http(place, Options::default()).unwrap();
        match (client.initialize().await, caller) {
            (Ok(_), Some(caller)) => {
                let result = client.call_tool("whoami", Map::new(), soon()).await.unwrap();
                assert_eq!(result.content[0]["text"], caller);
            }
            (Err(Error::Status { status: 401, .. }), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_session_ends_on_either_side() {
    let (server, endpoint) = start(true).await;
    let client = connect(&endpoint);
    client.initialize().await.unwrap();
    server.toolbox().sessions.store(7, Ordering::SeqCst);
    assert!(matches!(client.ping().await, Err(Error::SessionEnded)));

    for by_drop in [false, true] {
        let client = connect(&endpoint);
        client.initialize().await.unwrap();
        client.ping().await.unwrap();
        if by_drop {
            drop(client);
        } else {
            client.close().await;
            assert!(matches!(client.closed().await, Closed::ByUs));
            assert!(matches!(client.ping().await, Err(Error::Closed(Closed::ByUs))));
        }
        becomes(|| server.toolbox().sessions.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn deadlines_and_drops_cancel() {
    let (server, endpoint) = start(false).await;
    let client = connect(&endpoint);
    client.initialize().await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = client.call_tool("sleep", Map::new(), deadline).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { method: "tools/call", .. }));
    becomes(|| server.toolbox().cancelled.load(Ordering::SeqCst) == 1).await;
    tokio::select! {
        _ = client.call_tool("sleep", Map::new(), soon()) => panic!("answered"),
        () = becomes(|| server.toolbox().running.load(Ordering::SeqCst) == 2) => {}
    }
    becomes(|| server.toolbox().cancelled.load(Ordering::SeqCst) == 2).await;
    let (result, ()) = tokio::join!(client.call_tool("sleep", Map::new(), soon()), async {
        becomes(|| server.toolbox().running.load(Ordering::SeqCst) == 3).await;
        client.close().await;
    });
    assert!(matches!(result, Err(Error::Closed(Closed::ByUs))));
}

#[tokio::test]
async fn nobody_there() {
    let client = connect("http://127.0.0.1:1/mcp?key=s3cret");
    let error = client.initialize().await.unwrap_err();
    assert!(matches!(&error, Error::Http(source) if source.is_connect()));
    assert!(!format!("{error:?}").contains("s3cret"));
}
