//! Tools that stay: WebAssembly, and a server of the Model Context Protocol next to the same server called directly.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aion_mcp::{Client, HttpOptions, Options};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use tokio::net::unix::pipe;

use crate::report::{Report, percentile};
use crate::syscall::{AGENT, Connection};
use crate::tools::micros;

/// How long a server may take to start, and a call to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: &str = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";

/// A server, ended with its handle.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures. `socket` is aiond's, `calls` is how many of each.
pub(crate) async fn measure(
    socket: &Path,
    one: &mut Connection,
    calls: usize,
    report: &mut Report,
) -> Result<()> {
    wasm(socket, one, calls, report).await.context("a WebAssembly tool")?;
    let modules = std::env::var_os("AION_MCP_NODE").map(PathBuf::from);
    match modules.filter(|folder| folder.join(SERVER).is_file()) {
        Some(folder) => mcp(socket, &folder, one, calls, report).await.context("an MCP tool"),
        None => {
            report.skip("AION_MCP_NODE names no folder with server-everything from npm: no MCP tool");
            Ok(())
        }
    }
}

async fn wasm(socket: &Path, one: &mut Connection, calls: usize, report: &mut Report) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("aion-bench-").tempdir_in("/var/tmp")?;
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("a clone")?;
    std::fs::copy(clone.join("tests/e2e/wasm/echo.wasm"), folder.path().join("echo.wasm"))?;
    install(socket, folder.path(), "warm-wasm", "entry: \"wasm:echo.wasm\"")?;
    let call = json!({"agent_id": AGENT, "params": {"tool": "warm-wasm", "query": "x"}});
    let times = calls_of(one, &call, calls).await?;
    report.samples("a warm WebAssembly tool, request to answer", "us", &times);
    report.at_most("warm WebAssembly tool: p95", "ms", percentile(&times, 95.0) / 1000.0, 2.0);
    Ok(())
}

async fn mcp(
    socket: &Path,
    modules: &Path,
    one: &mut Connection,
    calls: usize,
    report: &mut Report,
) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("aion-bench-").tempdir_in("/var/tmp")?;
    let copied =
        Command::new("cp").arg("-r").arg(modules.join("node_modules")).arg(folder.path()).status()?;
    ensure!(copied.success(), "cp -r of the server's modules");
    let spec = format!(
        "entry: \"mcp:node {SERVER}\"\n  mcp: {{tool: echo}}\n  files: [node_modules]\n  timeout: 1m\n  \
         security: {{cgroup: agent-default}}"
    );
    install(socket, folder.path(), "warm-mcp", &spec)?;
    let call = json!({"agent_id": AGENT, "params": {"tool": "warm-mcp", "message": "hello"}});
    let (piped, _piped) = over_pipes(modules).await.context("over pipes")?;
    let (http, _http) = over_http(modules).await.context("over HTTP")?;
    let (mut through, mut pipes, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    // In turns, so that a noisy moment hits all of them; the first ones warm up.
    for turn in 0..calls + 20 {
        let times = [calls_of(one, &call, 1).await?, vec![called(&piped).await?], vec![called(&http).await?]];
        if turn >= 20 {
            for (all, time) in [&mut through, &mut pipes, &mut direct].into_iter().zip(times) {
                all.extend(time);
            }
        }
    }
    let through =
        report.samples("a warm MCP tool (server-everything's echo), request to answer", "us", &through);
    let direct = report.samples("the same server directly, over HTTP", "us", &direct);
    let pipes = report.samples("the same server directly, over pipes", "us", &pipes);
    report.at_most("warm MCP tool / the server over HTTP", "x", through / direct, 1.3);
    report.value("warm MCP tool / the server over pipes", "x", through / pipes);
    Ok(())
}

/// So many calls one after the other, in microseconds.
async fn calls_of(one: &mut Connection, call: &Value, calls: usize) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..calls {
        let begun = Instant::now();
        let answer = one.post("/v1/syscall/tool.invoke", call).await?;
        times.push(micros(begun.elapsed()));
        ensure!(answer["status"] == "ok", "{answer}");
    }
    Ok(times)
}

async fn called(client: &Client) -> Result<f64> {
    let mut arguments = Map::new();
    arguments.insert("message".to_owned(), json!("hello"));
    let begun = Instant::now();
    let result = client.call_tool("echo", arguments, tokio::time::Instant::now() + PATIENCE).await?;
    let took = micros(begun.elapsed());
    ensure!(!result.is_error, "{result:?}");
    Ok(took)
}

async fn over_pipes(modules: &Path) -> Result<(Client, Server)> {
    let mut child = Command::new("node")
        .arg(modules.join(SERVER))
        .arg("stdio")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("node")?;
    let (stdout, stdin) = (child.stdout.take().context("stdout")?, child.stdin.take().context("stdin")?);
    let child = Server(child);
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    let writer = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
    let client = Client::start(reader, writer, Options::default());
    client.initialize().await?;
    Ok((client, child))
}

async fn over_http(modules: &Path) -> Result<(Client, Server)> {
    // The port is free now; nobody else is likely to take it in the next second.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let child = Command::new("node")
        .arg(modules.join(SERVER))
        .arg("streamableHttp")
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("node")?;
    let child = Server(child);
    let place = HttpOptions::new(&format!("http://127.0.0.1:{port}/mcp"))?;
    let begun = Instant::now();
    loop {
        let client = Client::http(place.clone(), Options::default())?;
        match client.initialize().await {
            Ok(_) => return Ok((client, child)),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Installs a tool with the operator's own command.
fn install(socket: &Path, folder: &Path, name: &str, spec: &str) -> Result<()> {
    let manifest =
        format!("apiVersion: aion.os/v1\nkind: Tool\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n");
    let file = folder.join("tool.yml");
    std::fs::write(&file, manifest)?;
    let bin = std::env::var_os("AION_BIN_DIR").context("AION_BIN_DIR is not set")?;
    let done = Command::new(Path::new(&bin).join("aionctl"))
        .args(["tool", "install"])
        .arg(&file)
        .env("AION_SOCKET", socket)
        .output()?;
    ensure!(done.status.success(), "aionctl tool install: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
