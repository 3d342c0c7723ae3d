//! The kernel API: signed calls over HTTP, the overhead over a model's backend, a tool's cold start next to bubblewrap's, and warm tools.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_client::api;
use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::report::{Report, percentile};
use crate::schedule::Size;
use crate::schedule::aion::{Daemons, Settings};
use crate::tools::micros;

const SECRET: &[u8] = b"sixteen bytes and some more";
pub(crate) const AGENT: &str = "agent://bench/caller";
const CLIENTS: usize = 64;
/// How late a timer may be.
const TICK: Duration = Duration::from_millis(2);
/// Calls a second, of all clients together, that come whether or not the ones before are answered.
const PACE: u32 = 2000;

/// Figures that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// `memory.get`, one client and many
    Memory,
    /// `model.generate` over its backend
    Model,
    /// A tool's cold start
    Tool,
    /// Warm tools
    Warm,
}

/// Measures, with a pair of daemons of its own.
pub(crate) async fn measure(parts: &[Part], size: Size, report: &mut Report) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("aion-bench-").tempdir()?;
    crate::launch::open_to_all(scratch.path())?;
    let daemons =
        Daemons::start(&scratch.path().join("syscall"), Settings { slots: 4, min_run_ms: 0 }).await?;
    let measured = all(&daemons, parts, size, report).await;
    daemons.finish()?;
    measured
}

async fn all(daemons: &Daemons, parts: &[Part], size: Size, report: &mut Report) -> Result<()> {
    let client = daemons.client();
    let secret = SECRET.to_vec();
    client.add_tenant(api::AddTenantRequest { name: "bench".to_owned(), secret, settings: None }).await?;
    let address = std::fs::read_to_string(daemons.state().join("run/http"))?.trim().to_owned();
    let mut one = Connection::open(&address).await?;
    let register = json!({"agent_id": AGENT, "capabilities": []});
    one.post("/v1/agent/register", &register).await?;
    let wanted = |one| parts.is_empty() || parts.contains(&one);
    if wanted(Part::Memory) {
        memory(daemons, &address, &mut one, size, report).await.context("memory")?;
    }
    if wanted(Part::Model) {
        model(&client, &mut one, size, report).await.context("models")?;
    }
    if wanted(Part::Tool) {
        tool(&client, &mut one, size, report).await.context("tools")?;
    }
    if wanted(Part::Warm) {
        let socket = daemons.state().join("run/aion.sock");
        crate::warm::measure(&socket, &mut one, size.preemptions * 5, report).await?;
    }
    Ok(())
}

/// Memories that are read, by one client and by many.
async fn memory(
    daemons: &Daemons,
    address: &str,
    one: &mut Connection,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let put = json!({"agent_id": AGENT, "key": "k", "value": {"n": 1}});
    one.post("/v1/memory/put", &put).await?;
    let get = json!({"agent_id": AGENT, "params": {"key": "k"}});
    for (clients, goal) in [(1, None), (CLIENTS, Some(()))] {
        let before = daemons.processor_seconds()?;
        let (rate, times) = load(address, "/v1/syscall/memory.get", &get, clients, size.time).await?;
        let name = format!("memory.get, signed, {clients} at once");
        let used = daemons.processor_seconds()? - before;
        report.samples(format!("{name}: time"), "us", &times);
        report.value(
            format!("{name}: processor time of both daemons"),
            "us/call",
            used * 1e6 / count(&times),
        );
        match goal {
            Some(()) => {
                report.at_least(format!("{name}: rate"), "calls/s", rate, 2000.0);
                report.at_most(format!("{name}: p95"), "ms", percentile(&times, 95.0) / 1000.0, 5.0);
            }
            None => report.value(format!("{name}: rate"), "calls/s", rate),
        }
    }
    let name = format!("memory.get, signed, {CLIENTS} clients, {PACE} calls/s in all");
    let times = paced(address, "/v1/syscall/memory.get", &get, size.time).await?;
    report.samples(format!("{name}: time"), "us", &times);
    report.at_most(format!("{name}: p95"), "ms", percentile(&times, 95.0) / 1000.0, 5.0);
    Ok(())
}

fn count(times: &[f64]) -> f64 {
    f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX))
}

/// Calls from so many clients for a while: the rate, and how long each took in microseconds.
async fn load(
    address: &str,
    path: &str,
    body: &Value,
    clients: usize,
    time: Duration,
) -> Result<(f64, Vec<f64>)> {
    // The processors are the daemon's, too: what is the same in each call is made once.
    let request: Arc<[u8]> = request(path, body)?.into();
    let begun = Instant::now();
    let mut running = Vec::new();
    for _ in 0..clients {
        let (address, request) = (address.to_owned(), Arc::clone(&request));
        running.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let mut times = Vec::new();
            while begun.elapsed() < time {
                let before = Instant::now();
                connection.exchange(&request).await?;
                times.push(micros(before.elapsed()));
            }
            Ok::<_, anyhow::Error>(times)
        }));
    }
    let mut times = Vec::new();
    for client in running {
        times.extend(client.await.context("a client")??);
    }
    Ok((count(&times) / begun.elapsed().as_secs_f64(), times))
}

