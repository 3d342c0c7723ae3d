//! An agent's end of its door, played by the benchmark: the socket is the one that the agent would have inside.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aion_client::api::from_agent::Kind as From;
use aion_client::api::runtime_service_client::RuntimeServiceClient;
use aion_client::api::to_agent::Kind as To;
use aion_client::api::{self, completion::Outcome};
use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Uri};

/// Larger than any message: assignments of a full window, parts of checkpoints.
const MAX_MESSAGE: usize = 32 << 20;
/// How long the door may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where an agent's door is.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    socket: PathBuf,
    concurrency: u32,
}

/// An attached stream.
#[derive(Debug)]
pub(crate) struct Door {
    to: mpsc::Sender<api::FromAgent>,
    from: tonic::Streaming<api::ToAgent>,
    /// What it was told at its welcome still counts.
    pub(crate) kept: Vec<api::Attempt>,
}

impl Seat {
    /// The door of the agent with this id.
    pub(crate) fn new(state: &Path, id: &str, concurrency: u32) -> Self {
        Self { socket: state.join("doors").join(id).join("kernel.sock"), concurrency }
    }

    /// Attaches, with what it still works on.
    pub(crate) async fn attach(&self, running: Vec<api::Attempt>) -> Result<Door> {
        // Made soon after the agent's start.
        let begun = Instant::now();
        while !self.socket.exists() && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let channel = Endpoint::from_static("http://kernel.local")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("{}", self.socket.display()))?;
        let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (to, messages) = mpsc::channel(256);
        let hello = api::RuntimeHello {
            protocol: 1,
            concurrency: self.concurrency,
            running,
            sdk: "aion-bench".to_owned(),
        };
        to.send(api::FromAgent { kind: Some(From::Hello(hello)) }).await?;
        let from = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        let mut door = Door { to, from, kept: Vec::new() };
        match door.next().await? {
            To::Welcome(welcome) => door.kept = welcome.keep,
            other => bail!("instead of a welcome: {other:?}"),
        }
        Ok(door)
    }
}

impl Door {
    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<To> {
        loop {
            let message = self.from.message().await?.context("aiond closed the agent's stream")?;
            if let Some(kind) = message.kind {
                return Ok(kind);
            }
        }
    }

    /// Sends a message.
    pub(crate) async fn send(&self, kind: From) -> Result<()> {
        self.to.send(api::FromAgent { kind: Some(kind) }).await.context("the agent's stream is gone")
    }

    /// Reports ends.
    pub(crate) async fn complete(&self, completions: Vec<api::Completion>) -> Result<()> {
        self.send(From::Completions(api::Completions { completions })).await
    }
}

/// A success.
pub(crate) fn completion(attempt: Option<api::Attempt>, result: &str) -> api::Completion {
    api::Completion { attempt, outcome: Some(Outcome::ResultJson(result.to_owned())) }
}

/// An attempt as a key of a map.
pub(crate) fn token(attempt: Option<&api::Attempt>) -> Result<(u64, u64)> {
    attempt.map(|attempt| (attempt.epoch, attempt.seq)).context("a message about no attempt")
}
