//! What the kernel tells of itself: spans to a collector, figures to Prometheus, lines to a log.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_e2e::{Verdict, Which, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};

use crate::kernel::{AGENT, SECRET, World, signature};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

type Spans = Arc<Mutex<Vec<Span>>>;

/// A collector for OTLP over HTTP; its URL, and what it was sent.
fn collector() -> (String, Spans) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let spans = Spans::default();
    let seen = Arc::clone(&spans);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                while let Some(body) = request(&mut stream, &mut bytes) {
                    let batch = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                    let told =
                        batch.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
                    seen.lock().unwrap().extend(told);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                }
            });
        }
    });
    (url, spans)
}

/// The body of the next POST to `/v1/traces`.
fn request(stream: &mut impl std::io::Read, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut more = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let whole = end + 4 + length.parse::<usize>().unwrap();
            if bytes.len() >= whole {
                let body = bytes[end + 4..whole].to_vec();
                bytes.drain(..whole);
                return Some(body);
            }
        }
        match stream.read(&mut more) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&more[..n]),
            _ => return None,
        }
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn traced(world: &World, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let signed = signature(SECRET, body.as_bytes());
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("X-Tenant-Id", "tenantA"), ("X-Sig-HMAC", &signed), ("traceparent", &parent)];
    world.send(path, &headers, body.as_bytes())
}

