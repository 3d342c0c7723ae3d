//! AION as a contender: through its API, as any client would use it.

use std::path::Path;

use aion_client::{Client, Options, api};
use anyhow::{Context, Result};

/// A connection, and names that no other run uses.
#[derive(Debug, Clone)]
pub(crate) struct Aion {
    pub(crate) client: Client,
    prefix: String,
}

impl Aion {
    /// Connects to the daemon of `AION_SOCKET`.
    pub(crate) async fn connect() -> Result<Self> {
        let client = Client::connect(Options::default()).await.context("aiond is not reachable")?;
        Ok(Self { client, prefix: format!("bench-{}", std::process::id()) })
    }

    /// Registers an agent that runs `argv`, not started.
    pub(crate) async fn register(
        &self,
        name: &str,
        argv: &[&str],
        audit: &str,
        workspace: Option<&Path>,
    ) -> Result<api::Agent> {
        let name = format!("{}-{name}", self.prefix);
        let manifest = serde_json::json!({
            "apiVersion": "aion.os/v1",
            "kind": "Agent",
            "metadata": { "name": name, "version": "1.0.0" },
            "spec": {
                "entry": argv,
                "capabilities": { "filesystem": false, "network": false, "gpu": false, "subprocess": true },
                "audit": audit,
            },
        });
        let overrides = api::Overrides {
            workspace: workspace.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
            ..api::Overrides::default()
        };
        let request = api::RegisterRequest {
            manifest: manifest.to_string().into_bytes(),
            manifest_name: "bench.json".to_owned(),
            overrides: Some(overrides),
            ..api::RegisterRequest::default()
        };
        Ok(self.client.register(request).await?)
    }

    /// Starts it.
    pub(crate) async fn start(&self, id: &str) -> Result<api::Agent> {
        let request = api::StartRequest { agent: id.to_owned(), ..api::StartRequest::default() };
        Ok(self.client.start(request).await?)
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self, id: &str) -> Result<api::Agent> {
        Ok(self.client.wait(api::WaitRequest { agent: id.to_owned(), timeout: None }).await?)
    }

    /// Kills the whole of it.
    pub(crate) async fn kill(&self, id: &str) -> Result<api::Agent> {
        let request = api::KillRequest { agent: id.to_owned(), signal: 9, ..api::KillRequest::default() };
        Ok(self.client.kill(request).await?)
    }

    /// Removes it.
    pub(crate) async fn remove(&self, id: &str) -> Result<()> {
        let request =
            api::RemoveRequest { agent: id.to_owned(), force: true, ..api::RemoveRequest::default() };
        self.client.remove(request).await?;
        Ok(())
    }

    /// All it wrote to standard output, once it has ended.
    pub(crate) async fn stdout(&self, id: &str) -> Result<Vec<u8>> {
        stdout(&self.client, id).await
    }
}

/// What an agent wrote to standard output until now.
pub(crate) async fn stdout(client: &Client, id: &str) -> Result<Vec<u8>> {
    let request = api::LogsRequest { agent: id.to_owned(), ..api::LogsRequest::default() };
    let mut follower = client.logs(request);
    let mut output = Vec::new();
    while let Some(chunk) = follower.next().await? {
        if chunk.stream() == api::log_chunk::Stream::Stdout {
            output.extend_from_slice(&chunk.data);
        }
    }
    Ok(output)
}
