//! Streams about tasks: their transitions, which outlive a restart of the daemon, and those that do not.
//!
//! Invariant of a follower: the cursor is the number of the last transition that was handed out, so that none is lost
//! or seen twice.

use std::time::Instant;

use aion_api_proto::v1 as api;
use tokio_stream::Stream;
use tonic::{Response, Streaming};

use crate::{Client, Error, Result};

/// A stream of transitions that outlives the daemon.
#[derive(Debug)]
pub struct TaskFollower {
    client: Client,
    request: api::WatchTasksRequest,
    stream: Option<Streaming<api::TaskEvent>>,
}

impl Client {
    /// Follows one task's transitions, or with an empty `task` all tasks'.
    #[must_use]
    pub fn watch_tasks(&self, request: api::WatchTasksRequest) -> TaskFollower {
        TaskFollower { client: self.clone(), request, stream: None }
    }

    /// All tasks that match, page by page.
    ///
    /// # Errors
    /// What the daemon answered, or that it stayed away.
    pub async fn tasks_all(
        &self,
        mut request: api::ListTasksRequest,
        limit: usize,
    ) -> Result<Vec<api::Task>> {
        let mut tasks = Vec::new();
        loop {
            let page = self.tasks_page(request.clone()).await?;
            tasks.extend(page.tasks);
            if page.next_page_token.is_empty() || tasks.len() >= limit {
                tasks.truncate(limit);
                return Ok(tasks);
            }
            if page.next_page_token == request.page_token {
                return Err(Error::Answer { what: "the list's next page is the page before".to_owned() });
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All of a task's history.
    ///
    /// # Errors
    /// What the daemon answered, or that it stayed away.
    pub async fn task_history(&self, task: &str) -> Result<Vec<api::TaskEvent>> {
        let mut request =
            api::TaskHistoryRequest { task: task.to_owned(), page_size: 1000, ..Default::default() };
        let mut events = Vec::new();
        loop {
            let page = self.task_history_page(request.clone()).await?;
            events.extend(page.events);
            if !page.more {
                return Ok(events);
            }
            request.after_seq = page.next_after_seq;
        }
    }

    /// Many tasks with few calls; answers come in the order of the requests.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn submit_tasks(
        &self,
        batches: impl Stream<Item = api::SubmitBatch> + Send + 'static,
    ) -> Result<Streaming<api::SubmitResults>> {
        self.tasks()
            .submit_stream(batches)
            .await
            .map(Response::into_inner)
            .map_err(|status| self.error(status))
    }

    /// A task's newest checkpoint.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn task_checkpoint(&self, task: &str) -> Result<Streaming<api::CheckpointChunk>> {
        let request = api::GetCheckpointRequest { task: task.to_owned() };
        self.tasks().checkpoint(request).await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// The journal of the tasks, whole.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn export_journal(&self) -> Result<Streaming<api::JournalPart>> {
        let request = api::JournalExportRequest {};
        self.task_journal()
            .export(request)
            .await
            .map(Response::into_inner)
            .map_err(|status| self.error(status))
    }

    /// What the journal of the tasks committed after one of the marks, as a piece of an archive.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn archive_journal(
        &self,
        request: api::JournalArchiveRequest,
    ) -> Result<Streaming<api::JournalPart>> {
        self.task_journal()
            .archive(request)
            .await
            .map(Response::into_inner)
            .map_err(|status| self.error(status))
    }

    /// One archive of the state, as of one moment. What it is made of is gathered before this returns.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn create_backup(
        &self,
        request: api::CreateBackupRequest,
    ) -> Result<Streaming<api::BackupPart>> {
        self.backup().create(request).await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// Takes an export into a journal without tasks.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn import_journal(
        &self,
        parts: impl Stream<Item = api::JournalPart> + Send + 'static,
    ) -> Result<api::JournalReport> {
        self.task_journal().import(parts).await.map(Response::into_inner).map_err(|status| self.error(status))
    }
}

impl TaskFollower {
    /// The next transition; `None` at the newest one when not following.
    ///
    /// # Errors
    /// What the daemon answered, or that it stayed away.
    pub async fn next(&mut self) -> Result<Option<api::TaskEvent>> {
        let mut cut_off: Option<Instant> = None;
        loop {
            let error = match self.poll().await {
                Ok(Some(event)) => {
                    self.request.cursor = event.seq;
                    self.request.from_start = false;
                    return Ok(Some(event));
                }
                Ok(None) => return Ok(None),
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

    async fn poll(&mut self) -> Result<Option<api::TaskEvent>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let answer = self.client.tasks().watch(self.request.clone()).await;
                none.insert(answer.map_err(|status| self.client.error(status))?.into_inner())
            }
        };
        stream.message().await.map_err(|status| self.client.error(status))
    }
}
