//! A backend that speaks OpenAI's API as a test wants it to, on a loopback port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use futures::StreamExt as _;
use serde_json::{Value, json};

/// What it answers with.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A chat completion, a stream of one, or embeddings, as asked.
    Normal,
    /// This status, these headers, this body.
    Plain(u16, Vec<(&'static str, String)>, String),
    /// 200 with these events as they are, then the end.
    Events(Vec<String>),
    /// A stream that says something twice in a second, for ever.
    Endless,
    /// 200, the beginning of a body, and a broken connection.
    Broken,
    /// Nothing, ever.
    Hang,
    /// 200 and this many bytes.
    Huge(usize),
}

impl Reply {
    pub(crate) fn status(status: u16, message: &str) -> Self {
        let body = json!({"error": {"message": message}}).to_string();
        Self::Plain(status, Vec::new(), body)
    }

    pub(crate) fn json(value: &Value) -> Self {
        Self::Plain(200, Vec::new(), value.to_string())
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Shared {
    /// One for each request; the last one stays.
    script: Mutex<Vec<Reply>>,
    seen: Mutex<Vec<Seen>>,
    taken: AtomicUsize,
    dropped: AtomicBool,
}

/// The backend; it ends with the test's runtime.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Backend {
    pub(crate) async fn start(script: Vec<Reply>) -> Self {
        let shared = Arc::new(Shared { script: Mutex::new(script), ..Shared::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Replaces what is answered from now on.
    pub(crate) fn script(&self, script: Vec<Reply>) {
        *self.shared.script.lock().unwrap() = script;
        self.shared.taken.store(0, SeqCst);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// Whether an endless answer was dropped, looked for during two seconds.
    pub(crate) async fn was_dropped(&self) -> bool {
        for _ in 0..100 {
            if self.shared.dropped.load(SeqCst) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

async fn serve(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    shared.seen.lock().unwrap().push(Seen { path: uri.to_string(), headers, body: body.clone() });
    let at = shared.taken.fetch_add(1, SeqCst);
    let reply = {
        let script = shared.script.lock().unwrap();
        script[at.min(script.len() - 1)].clone()
    };
    match reply {
        Reply::Normal => normal(&uri, &body),
        Reply::Plain(status, headers, body) => plain(status, headers, body),
        Reply::Events(events) => {
            events_of(futures::stream::iter(events.into_iter().map(Ok::<_, Infallible>)).boxed())
        }
        Reply::Endless => {
            let guard = Guard(shared);
            let stream = futures::stream::unfold(guard, |guard| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, Infallible>(format!("data: {}\n\n", chunk("tick", None))), guard))
            });
            events_of(stream.boxed())
        }
        Reply::Broken => {
            let parts = [Ok("data: {\"choices\":[{\"delta\":{\"content\":\"hal\"}}]}\n\n"), Err("broken")];
            let stream = futures::stream::iter(parts)
                .then(|part| async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    part
                })
                .boxed();
            Response::new(Body::from_stream(stream))
        }
        Reply::Hang => {
            let _guard = Guard(shared);
            std::future::pending().await
        }
        Reply::Huge(size) => {
            let parts =
                futures::stream::iter((0..size / 65_536).map(|_| Ok::<_, Infallible>("x".repeat(65_536))));
            Response::new(Body::from_stream(parts))
        }
    }
}

struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dropped.store(true, SeqCst);
    }
}

fn plain(status: u16, headers: Vec<(&'static str, String)>, body: String) -> Response {
    let mut builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder.body(Body::from(body)).unwrap()
}

fn events_of(
    stream: futures::stream::BoxStream<'static, std::result::Result<String, Infallible>>,
) -> Response {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(Body::from_stream(stream))
        .unwrap()
}

/// A chunk of a stream.
pub(crate) fn chunk(text: &str, finish: Option<&str>) -> Value {
    json!({"id": "c1", "object": "chat.completion.chunk", "model": "secret-upstream-name", "usage": null,
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})
}

/// A chat completion.
pub(crate) fn completion(text: &str) -> Value {
    json!({"id": "c1", "object": "chat.completion", "model": "secret-upstream-name",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}})
}

/// As a server does it: a token is a word, output fills `max_tokens` when the prompt says so.
fn normal(uri: &Uri, body: &Value) -> Response {
    if uri.path().ends_with("/embeddings") {
        let answer = json!({"object": "list", "model": "secret-upstream-name",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3}});
        return plain(200, Vec::new(), answer.to_string());
    }
    if body["stream"] == true {
        let mut events = vec![
            format!("data: {}\n\n", chunk("Hel", None)),
            ": a comment\n\n".to_owned(),
            format!("data: {}\r\n\r\n", chunk("lo", Some("stop"))),
        ];
        if body["stream_options"]["include_usage"] == true {
            let usage = json!({"id": "c1", "object": "chat.completion.chunk", "model": "secret-upstream-name",
                "choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}});
            events.push(format!("data: {usage}\n\n"));
        }
        events.push("data: [DONE]\n\n".to_owned());
        return events_of(futures::stream::iter(events.into_iter().map(Ok)).boxed());
    }
    plain(200, Vec::new(), completion("Hello").to_string())
}
