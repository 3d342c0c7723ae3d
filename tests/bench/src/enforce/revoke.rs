//! A rule is taken from an agent that holds many connections: from the call until the first new one is refused, and until nothing comes
//! over an old one any more, as seen from the other end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aion_client::api;
use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use super::Size;
use super::agents::{Network, Programs};
use super::space::Space;
use super::world::{Detections, GATE, SERVER, World, server};
use crate::aion::stdout;
use crate::report::{Report, percentile};
use crate::schedule::process::until;
use crate::tools::now_ns;

/// Where connections are held.
const PORT: u16 = 443;
const DENIED: &str = "net:connect:45.90.1.0/24:*";
const OPENED: Duration = Duration::from_secs(60);
const TOLD: Duration = Duration::from_secs(10);
/// Each connection carries a byte several times in this time.
const WHILE: Duration = Duration::from_millis(500);
const GOAL_MS: f64 = 100.0;

/// Who holds the other ends, until it is dropped.
struct Server {
    seen: Arc<Seen>,
    task: AbortHandle,
}

/// What came.
#[derive(Debug, Default)]
struct Seen {
    connections: AtomicU32,
    last_ns: AtomicU64,
}

/// Milliseconds from the call.
#[derive(Debug, Default)]
struct Times {
    answered: Vec<f64>,
    refused: Vec<f64>,
    last: Vec<f64>,
}

/// Measures, with a pair of daemons of its own.
pub(crate) async fn measure(
    scratch: &Path,
    programs: &Programs,
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let world = World::start(&scratch.join("revoke"), Detections::None).await?;
    let done = all(&world, programs, size, report).await;
    world.finish()?;
    done
}

async fn all(world: &World, programs: &Programs, size: Size, report: &mut Report) -> Result<()> {
    let mut times = Times::default();
    for round in 0..size.rounds {
        times.round(world, programs, size, round).await.with_context(|| format!("round {round}"))?;
    }
    let name = format!("a rule taken under {} open connections", size.held);
    report.samples(format!("{name}: reload answered"), "ms", &times.answered);
    for (what, samples) in
        [("first new one refused", &times.refused), ("last byte over an old one", &times.last)]
    {
        report.samples(format!("{name}: {what}"), "ms", samples);
        report.at_most(format!("{name}: {what}, the slowest"), "ms", percentile(samples, 100.0), GOAL_MS);
    }
    Ok(())
}

impl Times {
    async fn round(&mut self, world: &World, programs: &Programs, size: Size, round: u32) -> Result<()> {
        let server = Server::start(world.beyond()?)?;
        let (rules, count, port) = ([format!("{SERVER}:*")], size.held.to_string(), PORT.to_string());
        let spec = programs.agent("hold", &[SERVER, &port, &count, GATE], Network::Egress(&rules));
        let agent = world.daemons.agent(&format!("held-{round}"), spec).await?;
        let client = world.daemons.client();
        until("all connections are open", OPENED, async || {
            Ok((server.seen.connections.load(Ordering::Relaxed) >= size.held).then_some(()))
        })
        .await?;
        tokio::time::sleep(WHILE).await;
        world.deny(Some(DENIED))?;
        let begun = clock();
        let held = client.reload_policy(api::ReloadPolicyRequest::default()).await?;
        let answered = clock();
        let is_held =
            |one: &api::HeldAgent| one.id == agent.id && one.error.is_empty() && !one.withheld.is_empty();
        ensure!(held.agents.iter().any(is_held), "the agent is not held to the rules: {:?}", held.agents);
        tokio::time::sleep(WHILE).await;
        let last = server.last();
        tokio::time::sleep(WHILE).await;
        ensure!(server.last() == last, "bytes come over connections that are to be cut");
        let refused = until("a new connection is refused", TOLD, async || {
            Ok(refusal(&stdout(&client, &agent.id).await?))
        })
        .await?;
        // Its port is the next round's.
        drop(server);
        self.answered.push(ms(begun, answered));
        self.refused.push(ms(begun, refused));
        self.last.push(ms(begun, last));
        let request = api::RemoveRequest { agent: agent.id, force: true, ..api::RemoveRequest::default() };
        client.remove(request).await?;
        world.deny(None)?;
        client.reload_policy(api::ReloadPolicyRequest::default()).await?;
        Ok(())
    }
}

impl Server {
    fn start(beyond: &Space) -> Result<Self> {
        let listener = beyond.run(|| server(PORT))?;
        listener.set_nonblocking(true)?;
        let (listener, seen) = (TcpListener::from_std(listener)?, Arc::new(Seen::default()));
        let task = tokio::spawn(serve(listener, Arc::clone(&seen))).abort_handle();
        Ok(Self { seen, task })
    }

    fn last(&self) -> u64 {
        self.seen.last_ns.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Seen>) {
    // Gone with this task.
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        seen.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(async move {
            let mut bytes = [0; 512];
            while let Ok(1..) = stream.read(&mut bytes).await {
                seen.last_ns.fetch_max(clock(), Ordering::Relaxed);
            }
        });
    }
}

/// Nanoseconds since 1970: the agent's clock, too.
fn clock() -> u64 {
    u64::try_from(now_ns()).unwrap_or(u64::MAX)
}

/// From one moment to another; none when that was before.
fn ms(from: u64, to: u64) -> f64 {
    Duration::from_nanos(to.saturating_sub(from)).as_secs_f64() * 1e3
}

/// When the agent was refused a new connection, once it was.
fn refusal(output: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(output);
    text.lines().find_map(|line| line.strip_prefix("refused ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_a_refusal_is_read() {
        assert_eq!(refusal(b"ready\n"), None);
        assert_eq!(refusal(b"ready\nrefused 1700000000000000005\n"), Some(1_700_000_000_000_000_005));
        assert!(ms(5, 2_000_005) > 1.9 && ms(9, 5) < f64::EPSILON);
    }
}