pub(crate) fn spans_reach_a_collector_in_the_caller_s_trace() {
    let (url, spans) = collector();
    let world = World::start_with(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ("AION_LOG_FORMAT", "json"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=e2e"),
    ]);
    let invoke = json!({"agent_id": AGENT, "params": {"tool": "web_search", "query": "control groups"}});
    let (number, answer) = traced(&world, "/v1/syscall/tool.invoke", &invoke);
    assert_eq!(number, 200, "{answer}");
    // The trace of the contract, in the body: what is no id of OpenTelemetry's is found by its attribute.
    let put = json!({"agent_id": AGENT, "key": "k", "value": 1, "context": {"trace_id": "my-trace"}});
    assert_eq!(world.signed("/v1/memory/put", &put).0, 200);
    // A denial.
    let offline =
        json!({"agent_id": "agent://tenantA/offline-1", "params": {"tool": "web_search", "query": "x"}});
    assert_eq!(traced(&world, "/v1/syscall/tool.invoke", &offline).0, 403);
    // A task.
    let job = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "job"},
        "spec": {"mode": "job", "entry": ["/bin/true"]}
    });
    let apply = world.daemons.ctl(["--tenant", "tenantA", "apply", "-f", "-", "--no-start"]);
    apply.stdin(job.to_string()).ok();
    let submit = json!({"task_id": "t-1", "agent_id": "agent://tenantA/job", "params": {"n": 1}});
    let (number, answer) = traced(&world, "/v1/schedule/submit", &submit);
    assert_eq!(number, 200, "{answer}");

    let found = |name: &str, key: &str, value: &str| -> Option<Span> {
        let all = spans.lock().unwrap();
        all.iter().find(|span| span.name == name && attribute(span, key) == value).cloned()
    };
    eventually("the spans are there", Duration::from_secs(30), || {
        found("kernel.schedule", "aion.task", "t-1").is_some()
            && found("kernel.syscall", "aion.agent", "agent://tenantA/offline-1").is_some()
    });
    let call = found("kernel.syscall", "aion.syscall", "tool.invoke").unwrap();
    assert_eq!(
        (hexadecimal(&call.trace_id), hexadecimal(&call.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(
        (attribute(&call, "aion.tenant"), attribute(&call, "aion.target")),
        ("tenantA".into(), "web_search".into())
    );
    assert!(call.end_time_unix_nano > call.start_time_unix_nano && call.status.is_none(), "{call:?}");
    let put = found("kernel.syscall", "aion.trace", "my-trace").unwrap();
    assert_eq!((put.trace_id.len(), put.parent_span_id.len()), (16, 0));
    assert_ne!(hexadecimal(&put.trace_id), TRACE);
    let denied = found("kernel.syscall", "aion.agent", "agent://tenantA/offline-1").unwrap();
    assert_eq!(
        (attribute(&denied, "aion.status"), denied.status.unwrap().message),
        ("denied".into(), "POLICY_DENIED".into())
    );
    let task = found("kernel.schedule", "aion.task", "t-1").unwrap();
    assert_eq!(hexadecimal(&task.trace_id), TRACE);
    assert_eq!(attribute(&task, "aion.agent"), "agent://tenantA/job");
    assert!(figures(&world).contains("aion_telemetry_spans_total{result=\"dropped\"} 0\n"));

    // The log is JSON, and says whose it was.
    let log = std::fs::read_to_string(world.daemons.log(Which::Aiond)).unwrap();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line = lines.iter().find(|line| line["code"] == "POLICY_DENIED").unwrap_or_else(|| panic!("{log}"));
    assert_eq!(
        (&line["tenant"], &line["agent"], &line["trace"], &line["task"]),
        (&json!("tenantA"), &json!("agent://tenantA/offline-1"), &json!(TRACE), &json!(""))
    );
    assert!(!log.contains(SECRET));
    world.daemons.finish().unwrap();
}

fn figures(world: &World) -> String {
    let mut stream = std::net::TcpStream::connect(world.address()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// promtool of Debian's package prometheus: in the path, or where `cargo xtask` unpacked it.
fn promtool() -> Option<PathBuf> {
    let named = std::env::var_os("AION_PROMTOOL").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("promtool")).collect::<Vec<_>>();
    named.into_iter().chain(in_path).find(|path| path.is_file())
}

pub(crate) fn prometheus_takes_the_figures() -> Verdict {
    let Some(promtool) = promtool() else {
        return Verdict::Skipped(
            "there is no promtool (AION_PROMTOOL, or the package prometheus)".to_owned(),
        );
    };
    let world = World::start();
    // One of each: what was done, what was not, what no door let in, and a sign of life.
    let invoke = json!({"agent_id": AGENT, "params": {"tool": "web_search", "query": "x"}});
    assert_eq!(world.signed("/v1/syscall/tool.invoke", &invoke).0, 200);
    let manifest = world.daemons.state().join("dear.yml");
    let text = "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: dear}\nspec: {entry: \"exec:true\", price: 0.01}\n";
    std::fs::write(&manifest, text).unwrap();
    world.daemons.ctl(["tool", "install"]).args([&manifest]).ok();
    let dear = json!({"agent_id": AGENT, "params": {"tool": "dear"}, "budget": {"usd_max": 0.001}});
    assert_eq!(world.signed("/v1/syscall/tool.invoke", &dear).0, 429);
    let offline =
        json!({"agent_id": "agent://tenantA/offline-1", "params": {"tool": "web_search", "query": "x"}});
    assert_eq!(world.signed("/v1/syscall/tool.invoke", &offline).0, 403);
    assert_eq!(world.signed("/v1/agent/heartbeat", &json!({"agent_id": AGENT})).0, 200);
    assert_eq!(world.send("/v1/memory/put", &[("X-Tenant-Id", "tenantA")], b"{}").0, 401);
    let text = figures(&world);
    for part in [
        "aion_kernel_syscall_latency_ms_count{syscall=\"tool.invoke\"} ",
        "aion_kernel_syscall_latency_seconds_count{syscall=\"tool.invoke\"} ",
        "aion_agent_heartbeats{tenant=\"tenantA\",agent=\"researcher-1\"} 1\n",
        "aion_kernel_syscall_refusals_total{syscall=\"tool.invoke\",code=\"POLICY_DENIED\"} 1\n",
        "aion_kernel_denials_total{layer=\"manifest\"} 1\n",
        "aion_kernel_budget_refusals_total{account=\"call\"} 1\n",
        "aion_kernel_unauthenticated_total{reason=\"no_signature\"} 1\n",
        "aion_kernel_scheduler_queue_depth{queue=\"high\"} 0\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = check.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    // The contract fixes this name, and no other may be found fault with.
    let faults: Vec<&str> =
        said.lines().filter(|line| !line.starts_with("aion_kernel_syscall_latency_ms ")).collect();
    assert!(faults.is_empty(), "{said}");
    assert!(matches!(done.status.code(), Some(0 | 3)), "{:?}: {said}", done.status);
    world.daemons.finish().unwrap();
    Verdict::Passed
}
