#[path = "stream_tests.rs"]
mod streams;

use std::sync::{Arc, LazyLock};

use aion_kernel::{
    AccountLimits, AgentInfo, AgentSeen, AuditEntry, FileAnswer, FileAsk, Host, Kernel, Options, Registered,
    Registration, Sandbox, TaskFound, ToolEnd, ToolRun, ToolServer,
};
use aion_manifest::{Classes, Context};
use aion_store::Store;
use aion_syscall::Refusal;
use aion_tenants::{Secret, Settings, sign, sign_timed};
use aion_types::{AgentName, TenantId};
use axum::Router;
use axum::body::Body;
use futures::stream;
use http::Request;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::auth::now_ns;
use crate::backend::{Backend, BoxFuture, EventQuery, EventStream, Part};
use crate::docs::{Auth, OPERATIONS, openapi};
use crate::mcp;
use crate::routes::{Shared, router};

struct Fake;

const MANIFEST: &str =
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec: {entry: x, syscalls: ['*']}\n";

impl Host for Fake {
    fn agent(&self, _: &TenantId, name: &AgentName) -> Result<Option<AgentInfo>, Refusal> {
        let manifest = match name.as_str() {
            "a" => MANIFEST.to_owned(),
            "narrow" => MANIFEST.replace("'*'", "'memory.*'"),
            _ => return Ok(None),
        };
        Ok(Some(AgentInfo { id: name.to_string(), manifest }))
    }

    fn agents(&self, _: &TenantId, _: &str, _: usize) -> Result<(Vec<AgentSeen>, Option<String>), Refusal> {
        Ok((Vec::new(), None))
    }

    fn limits(&self, _: &TenantId, _: &AgentName) -> AccountLimits {
        AccountLimits::default()
    }

    fn task<'a>(
        &'a self,
        _: &'a TenantId,
        _: &'a AgentName,
        _: &'a str,
    ) -> BoxFuture<'a, Result<TaskFound, Refusal>> {
        Box::pin(async { Ok(TaskFound::Unknown) })
    }

    fn run(&self, _: ToolRun) -> BoxFuture<'_, Result<ToolEnd, Refusal>> {
        Box::pin(async { Err(Refusal::field("x", "no tools here")) })
    }

    fn serve(&self, _: Sandbox) -> BoxFuture<'_, Result<ToolServer, Refusal>> {
        Box::pin(async { Err(Refusal::field("tool", "nothing is served here")) })
    }

    fn file(&self, _: &str, _: &str, _: FileAsk) -> BoxFuture<'_, Result<FileAnswer, Refusal>> {
        Box::pin(async { Err(Refusal::field("path", "no files here")) })
    }

    fn audit(&self, _: AuditEntry) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn register(&self, _: Registration) -> BoxFuture<'_, Result<Registered, Refusal>> {
        Box::pin(async { Ok(Registered { id: "id".to_owned(), created: true }) })
    }

    fn heartbeat(&self, _: &TenantId, _: &AgentName) -> Result<(), Refusal> {
        Ok(())
    }

    fn submit(&self, _: TenantId, task: Value) -> BoxFuture<'_, Result<Value, Refusal>> {
        Box::pin(async move { Ok(task) })
    }
}

impl Backend for Fake {
    fn events(&self, query: EventQuery) -> Result<EventStream, Refusal> {
        let first = query.after.unwrap_or(0) + 1;
        let events =
            stream::iter((first..first + 3).map(|n| Ok((n, json!({"topic": "kernel.syscalls", "n": n})))));
        Ok(Box::pin(events))
    }

    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async { "# other\n".to_owned() })
    }

    fn parts(&self) -> BoxFuture<'_, Vec<Part>> {
        Box::pin(async { vec![Part { name: "launcher", ok: false, detail: "gone".to_owned() }] })
    }
}

struct World {
    _dir: tempfile::TempDir,
    router: Router,
    kernel: Kernel,
    secret: Secret,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("db"), aion_store::Options::default()).unwrap());
        let options = Options {
            state: dir.path().to_owned(),
            state_absolute: dir.path().to_owned(),
            manifests: Context::builtin(),
            classes: Arc::new(Classes::builtin()),
            policy: None,
            offline: false,
            wasm_runner: "/usr/libexec/aion/aion-wasm".into(),
            spans: aion_telemetry::Spans::default(),
            signatures: Arc::default(),
        };
        let kernel = Kernel::open(options, store, Arc::new(Fake)).unwrap();
        let secret = Secret::new(vec![b'k'; 32]);
        kernel.tenants().add(&TenantId::parse("t").unwrap(), secret.clone(), Settings::default(), 0).unwrap();
        let shared = Shared {
            kernel: kernel.clone(),
            backend: Arc::new(Fake),
            mcp: Arc::new(mcp::server(kernel.clone())),
            quiet: crate::events::QUIET,
        };
        Self { _dir: dir, router: router(shared), kernel, secret }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer =
            self.router.clone().oneshot(request.body(Body::from(body.to_vec())).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn signed(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let signature = sign(&self.secret, body);
        self.send(method, path, &[("x-tenant-id", "t"), ("x-sig-hmac", &signature)], body).await
    }
}

