//! Reading tasks: what lives is asked of the engine, what has ended of the journal. What is answered is on disk.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_scheduler::{Scheduler, TaskId, TaskView, keys};
use aion_task_journal::Journal;
use aion_types::{AgentName, TenantId};
use tokio::sync::{mpsc, oneshot};

use crate::clock::{duration, now_ms};
use crate::convert;
use crate::error::Error;
use crate::tasks::Tasks;
use crate::work::{Look, Work, name};

impl Tasks {
    /// Looks at the core, and answers when what it saw is on disk.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        look: impl FnOnce(&Scheduler) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |core| {
            let seen = look(core);
            Box::new(move || {
                let _ = answer.send(seen);
            })
        });
        self.inner.inbox.tenant(&name(tenant.as_str()), Work::Look(look)).await?;
        answered.await.map_err(|_| Error::away())
    }

    /// A task of a tenant, living or ended. Another tenant's does not exist.
    pub(crate) async fn find(&self, tenant: &TenantId, id: &str) -> Result<TaskView, Error> {
        let Ok(task) = TaskId::parse(id) else { return Err(Error::no_task(id)) };
        let (owner, wanted) = (tenant.clone(), task.clone());
        let living = self.look(tenant, move |core| core.task(owner.as_str(), wanted.as_str())).await?;
        if let Some(view) = living {
            return Ok(view);
        }
        let (journal, owner) = (Arc::clone(&self.inner.journal), tenant.clone());
        blocking(move || ended(&journal, &owner, &task)).await
    }

    /// One task.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`.
    pub async fn get(&self, tenant: &TenantId, id: &str) -> Result<api::Task, Error> {
        let view = self.find(tenant, id).await?;
        let journal = Arc::clone(&self.inner.journal);
        blocking(move || whole(&journal, &view)).await
    }

    /// What a tenant and an agent of its may spend in an hour, in millionths of a US dollar, as scheduler.yaml has it.
    #[must_use]
    pub fn spending(&self, tenant: &TenantId, agent: &AgentName) -> (Option<u64>, Option<u64>) {
        let config = self.inner.config.borrow();
        let of_tenant = config.tenants.get(tenant).unwrap_or(&config.tenant_default);
        let of_agent = of_tenant.agents.get(agent);
        (of_tenant.quotas.usd_micros_per_hour, of_agent.and_then(|quotas| quotas.usd_micros_per_hour))
    }

    /// How the queues are: the node's, with the tenant's own share.
    ///
    /// # Errors
    /// When the daemon goes down.
    pub async fn queues(&self, tenant: &TenantId) -> Result<api::QueuesResponse, Error> {
        let metrics = Arc::clone(&self.inner.metrics);
        self.look(tenant, move |core| {
            let now = now_ms();
            let views = core.queues(None);
            let used: u64 = views.iter().map(|queue| queue.slots).sum();
            let tenants = core.tenants();
            let weights: f64 = tenants
                .iter()
                .filter(|tenant| tenant.queued + tenant.running > 0)
                .map(|tenant| f64::from(tenant.weight))
                .sum();
            let queues = views.into_iter().map(|queue| {
                let rates = metrics.rates(queue.class, queue.depth + queue.running);
                api::Queue {
                    name: queue.class.as_str().to_owned(),
                    depth: queue.depth,
                    running: queue.running,
                    submitted_per_s: rates.submitted_per_s,
                    finished_per_s: rates.finished_per_s,
                    oldest_wait: queue.oldest.map(|at| duration(now.saturating_sub(at))),
                    wait_p50: rates.wait_p50_ms.map(duration),
                    wait_p99: rates.wait_p99_ms.map(duration),
                    preemptions: rates.preemptions,
                }
            });
            let shares = tenants.into_iter().map(|tenant| {
                let active = tenant.queued + tenant.running > 0;
                #[expect(clippy::cast_precision_loss, reason = "slots of a node")]
                let share = if used == 0 { 0.0 } else { tenant.slots as f64 / used as f64 };
                api::TenantShare {
                    share,
                    fair_share: if active && weights > 0.0 {
                        f64::from(tenant.weight) / weights
                    } else {
                        0.0
                    },
                    tenant: tenant.tenant.to_string(),
                    weight: tenant.weight,
                    queued: tenant.queued,
                    running: tenant.running,
                    limited_by: tenant.limited_by.map_or_else(String::new, |(quota, frees)| match frees {
                        Some(at) => format!("{quota}, frees up in {}", convert::span(at.saturating_sub(now))),
                        None => quota.to_owned(),
                    }),
                }
            });
            api::QueuesResponse {
                queues: queues.collect(),
                tenants: shares.collect(),
                slots: core.config().slots,
                slots_used: core.usage_of_node().0,
                frozen_bytes: core.usage_of_node().2,
            }
        })
        .await
    }

    /// The newest checkpoint, in parts.
    ///
    /// # Errors
    /// `TASK_NOT_FOUND`, also for a task without one.
    pub async fn checkpoint(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<mpsc::Receiver<Result<api::CheckpointChunk, Error>>, Error> {
        let view = self.find(tenant, id).await?;
        let journal = Arc::clone(&self.inner.journal);
        let (task, id) = (view.number.0, view.id.clone());
        let (found, journal) = blocking(move || {
            let newest = journal.checkpoints(task)?.pop();
            let none = || {
                Error::new(aion_types::ErrorCode::TaskNotFound, format!("task {id} has no checkpoint"))
                    .hint("there is one from the first that its agent leaves until the task ends")
            };
            Ok((newest.ok_or_else(none)?, journal))
        })
        .await?;
        let (send, receive) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut total = found.length;
            let read = journal.read_checkpoint(task, found.number, |data| {
                let chunk = api::CheckpointChunk { data: data.to_vec(), total, number: found.number };
                total = found.length;
                send.blocking_send(Ok(chunk)).map_err(|_| aion_task_journal::Error::Closed)
            });
            if let Err(error) = read
                && !matches!(error, aion_task_journal::Error::Closed)
            {
                let _ = send.blocking_send(Err(Error::from(error)));
            }
        });
        Ok(receive)
    }
}

/// An ended task, from its rows.
pub(crate) fn ended(journal: &Journal, tenant: &TenantId, id: &TaskId) -> Result<TaskView, Error> {
    let unreadable =
        |error: aion_scheduler::DecodeError| Error::internal("an ended task's row cannot be read", &error);
    let index = journal.ended_row(&keys::ended_index(tenant.as_str(), id.as_str()))?;
    let index = index.ok_or_else(|| Error::no_task(id.as_str()))?;
    let number = aion_scheduler::Ended::decode(&index).map_err(unreadable)?.number;
    let row = journal.ended_row(&keys::ended(tenant.as_str(), number))?;
    let row = row.ok_or_else(|| Error::no_task(id.as_str()))?;
    TaskView::decode(&row).map_err(unreadable)
}

/// A view with what the journal keeps besides.
pub(crate) fn whole(journal: &Journal, view: &TaskView) -> Result<api::Task, Error> {
    let body = journal.body(view.number.0)?;
    let result =
        if view.state == aion_scheduler::State::Succeeded { journal.result(view.number.0)? } else { None };
    Ok(convert::task(view, body.as_deref(), result))
}

/// Reads of the journal, off the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("reading the journal of the tasks did not run to its end", &error))?
}
