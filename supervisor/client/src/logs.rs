//! Following an agent's output, across restarts of the daemon.
//!
//! Invariant: the cursor moves only when a chunk has been handed out, and a chunk comes whole or not at all; so a
//! stream that is opened again at the cursor neither skips nor repeats a byte.

use std::time::{Duration, Instant};

use aion_api_proto::v1 as api;
use tonic::Streaming;

use crate::{Client, Result};

/// A stream of output that outlives the daemon.
#[derive(Debug)]
pub struct LogFollower {
    client: Client,
    request: api::LogsRequest,
    stream: Option<Streaming<api::LogChunk>>,
    /// The agent was seen to have ended, so the end of the stream is the end of the output.
    ended: bool,
    reconnects: u32,
}

impl Client {
    /// Opens an agent's output.
    #[must_use]
    pub fn logs(&self, request: api::LogsRequest) -> LogFollower {
        LogFollower { client: self.clone(), request, stream: None, ended: false, reconnects: 0 }
    }
}

impl LogFollower {
    /// Where the next chunk begins.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.request.cursor
    }

    /// How often the stream had to be opened again.
    #[must_use]
    pub const fn reconnects(&self) -> u32 {
        self.reconnects
    }

    /// The next chunk; `None` at the end of the output (when following: after the agent's end).
    ///
    /// Safe to drop and call again: nothing is lost between two calls.
    ///
    /// # Errors
    /// What the daemon answered, or that it stayed away.
    pub async fn next(&mut self) -> Result<Option<api::LogChunk>> {
        let mut cut_off: Option<Instant> = None;
        loop {
            let error = match self.poll().await {
                Ok(Some(chunk)) => {
                    self.request.cursor = chunk.next_cursor;
                    // They choose where to begin; from now on the cursor does.
                    self.request.tail_lines = 0;
                    self.request.since = None;
                    // The last look was none: there was more.
                    self.ended = false;
                    return Ok(Some(chunk));
                }
                Ok(None) if self.at_end().await? => return Ok(None),
                Ok(None) => {
                    self.reconnects += 1;
                    continue;
                }
                Err(error) => error,
            };
            self.stream = None;
            if !error.is_disconnect() {
                return Err(error);
            }
            self.reconnects += 1;
            let since = *cut_off.get_or_insert_with(Instant::now);
            self.client.await_daemon(since, error).await?;
        }
    }

    async fn poll(&mut self) -> Result<Option<api::LogChunk>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let answer = self.client.agents().logs(self.request.clone()).await;
                none.insert(answer.map_err(|status| self.client.error(status))?.into_inner())
            }
        };
        stream.message().await.map_err(|status| self.client.error(status))
    }

    /// Judges a stream's end. A daemon that shuts down in good order ends its streams in good order too, so the end
    /// of a stream is believed only when the agent has ended, and then once more after a last look that finds
    /// nothing.
    async fn at_end(&mut self) -> Result<bool> {
        self.stream = None;
        if !self.request.follow || self.ended {
            return Ok(true);
        }
        match self.client.get(api::GetRequest { agent: self.request.agent.clone() }).await {
            Ok(agent) if matches!(agent.state.as_str(), "exited" | "failed" | "created") => self.ended = true,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            // It was removed as soon as it ended; its output went with it.
            Err(error) if error.code() == aion_types::ErrorCode::AgentNotFound => return Ok(true),
            Err(error) => return Err(error),
        }
        Ok(false)
    }
}