#[tokio::test]
async fn the_document_is_what_there_is() {
    let world = World::new();
    let document = openapi();
    for operation in &OPERATIONS {
        let path = operation.path.replace("{name}", "memory.get");
        let (status, body) = world.send(&operation.method.to_uppercase(), &path, &[], b"{}").await;
        let expected: &[u16] = match operation.auth {
            Auth::Nobody => &[200, 503],
            Auth::Signature | Auth::Bearer => &[401],
        };
        assert!(expected.contains(&status), "{} {path}: {status} {body}", operation.method);
        assert!(document["paths"][operation.path][operation.method]["operationId"] == operation.id);
    }
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert_eq!(world.signed("POST", "/v1/nowhere", b"{}").await.0, 404);
    assert_eq!(world.signed("GET", "/v1/memory/put", b"").await.0, 405);
    let (status, body) = world.send("GET", "/readyz", &[], b"").await;
    assert!(status == 503 && body.contains("gone"), "{body}");
    assert!(
        world
            .send("GET", "/metrics", &[], b"")
            .await
            .1
            .contains("# other\n# HELP aion_kernel_syscall_latency_ms")
    );
}

#[tokio::test]
async fn short_and_timed_signatures_are_taken_and_nothing_else() {
    let world = World::new();
    let body = br#"{"agent_id":"agent://t/a","key":"k","value":1}"#;
    assert_eq!(world.signed("POST", "/v1/memory/put", body).await.0, 200);
    let (at, nonce) = ((now_ns() / 1_000_000 + 1000).to_string(), "nonce-number-one");
    let ms: u64 = at.parse().unwrap();
    let timed = sign_timed(&world.secret, ms, nonce, "POST", "/v1/memory/put", body);
    let headers = [
        ("x-tenant-id", "t"),
        ("x-timestamp", at.as_str()),
        ("x-nonce", nonce),
        ("x-sig-hmac", timed.as_str()),
    ];
    assert_eq!(world.send("POST", "/v1/memory/put", &headers, body).await.0, 200);
    assert_eq!(world.send("POST", "/v1/memory/put", &headers, body).await.0, 401, "a replay");
    assert_eq!(world.send("POST", "/v1/memory/get", &headers, body).await.0, 401, "another path");
    let twice = sign(&world.secret, body);
    let two = [("x-tenant-id", "t"), ("x-sig-hmac", twice.as_str()), ("x-sig-hmac", twice.as_str())];
    assert_eq!(world.send("POST", "/v1/memory/put", &two, body).await.0, 401, "which of the two is meant?");
    // The agent may stand in other places, and is always the tenant's own.
    let from_meta = br#"{"type":"short","key":"m","value":1,"meta":{"agent":"a"}}"#;
    assert_eq!(world.signed("POST", "/v1/memory/put", from_meta).await.0, 200);
    let foreign = br#"{"key":"m","value":1,"agent_id":"agent://other/a"}"#;
    assert_eq!(world.signed("POST", "/v1/memory/put", foreign).await.0, 403);
    let nameless = br#"{"agent_id":"","key":"m","value":1,"meta":{"agent":"A B"}}"#;
    assert_eq!(world.signed("POST", "/v1/memory/put", nameless).await.0, 400);
}

#[tokio::test]
async fn the_contract_s_bodies_need_no_agent() {
    let world = World::new();
    let send = async |path: &str, body: Value| {
        let (status, answer) = world.signed("POST", path, body.to_string().as_bytes()).await;
        (status, serde_json::from_str::<Value>(&answer).unwrap())
    };
    let put = json!({"type": "long", "key": "k", "value": {"n": 1}, "meta": {"topic": "x"}});
    let (status, answer) = send("/v1/memory/put", put).await;
    assert_eq!(status, 200, "{answer}");
    // It is the tenant's own: who signs finds it, and no agent does.
    for filter in [json!({"tenant": "t"}), json!({"tenant": "t", "topic": "x"}), json!({})] {
        let (status, answer) = send("/v1/memory/query", json!({"type": "long", "filter": filter})).await;
        assert_eq!((status, &answer["result"]["items"][0]["value"]), (200, &json!({"n": 1})), "{answer}");
    }
    let of_agent = json!({"type": "long", "filter": {"tenant": "t", "agent": "a"}});
    assert_eq!(send("/v1/memory/query", of_agent).await.1["result"]["items"], json!([]));
    let stranger = json!({"type": "long", "filter": {"tenant": "other"}});
    assert_eq!(send("/v1/memory/query", stranger).await.0, 403);
    let pretended = json!({"agent_id": "agent://t/@tenant", "type": "long", "key": "k"});
    assert_eq!(send("/v1/memory/get", pretended).await.0, 400, "nobody is called so");
    let invoke = json!({"params": {"tool": "x"}});
    assert_eq!(send("/v1/syscall/tool.invoke", invoke).await.0, 400, "a tool is invoked for an agent");

    let task =
        json!({"task_id": "t-123", "intent": "x", "priority": 5, "quota": {"usd_per_hour": 1}, "params": {}});
    let (status, answer) = send("/v1/schedule/submit", task).await;
    assert_eq!((status, &answer["result"]["agent_id"]), (200, &Value::Null), "{answer}");
    let signature = sign(&world.secret, b"{}");
    let headers = [("x-tenant-id", "t"), ("x-sig-hmac", &*signature), ("x-agent-id", "agent://t/a")];
    let (_, answer) = world.send("POST", "/v1/schedule/submit", &headers, b"{}").await;
    assert!(answer.contains("agent://t/a"), "{answer}");
}

