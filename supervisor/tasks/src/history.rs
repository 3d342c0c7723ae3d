//! History and Watch: transitions, past and coming.
//!
//! A watcher hears of groups as they reach the disk. One that is too slow for that reads the journal at its own pace: what it has
//! not taken waits on disk, not in memory.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_scheduler::Event;
use aion_task_journal::Journal;
use aion_types::{ErrorCode, TenantId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::convert;
use crate::error::Error;
use crate::read::blocking;
use crate::tasks::Tasks;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// Events that are read in one step.
const STEP: usize = 512;
/// Events that wait for a slow client.
const AHEAD: usize = 64;

impl Tasks {
    /// A page of one task's transitions, oldest first.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`.
    pub async fn history(
        &self,
        tenant: &TenantId,
        request: api::TaskHistoryRequest,
    ) -> Result<api::TaskHistoryResponse, Error> {
        let limit = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
            0 => DEFAULT_PAGE,
            n if n <= MAX_PAGE => n,
            n => return Err(Error::field("page_size", format!("{n} is over the limit of {MAX_PAGE}"))),
        };
        let last = self.find(tenant, &request.task).await?.last_event;
        let journal = Arc::clone(&self.inner.journal);
        let (events, next, end) = blocking(move || past(&journal, last, request.after_seq, limit)).await?;
        Ok(api::TaskHistoryResponse {
            events: events.iter().map(|event| convert::event(event, &self.inner.journal)).collect(),
            next_after_seq: next,
            more: !end,
        })
    }

    /// Transitions of one task until its end, or of all of the tenant's.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`, `CURSOR_EXPIRED`.
    pub async fn watch(
        &self,
        tenant: &TenantId,
        request: api::WatchTasksRequest,
    ) -> Result<mpsc::Receiver<Result<api::TaskEvent, Error>>, Error> {
        // What comes from here on is heard, so that nothing is missed between the past and the present.
        let mut heard = self.inner.outlets.events.subscribe();
        let one = if request.task.is_empty() { None } else { Some(self.find(tenant, &request.task).await?) };
        let newest = *self.inner.outlets.newest.borrow();
        let mut after = match (request.cursor, request.from_start, &one) {
            (0, true, _) => 0,
            (0, false, _) => newest,
            (cursor, _, _) => cursor,
        };
        let (send, receive) = mpsc::channel(AHEAD);
        let (tasks, tenant) = (self.clone(), tenant.clone());
        let id = one.as_ref().map(|view| view.id.to_string());
        let over = one.as_ref().is_some_and(|view| view.state.ended());
        let mut behind = true;
        tokio::spawn(async move {
            let told = async {
                loop {
                    if behind {
                        behind = false;
                        if !tasks.catch_up(&tenant, id.as_deref(), &mut after, &send).await? {
                            return Ok(());
                        }
                        if over || !request.follow {
                            return Ok(());
                        }
                    }
                    match heard.recv().await {
                        Ok(events) => {
                            for event in events.iter().filter(|event| event.seq > after) {
                                let mine = *event.tenant == *tenant.as_str()
                                    && id.as_deref().is_none_or(|id| *event.id == *id);
                                if !mine {
                                    continue;
                                }
                                if send.send(Ok(convert::event(event, &tasks.inner.journal))).await.is_err() {
                                    return Ok(());
                                }
                                if id.is_some() && convert::is_last(&event.kind) {
                                    return Ok(());
                                }
                            }
                            after = events.last().map_or(after, |event| event.seq.max(after));
                        }
                        Err(RecvError::Lagged(_)) => behind = true,
                        Err(RecvError::Closed) => return Err(Error::away()),
                    }
                }
            };
            let end: Result<(), Error> = tokio::select! {
                told = told => told,
                () = send.closed() => return,
                () = tasks.inner.end.cancelled() => Err(Error::away()),
            };
            if let Err(error) = end {
                let _ = send.send(Err(error)).await;
            }
        });
        Ok(receive)
    }

    /// Sends what the journal has after `after`. False: nothing follows.
    async fn catch_up(
        &self,
        tenant: &TenantId,
        id: Option<&str>,
        after: &mut u64,
        send: &mpsc::Sender<Result<api::TaskEvent, Error>>,
    ) -> Result<bool, Error> {
        loop {
            let from = *after;
            let journal = Arc::clone(&self.inner.journal);
            let (events, next, end) = match id {
                Some(id) => {
                    let last = self.find(tenant, id).await?.last_event;
                    blocking(move || past(&journal, last, from, STEP)).await?
                }
                None => {
                    blocking(move || {
                        let page = journal.events_after(from, STEP)?;
                        if page.gaps && from > 0 {
                            let message = "transitions after this cursor are not kept any more".to_owned();
                            return Err(Error::new(ErrorCode::CursorExpired, message));
                        }
                        Ok((decode(&page.events)?, page.next, page.end))
                    })
                    .await?
                }
            };
            for event in &events {
                if *event.tenant != *tenant.as_str() || event.task.0 == 0 {
                    continue;
                }
                if send.send(Ok(convert::event(event, &self.inner.journal))).await.is_err() {
                    return Ok(false);
                }
                if id.is_some() && convert::is_last(&event.kind) {
                    return Ok(false);
                }
            }
            *after = next.max(from);
            if end {
                return Ok(true);
            }
        }
    }
}

/// Events of one task after a number: at most `limit`, where to go on, and whether that was all.
fn past(journal: &Journal, last: u64, after: u64, limit: usize) -> Result<(Vec<Event>, u64, bool), Error> {
    let page = journal.history_after(last, after, limit)?;
    Ok((decode(&page.events)?, page.next, page.end))
}

fn decode(events: &[aion_task_journal::Event]) -> Result<Vec<Event>, Error> {
    events
        .iter()
        .map(|event| {
            Event::decode(&event.bytes)
                .map_err(|error| Error::internal("an event of the journal cannot be read", &error))
        })
        .collect()
}