/// Calls that come evenly, [`PACE`] a second from all clients together: how long each took, in microseconds, counted from when it was
/// due. A client whose call is late makes its next ones at once.
async fn paced(address: &str, path: &str, body: &Value, time: Duration) -> Result<Vec<f64>> {
    let request: Arc<[u8]> = request(path, body)?.into();
    let clients = u32::try_from(CLIENTS)?;
    let (between, begun) = (Duration::from_secs(1) * clients / PACE, Instant::now());
    let mut running = Vec::new();
    for number in 0..clients {
        let (address, request) = (address.to_owned(), Arc::clone(&request));
        running.push(tokio::spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let (mut times, mut due) = (Vec::new(), begun + between * number / clients);
            while due.duration_since(begun) < time {
                tokio::time::sleep_until(due.into()).await;
                // The timer's own lateness, up to a millisecond, is no call's; a call that waited for the one before is late by that.
                let now = Instant::now();
                let from = if now.duration_since(due) > TICK { due } else { now };
                connection.exchange(&request).await?;
                times.push(micros(from.elapsed()));
                due += between;
            }
            Ok::<_, anyhow::Error>(times)
        }));
    }
    let mut times = Vec::new();
    for client in running {
        times.extend(client.await.context("a client")??);
    }
    Ok(times)
}

/// What the kernel adds to a backend that answers at once: the same body, directly and through `model.generate`, in turns.
async fn model(
    client: &aion_client::Client,
    one: &mut Connection,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let backend = backend().await?;
    let model = api::Model {
        name: "echo".to_owned(),
        url: format!("http://{backend}/v1"),
        local: true,
        context_tokens: 8192,
        ..api::Model::default()
    };
    client.add_model(api::AddModelRequest { model: Some(model), key: Vec::new() }).await?;
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16});
    let call = json!({"agent_id": AGENT, "params": body});
    let mut direct = Connection::open(&backend).await?;
    let (mut there, mut through) = (Vec::new(), Vec::new());
    for _ in 0..size.preemptions * 5 {
        let begun = Instant::now();
        direct.post("/v1/chat/completions", &body).await?;
        there.push(micros(begun.elapsed()));
        let begun = Instant::now();
        one.post("/v1/syscall/model.generate", &call).await?;
        through.push(micros(begun.elapsed()));
    }
    report.samples("a backend that answers at once, directly", "us", &there);
    report.samples("the same through model.generate", "us", &through);
    let over = (percentile(&through, 95.0) - percentile(&there, 95.0)) / 1000.0;
    report.at_most("model.generate: overhead, p95", "ms", over, 5.0);
    Ok(())
}

/// A tool that gives its arguments back, and bubblewrap running the same program, in turns.
async fn tool(
    client: &aion_client::Client,
    one: &mut Connection,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let manifest = "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: cat}\nspec: {entry: \"exec:cat\"}\n";
    let request = api::InstallToolRequest { manifest: manifest.into(), ..api::InstallToolRequest::default() };
    client.install_tool(request).await?;
    let call = json!({"agent_id": AGENT, "params": {"tool": "cat", "x": 1}});
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let bubblewrap = Command::new("bwrap").arg("--version").output().is_ok();
    for _ in 0..size.preemptions.min(100) {
        let begun = Instant::now();
        one.post("/v1/syscall/tool.invoke", &call).await?;
        ours.push(micros(begun.elapsed()));
        if bubblewrap {
            let begun = Instant::now();
            let done = Command::new("bwrap")
                .args([
                    "--ro-bind",
                    "/usr",
                    "/usr",
                    "--symlink",
                    "usr/lib64",
                    "/lib64",
                    "--symlink",
                    "usr/lib",
                    "/lib",
                ])
                .args([
                    "--proc",
                    "/proc",
                    "--dev",
                    "/dev",
                    "--unshare-all",
                    "/usr/bin/cat",
                    "/proc/self/comm",
                ])
                .output()?;
            ensure!(done.status.success(), "bwrap: {}", String::from_utf8_lossy(&done.stderr));
            bare.push(micros(begun.elapsed()));
        }
    }
    let tool = report.samples("a cold exec tool, request to answer", "us", &ours);
    if bubblewrap {
        let bare = report.samples("bubblewrap running it bare", "us", &bare);
        report.at_most("cold exec tool / bubblewrap", "x", tool / bare, 1.3);
    } else {
        report.skip("bubblewrap is not installed");
    }
    Ok(())
}

/// A connection that is kept.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let answer = self.exchange(&request(path, body)?).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Sends a request, and reads the body of an answer that is good.
    async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        self.0.write_all(request).await?;
        let (mut line, mut length, mut status) = (String::new(), 0, String::new());
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line).await? > 0, "the connection was closed");
            let text = line.trim_end();
            if status.is_empty() {
                text.clone_into(&mut status);
            } else if text.is_empty() {
                break;
            } else if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).await?;
        ensure!(status.contains(" 200 "), "{status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

/// A signed request.
fn request(path: &str, body: &Value) -> Result<Vec<u8>> {
    let body = body.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET)?;
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: aion\r\nx-tenant-id: bench\r\nx-sig-hmac: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    Ok(request.into_bytes())
}

/// A backend of OpenAI's form that says the same at once, for ever.
async fn backend() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let answer = json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "echo",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    let answer = format!("{head}{answer}");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    loop {
                        line.clear();
                        if stream.read_line(&mut line).await? == 0 {
                            return Ok::<_, std::io::Error>(());
                        }
                        let lower = line.trim_end().to_ascii_lowercase();
                        if lower.is_empty() {
                            break;
                        }
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap_or(0);
                        }
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await?;
                    stream.write_all(answer.as_bytes()).await?;
                }
            });
        }
    });
    Ok(address)
}