#[tokio::test]
async fn events_go_on_after_the_last_one() {
    let world = World::new();
    let signature = sign(&world.secret, b"");
    let headers = [
        ("x-tenant-id", "t"),
        ("x-sig-hmac", signature.as_str()),
        ("accept", "text/event-stream"),
        ("last-event-id", "41"),
    ];
    let (status, body) = world.send("GET", "/v1/events/stream?topics=kernel.syscalls", &headers, b"").await;
    assert_eq!(status, 200);
    assert!(
        body.starts_with("id: 42\nevent: kernel.syscalls\ndata: {") && body.contains("id: 44\n"),
        "{body}"
    );
    assert_eq!(world.signed("GET", "/v1/events/stream?topcis=x", b"").await.0, 400);
    let plain = world.signed("GET", "/v1/events/stream", b"").await.0;
    assert!(matches!(plain, 400 | 426), "neither a WebSocket nor events: {plain}");
}

#[tokio::test]
async fn bearer_tokens_open_openai_s_door_and_no_other() {
    let world = World::new();
    let uri = aion_types::AgentUri::parse("agent://t/a").unwrap();
    let token = format!("Bearer {}", world.kernel.tenants().bearer(&uri).unwrap());
    let headers = [("authorization", token.as_str())];
    assert_eq!(world.send("GET", "/v1/models", &headers, b"").await.0, 200);
    let body = br#"{"model":"none","messages":[{"role":"user","content":"x"}]}"#;
    let (status, answer) = world.send("POST", "/v1/chat/completions", &headers, body).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("MODEL_NOT_FOUND")));
    assert_eq!(world.send("POST", "/v1/memory/put", &headers, b"{}").await.0, 401);
    let foreign = [("authorization", token.as_str()), ("origin", "https://evil.example")];
    assert_eq!(world.send("POST", "/mcp", &foreign, b"{}").await.0, 403);
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    assert_eq!(world.send("POST", "/mcp", &headers, ping).await.0, 200);
}

#[tokio::test]
async fn lists_are_calls_that_an_agent_must_be_allowed() {
    let world = World::new();
    let list = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for (agent, status) in [("a", 200), ("narrow", 403), ("ghost", 404)] {
        let uri = aion_types::AgentUri::parse(&format!("agent://t/{agent}")).unwrap();
        let token = format!("Bearer {}", world.kernel.tenants().bearer(&uri).unwrap());
        let headers = [("authorization", token.as_str())];
        let (found, body) = world.send("GET", "/v1/models", &headers, b"").await;
        assert_eq!(found, status, "{agent}: {body}");
        // Clients of this protocol read no refusal of a list: they are shown none.
        let (found, body) = world.send("POST", "/mcp", &headers, list).await;
        assert!(found == 200 && body.contains("\"tools\":[]"), "{agent}: {body}");
    }
}

/// One for all cases: to open a database for each would take all the time.
static SHARED: LazyLock<(Runtime, World)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(async { World::new() });
    (runtime, world)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever a client that may sign sends, it gets an answer with a reason, and never a failure of ours.
    #[test]
    fn nothing_that_is_signed_breaks_anything(
        route in prop::sample::select(vec![
            "/v1/agent/register", "/v1/agent/heartbeat", "/v1/syscall/memory.put", "/v1/syscall/tool.invoke",
            "/v1/syscall/model.generate", "/v1/memory/put", "/v1/memory/query", "/v1/memory/get", "/v1/schedule/submit",
        ]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            value().prop_map(|value| value.to_string().into_bytes()),
        ],
    ) {
        let (runtime, world) = &*SHARED;
        runtime.block_on(async {
            let (status, answer) = world.signed("POST", route, &body).await;
            prop_assert!(status < 500, "{status}: {answer}");
            prop_assert!(serde_json::from_str::<Value>(&answer).is_ok(), "{answer}");
            Ok(())
        })?;
    }
}

/// JSON that is nearly right.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!("agent://t/a")),
        Just(json!("short")),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "agent_id",
            "key",
            "value",
            "type",
            "meta",
            "params",
            "budget",
            "usd_max",
            "latency_ms",
            "context",
            "task_id",
            "caps_required",
            "filter",
            "limit",
            "after",
            "tool",
            "model",
            "messages",
            "quota",
            "priority",
            "manifest",
            "capabilities",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
