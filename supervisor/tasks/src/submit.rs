//! Submitting and cancelling: single requests, and batches in which each task has its own answer.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_scheduler::{Ended, TaskId, keys};
use aion_types::{ErrorCode, TenantId};
use tokio::sync::oneshot;

use crate::clock::duration;
use crate::convert;
use crate::error::Error;
use crate::spec::{self, Id};
use crate::tasks::Tasks;
use crate::work::{NewTask, Submitted, Work, name};

/// Tasks of one message of a stream.
const MAX_BATCH: usize = 1024;
/// Tasks that go to the engine as one piece: small enough that tenants take turns.
const PIECE: usize = 64;

/// A batch on its way: what was refused at the door is answered already.
pub struct Underway {
    refused: Vec<(usize, String, Error)>,
    pieces: Vec<Piece>,
    total: usize,
}

struct Piece {
    places: Vec<(usize, String)>,
    answer: oneshot::Receiver<Vec<Result<Submitted, Error>>>,
}

impl Tasks {
    /// Submits one task; answers when it is on disk.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn submit(&self, tenant: &TenantId, request: api::SubmitRequest) -> Result<api::Task, Error> {
        let spec = request.task.ok_or_else(|| Error::field("task", "it is missing"))?;
        let id = spec::id(tenant, &spec.task_id, &request.request_id)?;
        let by_request = matches!(id, Id::OfRequest(_));
        let task = id.task().clone();
        let new = self.prepare(tenant, id, spec)?;
        let (answer, answered) = oneshot::channel();
        let body = Arc::clone(&new.body);
        let submit = Work::Submit { tasks: vec![new], look: true, answer };
        self.inner.inbox.tenant(&name(tenant.as_str()), submit).await?;
        let mut results = answered.await.map_err(|_| Error::away())?;
        match results.pop().unwrap_or_else(|| Err(Error::away())) {
            Ok(Submitted { view: Some(view), .. }) => Ok(convert::task(&view, Some(&body), None)),
            Ok(_) => self.get(tenant, task.as_str()).await,
            Err(error) => Err(self.explain(tenant, error, by_request)),
        }
    }

    /// Checks a batch and sends it off; [`Underway::results`] waits for the answers. Waits while the tenant's lane is full.
    ///
    /// # Errors
    /// The batch as a whole cannot be taken.
    pub async fn submit_batch(&self, tenant: &TenantId, batch: api::SubmitBatch) -> Result<Underway, Error> {
        let total = batch.tasks.len();
        if total > MAX_BATCH {
            return Err(Error::too_large(
                "tasks",
                format!("{total} tasks in one message, at most {MAX_BATCH} are taken"),
            ));
        }
        let mut underway = Underway { refused: Vec::new(), pieces: Vec::new(), total };
        let mut new = Vec::with_capacity(total.min(PIECE));
        let mut places = Vec::with_capacity(total.min(PIECE));
        let lane = name(tenant.as_str());
        for (at, spec) in batch.tasks.into_iter().enumerate() {
            let given = spec.task_id.clone();
            let checked = spec::id(tenant, &spec.task_id, "").and_then(|id| {
                let task = id.task().as_str().to_owned();
                Ok((task, self.prepare(tenant, id, spec)?))
            });
            match checked {
                Ok((task, checked)) => {
                    places.push((at, task));
                    new.push(checked);
                }
                Err(error) => underway.refused.push((at, given, error)),
            }
            if new.len() >= PIECE {
                self.send_piece(&lane, &mut new, &mut places, &mut underway).await?;
            }
        }
        if !new.is_empty() {
            self.send_piece(&lane, &mut new, &mut places, &mut underway).await?;
        }
        Ok(underway)
    }

    async fn send_piece(
        &self,
        lane: &aion_scheduler::Name,
        new: &mut Vec<NewTask>,
        places: &mut Vec<(usize, String)>,
        underway: &mut Underway,
    ) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        let (tasks, places) = (std::mem::take(new), std::mem::take(places));
        self.inner.inbox.tenant(lane, Work::Submit { tasks, look: false, answer }).await?;
        underway.pieces.push(Piece { places, answer: answered });
        Ok(())
    }

    /// Checks a task and looks up what the journal knows of the ids in it.
    fn prepare(&self, tenant: &TenantId, id: Id, spec: api::TaskSpec) -> Result<NewTask, Error> {
        let look = !matches!(id, Id::Fresh(_));
        let mut new = spec::check(tenant, id.task().clone(), spec)?;
        if look {
            new.submit.known = self.known(tenant, id.task())?;
        }
        for dependency in &mut new.submit.after {
            dependency.known = self.known(tenant, &dependency.id)?;
        }
        Ok(new)
    }

    /// What the journal holds of an ended task.
    pub(crate) fn known(&self, tenant: &TenantId, id: &TaskId) -> Result<Option<Ended>, Error> {
        let Some(row) = self.inner.journal.ended_row(&keys::ended_index(tenant.as_str(), id.as_str()))?
        else {
            return Ok(None);
        };
        Ended::decode(&row)
            .map(Some)
            .map_err(|error| Error::internal("an ended task's row cannot be read", &error))
    }

    /// A refusal in the words of whoever asked.
    pub(crate) fn explain(&self, tenant: &TenantId, error: Error, by_request: bool) -> Error {
        match error.code {
            ErrorCode::TaskExists if by_request => Error {
                field: "request_id",
                ..Error::new(ErrorCode::RequestIdReused, "the request id came before with another task")
                    .hint("use a fresh request id for each new request")
            },
            ErrorCode::AgentNotFound if self.is_registered(tenant, &error.message) => Error {
                field: "agent",
                ..Error::new(
                    ErrorCode::NotServed,
                    error.message.replace("there is no agent", "no tasks are served by agent"),
                )
                .hint("add `mode: job`, or for a service `tasks: true`, to its manifest and apply it")
            },
            _ => error,
        }
    }

    fn is_registered(&self, tenant: &TenantId, message: &str) -> bool {
        let agent = message.rsplit(' ').next().and_then(|word| aion_types::AgentName::parse(word).ok());
        agent.is_some_and(|agent| self.inner.host.is_registered(tenant, &agent))
    }

    /// Ends a task. One that was cancelled before is answered as if it were now.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`, `TASK_ENDED`.
    pub async fn cancel(
        &self,
        tenant: &TenantId,
        request: api::CancelTaskRequest,
    ) -> Result<api::Task, Error> {
        let task = TaskId::parse(&request.task).map_err(|_| Error::no_task(&request.task))?;
        // Cancelling twice is cancelling once, with or without it: it is not remembered.
        spec::request_id(&request.request_id)?;
        if request.reason.len() > 1024 {
            return Err(Error::too_large("reason", "reason: at most 1024 bytes are taken"));
        }
        let (answer, answered) = oneshot::channel();
        let cancel =
            Work::Cancel { tenant: tenant.clone(), task: task.clone(), reason: request.reason, answer };
        self.inner.inbox.tenant(&name(tenant.as_str()), cancel).await?;
        let result = answered.await.map_err(|_| Error::away())?;
        match result {
            Ok(()) => self.get(tenant, task.as_str()).await,
            Err(error) if matches!(error.code, ErrorCode::TaskNotFound | ErrorCode::TaskEnded) => {
                let found = self.get(tenant, task.as_str()).await?;
                if found.state == "cancelled" {
                    return Ok(found);
                }
                Err(Error::new(ErrorCode::TaskEnded, format!("task {task} has ended: {}", found.state)))
            }
            Err(error) => Err(error),
        }
    }
}

impl Underway {
    /// Waits for the answers, in the order of the tasks.
    pub async fn results(self, tasks: &Tasks, tenant: &TenantId) -> api::SubmitResults {
        let mut results = vec![api::SubmitResult::default(); self.total];
        for (at, task, error) in self.refused {
            results[at] = refused(tasks, task, error);
        }
        for piece in self.pieces {
            let mut answers = piece.answer.await.unwrap_or_default().into_iter();
            for (at, task) in piece.places {
                results[at] = match answers.next().unwrap_or_else(|| Err(Error::away())) {
                    Ok(submitted) => api::SubmitResult {
                        task_id: task,
                        existed: submitted.existed,
                        ..api::SubmitResult::default()
                    },
                    Err(error) => refused(tasks, task, tasks.explain(tenant, error, false)),
                };
            }
        }
        api::SubmitResults { results }
    }
}

fn refused(tasks: &Tasks, task_id: String, error: Error) -> api::SubmitResult {
    tasks.refused(&error);
    api::SubmitResult {
        task_id,
        error_code: error.code.as_str().to_owned(),
        error_message: error.message,
        retry_after: error.retry_after_ms.map(duration),
        existed: false,
    }
}
