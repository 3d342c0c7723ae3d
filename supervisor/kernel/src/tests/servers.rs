//! Tools that are servers, with a server of this process in the place of a sandbox.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;
use crate::host::Running;

/// What a server wrote, and when.
type Written = Arc<Mutex<Vec<(u64, String)>>>;

struct Process(Arc<AtomicBool>, Written);

impl Running for Process {
    fn said(&self, since_ns: u64) -> BoxFuture<'_, String> {
        let written = self.1.lock().unwrap();
        let since: Vec<_> =
            written.iter().filter(|(at, _)| *at >= since_ns).map(|(_, line)| line.clone()).collect();
        Box::pin(async move { since.join("\n") })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// `argv[1]` says how it behaves: `good`, `hung` or `gone`.
pub(super) fn serve(sandbox: &Sandbox) -> Result<ToolServer, Refusal> {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let way = sandbox.argv[1].clone();
    let written = Written::default();
    let write = Arc::clone(&written);
    let task = tokio::spawn(async move {
        let (reader, mut writer) = tokio::io::split(theirs);
        let mut lines = BufReader::new(reader).lines();
        let mut calls = 0;
        while let Ok(Some(line)) = lines.next_line().await {
            let message: Value = serde_json::from_str(&line).unwrap();
            let method = message["method"].as_str().unwrap();
            let said = match message["params"]["arguments"]["query"].as_str() {
                Some("die") => "asked die, last words".to_owned(),
                Some(query) => format!("asked {query}"),
                None if way == "gone" => "last words".to_owned(),
                None => method.to_owned(),
            };
            write.lock().unwrap().push((now_ns(), said));
            let result = match method {
                "initialize" if way == "gone" => return,
                "initialize" => json!({
                    "protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "t", "version": "1"},
                }),
                "tools/call" => {
                    calls += 1;
                    match message["params"]["arguments"]["query"].as_str() {
                        Some("die") => return,
                        Some("wait") => continue,
                        Some("fail") => {
                            json!({"content": [{"type": "text", "text": "it cannot"}], "isError": true})
                        }
                        _ => json!({
                            "content": [],
                            "structuredContent": {"items": [message["params"]["name"], calls]},
                        }),
                    }
                }
                "ping" if way == "good" => json!({}),
                _ => continue,
            };
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            writer.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        }
    });
    let (reader, writer) = tokio::io::split(ours);
    let ended = Arc::new(AtomicBool::new(false));
    drop(task);
    Ok(ToolServer {
        reader: Box::new(reader),
        writer: Box::new(writer),
        running: Box::new(Process(ended, written)),
    })
}

async fn world(way: &str) -> World {
    let world = World::new().await;
    let manifest = format!(
        "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {{name: served}}\nspec:\n  entry: mcp:server {way}\n  \
         mcp: {{tool: there}}\n  io: {{input: {{schema: \"query:string\"}}, output: {{schema: \"items:list\"}}}}\n"
    );
    world
        .kernel
        .install_tool(None, manifest.into_bytes(), "tool.yml".to_owned(), Vec::new(), String::new())
        .await
        .unwrap();
    world
}

async fn ask(world: &World, query: &str, ms: u64) -> Answer {
    let body = json!({
        "agent_id": "agent://tenantA/a", "syscall": "tool.invoke", "budget": {"latency_ms": ms},
        "params": {"tool": "served", "query": query},
    });
    world.call_with(body).await.answer
}

#[tokio::test]
async fn one_server_answers_many_calls() {
    let world = world("good").await;
    for n in 1..=3 {
        assert_eq!(ask(&world, "x", 5000).await.result, json!({"items": ["there", n]}));
    }
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 1);
    let failed = ask(&world, "fail", 5000).await.error.unwrap();
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str()),
        ("TOOL_FAILED", "tool served failed: it cannot")
    );
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 1, "a tool that fails is no server that fails");
}

