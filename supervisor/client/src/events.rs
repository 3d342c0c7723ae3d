//! Following audit records, across restarts of the daemon.
//!
//! Invariant: as for output, the cursor is the sequence number of the last record that was handed out. "From now on"
//! is turned into a cursor before the first stream is opened, so that a restart right after the start loses nothing.

use std::time::Instant;

use aion_api_proto::v1 as api;
use tonic::Streaming;

use crate::{Client, Result};

/// A stream of records that outlives the daemon.
#[derive(Debug)]
pub struct EventFollower {
    client: Client,
    request: api::SubscribeRequest,
    stream: Option<Streaming<api::Record>>,
    placed: bool,
}

impl Client {
    /// Opens the stream of records.
    #[must_use]
    pub fn subscribe(&self, request: api::SubscribeRequest) -> EventFollower {
        EventFollower { client: self.clone(), request, stream: None, placed: false }
    }
}

impl EventFollower {
    /// The last record that was handed out.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.request.cursor
    }

    /// The next record; `None` at the newest one when not following.
    ///
    /// Safe to drop and call again: nothing is lost between two calls.
    ///
    /// # Errors
    /// What the daemon answered, or that it stayed away.
    pub async fn next(&mut self) -> Result<Option<api::Record>> {
        self.place().await?;
        let mut cut_off: Option<Instant> = None;
        loop {
            let error = match self.poll().await {
                Ok(Some(record)) => {
                    self.request.cursor = record.seq;
                    self.request.from_start = false;
                    return Ok(Some(record));
                }
                Ok(None) if !self.request.follow => return Ok(None),
                // A followed stream has no end; this one was closed by a daemon that shuts down.
                Ok(None) => {
                    self.stream = None;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
                Err(error) => error,
            };
            self.stream = None;
            if !error.is_disconnect() {
                return Err(error);
            }
            let since = *cut_off.get_or_insert_with(Instant::now);
            self.client.await_daemon(since, error).await?;
        }
    }

    async fn place(&mut self) -> Result<()> {
        if self.placed {
            return Ok(());
        }
        if self.request.follow && self.request.cursor == 0 && !self.request.from_start {
            let newest = api::QueryRequest { page_size: 1, newest: true, ..Default::default() };
            let seq = self.client.query(newest).await?.records.last().map_or(0, |record| record.seq);
            self.request.cursor = seq;
            self.request.from_start = seq == 0;
        }
        self.placed = true;
        Ok(())
    }

    async fn poll(&mut self) -> Result<Option<api::Record>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let answer = self.client.events().subscribe(self.request.clone()).await;
                none.insert(answer.map_err(|status| self.client.error(status))?.into_inner())
            }
        };
        stream.message().await.map_err(|status| self.client.error(status))
    }
}
