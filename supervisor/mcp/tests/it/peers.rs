//! The official implementations, where they are installed: `AION_MCP_VENV` names a Python environment with the package
//! `mcp`, `AION_MCP_NODE` a folder whose `node_modules` has `@modelcontextprotocol/server-everything` and
//! `@modelcontextprotocol/server-filesystem`. Without them these tests say so and pass.

#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aion_mcp::{Client, Error, Options, ServerInfo, ToolResult};
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::soon;

/// What the variable names, when the file is there.
fn installed(variable: &str, file: &str) -> Option<PathBuf> {
    let found =
        std::env::var_os(variable).map(|folder| Path::new(&folder).join(file)).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: {variable} does not name a folder with {file}");
    }
    found
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(file)
}

async fn start(command: &mut Command) -> (Child, Client, ServerInfo) {
    let command =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let client = Client::start(child.stdout.take().unwrap(), child.stdin.take().unwrap(), Options::default());
    let info = client.initialize().await.unwrap().clone();
    (child, client, info)
}

/// Ends the client, after which a server over pipes is to end by itself.
async fn end(mut child: Child, client: Client) {
    client.close().await;
    tokio::time::timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
}

async fn call(client: &Client, name: &str, arguments: Value) -> ToolResult {
    let Value::Object(arguments) = arguments else { panic!("{arguments}") };
    client.call_tool(name, arguments, soon()).await.unwrap()
}

fn text(result: &ToolResult) -> &str {
    result.content[0]["text"].as_str().unwrap()
}

async fn names(client: &Client) -> Vec<String> {
    client.list_tools().await.unwrap().into_iter().map(|tool| tool.name).collect()
}

#[tokio::test]
async fn a_python_server() {
    let Some(python) = installed("AION_MCP_VENV", "bin/python") else { return };
    let (child, client, info) = start(Command::new(python).arg(here("peer_server.py"))).await;
    assert_eq!((info.name.as_str(), info.instructions.as_deref()), ("python-peer", Some("for tests")));
    assert_eq!(names(&client).await, ["add", "fail", "slow", "cancellations", "roots"]);
    let sum = call(&client, "add", json!({"a": 2, "b": 3})).await;
    assert_eq!((text(&sum), &sum.structured), ("5", &Some(json!({"result": 5}))));
    let failed = call(&client, "fail", json!({})).await;
    assert!(failed.is_error && text(&failed).contains("disk full"));
    assert!(call(&client, "add", json!({"a": "x"})).await.is_error);

    let late = client.call_tool("slow", Map::new(), Instant::now() + Duration::from_millis(300)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })));
    let mut cancelled = String::new();
    for _ in 0..100 {
        cancelled = text(&call(&client, "cancellations", json!({})).await).to_owned();
        if cancelled == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cancelled, "1", "the server did not hear of the cancellation");
    assert!(text(&call(&client, "roots", json!({})).await).starts_with("refused"));
    client.ping().await.unwrap();
    end(child, client).await;
}

#[tokio::test]
async fn a_python_client() {
    let Some(python) = installed("AION_MCP_VENV", "bin/python") else { return };
    uses_the_server(|endpoint| {
        let mut command = Command::new(&python);
        command.arg(here("peer_client.py")).arg(endpoint);
        command
    })
    .await;
}

#[tokio::test]
async fn a_typescript_client() {
    let Some(sdk) = installed("AION_MCP_NODE", "node_modules/@modelcontextprotocol/sdk") else { return };
    uses_the_server(|endpoint| {
        let mut command = Command::new("node");
        command.arg(here("peer_client.mjs")).arg(endpoint).arg(&sdk);
        command
    })
    .await;
}

/// Runs a client that reports what it saw, against a server without and with sessions.
async fn uses_the_server(client: impl Fn(&str) -> Command) {
    for with_sessions in [false, true] {
        let (_server, endpoint) = crate::http::start(with_sessions).await;
        let mut command = client(&endpoint);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(reports[0]["revision"], "2025-06-18");
        for report in reports {
            assert_eq!(report["tools"], json!(["add", "fails", "sleep", "whoami"]));
            assert_eq!(report["structured"], json!({"sum": 5}));
            assert_eq!(report["text"], r#"{"sum":5}"#);
            assert_eq!(report["failed"], json!([true, "disk full"]));
            assert_eq!(report["unknown"], -32602);
        }
    }
}

#[tokio::test]
async fn the_server_everything_over_pipes() {
    let script = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";
    let Some(script) = installed("AION_MCP_NODE", script) else { return };
    let (child, client, info) = start(Command::new("node").arg(script).arg("stdio")).await;
    eprintln!("{info:?}");
    everything(&client).await;
    end(child, client).await;
}

#[tokio::test]
async fn the_server_everything_over_http() {
    let script = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";
    let Some(script) = installed("AION_MCP_NODE", script) else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new("node");
    command.arg(script).arg("streamableHttp").env("PORT", port.to_string());
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _child = quiet.spawn().unwrap();
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let client = crate::http::connect(&format!("http://127.0.0.1:{port}/mcp"));
    eprintln!("{:?}", client.initialize().await.unwrap());
    everything(&client).await;
    client.close().await;
}

async fn everything(client: &Client) {
    let tools = names(client).await;
    assert!(tools.iter().any(|name| name == "echo"), "{tools:?}");
    assert!(text(&call(client, "echo", json!({"message": "hello"})).await).contains("hello"));
    assert!(text(&call(client, "get-sum", json!({"a": 2, "b": 3})).await).contains('5'));
    let weather = call(client, "get-structured-content", json!({"location": "Chicago"})).await;
    assert!(weather.structured.is_some_and(|object| object["temperature"].is_number()));
    let slow = json!({"duration": 1, "steps": 3});
    assert!(!call(client, "trigger-long-running-operation", slow).await.is_error);
    let Value::Object(slow) = json!({"duration": 4, "steps": 2}) else { unreachable!() };
    let deadline = Instant::now() + Duration::from_millis(300);
    let late = client.call_tool("trigger-long-running-operation", slow, deadline).await;
    assert!(matches!(late, Err(Error::Timeout { .. })));
    client.ping().await.unwrap();
}

#[tokio::test]
async fn the_server_filesystem() {
    let script = "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js";
    let Some(script) = installed("AION_MCP_NODE", script) else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder_path = folder.path().canonicalize().unwrap();
    std::fs::write(folder_path.join("a.txt"), "hello").unwrap();
    let (child, client, info) = start(Command::new("node").arg(script).arg(&folder_path)).await;
    eprintln!("{info:?}");
    assert!(names(&client).await.iter().any(|name| name == "list_directory"));
    let listed = call(&client, "list_directory", json!({"path": folder_path})).await;
    assert!(text(&listed).contains("a.txt"), "{listed:?}");
    let read = call(&client, "read_text_file", json!({"path": folder_path.join("a.txt")})).await;
    assert_eq!(text(&read), "hello");
    let written = json!({"path": folder_path.join("b.txt"), "content": "x".repeat(1 << 20)});
    assert!(!call(&client, "write_file", written).await.is_error);
    assert_eq!(std::fs::metadata(folder_path.join("b.txt")).unwrap().len(), 1 << 20);
    let outside = client.call_tool(
        "read_text_file",
        Map::from_iter([("path".to_owned(), json!("/etc/passwd"))]),
        soon(),
    );
    assert!(outside.await.unwrap().is_error);
    end(child, client).await;
}