#[tokio::test]
async fn a_server_that_dies_fails_the_call_and_is_replaced() {
    let world = world("good").await;
    let failed = ask(&world, "die", 5000).await.error.unwrap();
    assert!(failed.message.contains("last words"), "{}", failed.message);
    assert_eq!(ask(&world, "x", 5000).await.result, json!({"items": ["there", 1]}), "a new one counts anew");
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_a_dead_server_wrote_is_shown_to_its_own_call_alone() {
    let world = world("good").await;
    assert_eq!(ask(&world, "secret", 5000).await.status, Status::Ok);
    // Right after another call nothing is shown, later what was written since.
    let failed = ask(&world, "die", 5000).await.error.unwrap();
    assert!(!failed.message.contains("secret"), "{}", failed.message);
    assert_eq!(ask(&world, "secret", 5000).await.status, Status::Ok);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let failed = ask(&world, "die", 5000).await.error.unwrap();
    assert!(failed.message.ends_with("; it wrote: asked die, last words"), "{}", failed.message);
    // A call that was given up may still be at work in there.
    assert_eq!(ask(&world, "wait", 50).await.error.unwrap().code, "DEADLINE_EXCEEDED");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let failed = ask(&world, "die", 5000).await.error.unwrap();
    assert!(failed.message.ends_with("; it served other calls, so what it wrote is not shown"));
}

#[tokio::test]
async fn a_call_ends_in_its_time_and_the_server_stays() {
    let world = world("good").await;
    let late = ask(&world, "wait", 50).await.error.unwrap();
    assert_eq!(late.code, "DEADLINE_EXCEEDED");
    assert_eq!(ask(&world, "x", 5000).await.status, Status::Ok);
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_hangs_is_replaced() {
    let (good, hung) = (world("good").await, world("hung").await);
    for world in [&good, &hung] {
        assert_eq!(ask(world, "wait", 50).await.error.unwrap().code, "DEADLINE_EXCEEDED");
    }
    // Callers go on calling meanwhile.
    let started = tokio::time::Instant::now();
    while hung.fake.runs.load(Ordering::SeqCst) < 2 {
        assert!(started.elapsed() < Duration::from_secs(20), "it was not replaced");
        assert_eq!(ask(&good, "x", 5000).await.status, Status::Ok);
        assert_eq!(ask(&hung, "x", 5000).await.status, Status::Ok);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(good.fake.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_does_not_start_is_not_started_at_once_again() {
    let world = world("gone").await;
    let first = ask(&world, "x", 5000).await.error.unwrap();
    assert!(
        first.message.contains("did not start") && first.message.contains("last words"),
        "{}",
        first.message
    );
    let second = ask(&world, "x", 5000).await.error.unwrap();
    assert!(second.retry_after_ms.is_some(), "{}", second.message);
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_tool_that_is_installed_anew_has_a_server_of_its_own() {
    let world = world("good").await;
    assert_eq!(ask(&world, "x", 5000).await.status, Status::Ok);
    assert!(world.kernel.metrics_text().contains("aion_kernel_tool_servers 1\n"));
    world.kernel.remove_tool(None, "served".to_owned()).await.unwrap();
    assert!(world.kernel.metrics_text().contains("aion_kernel_tool_servers 0\n"));
    assert_eq!(ask(&world, "x", 5000).await.error.unwrap().code, "TOOL_NOT_FOUND");
}

#[tokio::test]
async fn what_may_not_leave_the_host_is_explained() {
    let world = World::new().await;
    let tool = "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: far}\nspec:\n  entry: \"mcp:https://mcp.example/mcp\"\n";
    world
        .kernel
        .install_tool(None, tool.into(), "tool.yml".to_owned(), Vec::new(), String::new())
        .await
        .unwrap();
    let private = manifest(true, "  policy_overrides: {privacy: {allow_cloud: false}}\n");
    world.fake.agents.lock().unwrap().push(("tenantA".to_owned(), "private".to_owned(), private));
    let body = json!({
        "agent_id": "agent://tenantA/private", "syscall": "tool.invoke", "params": {"tool": "far"},
    });
    let answer = world.call_with(body).await.answer;
    let error = answer.error.unwrap();
    assert_eq!(error.code, "POLICY_DENIED");
    assert_eq!(error.rule, "spec.policy_overrides.privacy.allow_cloud: false");
    let row = world.kernel.explain(None, answer.audit_id.clone()).await.unwrap();
    let steps = row.decision.unwrap().steps;
    assert!(steps.len() > 1 && steps[..steps.len() - 1].iter().all(|step| step.allowed), "{steps:?}");
    assert_eq!(steps.last().unwrap().layer, aion_syscall::Layer::Privacy);
}
