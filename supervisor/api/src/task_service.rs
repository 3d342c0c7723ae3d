//! TaskService and JournalService: each method lets a request through its stages and hands it to the engine.

use std::pin::Pin;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::journal_service_server::JournalService;
use aion_api_proto::v1::task_service_server::TaskService;
use aion_tasks::Tasks;
use aion_types::TraceParent;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::problem::Problem;
use crate::service::Services;
use crate::stage::Action;
use crate::syscall_service;

/// Batches of one stream that are under way at once.
const AHEAD: usize = 16;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a client is told; counted.
fn told(tasks: &Tasks) -> impl Fn(aion_tasks::Error) -> Status + '_ {
    |error| {
        tasks.refused(&error);
        failed(error)
    }
}

fn failed(error: aion_tasks::Error) -> Status {
    // As when the daemon goes: without details, so that clients come back.
    if error.code == aion_types::ErrorCode::DaemonUnavailable {
        return Status::unavailable(error.message);
    }
    Problem::from(error).into()
}

fn stream<T: Send + 'static>(from: mpsc::Receiver<Result<T, aion_tasks::Error>>) -> Answers<T> {
    Box::pin(ReceiverStream::new(from).map(|item| item.map_err(failed)))
}

#[tonic::async_trait]
impl TaskService for Services {
    type SubmitStreamStream = Answers<api::SubmitResults>;
    type WatchStream = Answers<api::TaskEvent>;
    type CheckpointStream = Answers<api::CheckpointChunk>;

    async fn submit(&self, request: Request<api::SubmitRequest>) -> Result<Response<api::Task>, Status> {
        let parent = syscall_service::trace(&request).and_then(|header| TraceParent::parse(&header));
        let (principal, mut request) = self.admit(request, Action::SubmitTask).await?.into_parts();
        if let (Some(parent), Some(task)) = (parent, &mut request.task)
            && task.trace_id.is_empty()
        {
            task.trace_id = parent.trace_id();
        }
        let tasks = self.0.tasks()?;
        tasks.submit(principal.tenant(), request).await.map(Response::new).map_err(told(tasks))
    }

    async fn submit_stream(
        &self,
        request: Request<Streaming<api::SubmitBatch>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let (principal, mut batches) = self.admit(request, Action::SubmitTask).await?.into_parts();
        let tasks = self.0.tasks()?.clone();
        let permit = self.0.stream_permit()?;
        let tenant = principal.tenant().clone();
        let (underway, mut sent) = mpsc::channel(AHEAD);
        let (send, receive) = mpsc::channel(AHEAD);
        let (sender, owner) = (tasks.clone(), tenant.clone());
        // One side takes batches in while the other waits for the disk.
        tokio::spawn(async move {
            let _permit = permit;
            loop {
                let next = match batches.message().await {
                    Ok(Some(batch)) => sender.submit_batch(&owner, batch).await.map_err(told(&sender)),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let over = next.is_err();
                if underway.send(next).await.is_err() || over {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(next) = sent.recv().await {
                let answer = match next {
                    Ok(underway) => Ok(underway.results(&tasks, &tenant).await),
                    Err(status) => Err(status),
                };
                if send.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn get(&self, request: Request<api::GetTaskRequest>) -> Result<Response<api::Task>, Status> {
        let (principal, request) = self.admit(request, Action::ReadTasks).await?.into_parts();
        let tasks = self.0.tasks()?;
        tasks.get(principal.tenant(), &request.task).await.map(Response::new).map_err(told(tasks))
    }

    async fn list(
        &self,
        request: Request<api::ListTasksRequest>,
    ) -> Result<Response<api::ListTasksResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ReadTasks).await?.into_parts();
        let tasks = self.0.tasks()?;
        tasks.list(principal.tenant(), request).await.map(Response::new).map_err(told(tasks))
    }

    async fn cancel(&self, request: Request<api::CancelTaskRequest>) -> Result<Response<api::Task>, Status> {
        let (principal, request) = self.admit(request, Action::CancelTask).await?.into_parts();
        let tasks = self.0.tasks()?;
        tasks.cancel(principal.tenant(), request).await.map(Response::new).map_err(told(tasks))
    }

    async fn watch(
        &self,
        request: Request<api::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (principal, request) = self.admit(request, Action::ReadTasks).await?.into_parts();
        let permit = self.0.stream_permit()?;
        let tasks = self.0.tasks()?;
        let events = tasks.watch(principal.tenant(), request).await.map_err(told(tasks))?;
        let told = stream(events).map(move |item| {
            let _held = &permit;
            item
        });
        Ok(Response::new(Box::pin(told)))
    }

    async fn history(
        &self,
        request: Request<api::TaskHistoryRequest>,
    ) -> Result<Response<api::TaskHistoryResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ReadTasks).await?.into_parts();
        let tasks = self.0.tasks()?;
        tasks.history(principal.tenant(), request).await.map(Response::new).map_err(told(tasks))
    }

    async fn queues(
        &self,
        request: Request<api::QueuesRequest>,
    ) -> Result<Response<api::QueuesResponse>, Status> {
        let (principal, _) = self.admit(request, Action::ReadTasks).await?.into_parts();
        let tasks = self.0.tasks()?;
        tasks.queues(principal.tenant()).await.map(Response::new).map_err(told(tasks))
    }

    async fn checkpoint(
        &self,
        request: Request<api::GetCheckpointRequest>,
    ) -> Result<Response<Self::CheckpointStream>, Status> {
        let (principal, request) = self.admit(request, Action::ReadTasks).await?.into_parts();
        let tasks = self.0.tasks()?;
        let parts = tasks.checkpoint(principal.tenant(), &request.task).await.map_err(told(tasks))?;
        Ok(Response::new(stream(parts)))
    }

    async fn reload(
        &self,
        request: Request<api::ReloadRequest>,
    ) -> Result<Response<api::ReloadResponse>, Status> {
        self.admit(request, Action::ManageTasks).await?;
        let tasks = self.0.tasks()?;
        tasks.reload().await.map_err(told(tasks))?;
        Ok(Response::new(api::ReloadResponse { warnings: Vec::new() }))
    }

    async fn metrics(
        &self,
        request: Request<api::MetricsRequest>,
    ) -> Result<Response<api::MetricsResponse>, Status> {
        self.admit(request, Action::ReadHost).await?;
        let text = self.0.tasks()?.metrics().await
            + &self.0.detections.metrics()
            + &self.0.options.webhooks.metrics()
            + &self.0.figures_text().await;
        Ok(Response::new(api::MetricsResponse { text }))
    }
}

#[tonic::async_trait]
impl JournalService for Services {
    type ExportStream = Answers<api::JournalPart>;
    type ArchiveStream = Answers<api::JournalPart>;

    async fn check(
        &self,
        request: Request<api::JournalCheckRequest>,
    ) -> Result<Response<api::JournalReport>, Status> {
        self.admit(request, Action::ManageTasks).await?;
        let tasks = self.0.tasks()?;
        tasks.check_journal().await.map(Response::new).map_err(told(tasks))
    }

    async fn compact(
        &self,
        request: Request<api::JournalCompactRequest>,
    ) -> Result<Response<api::JournalReport>, Status> {
        self.admit(request, Action::ManageTasks).await?;
        let tasks = self.0.tasks()?;
        tasks.compact_journal().await.map(Response::new).map_err(told(tasks))
    }

    async fn export(
        &self,
        request: Request<api::JournalExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        self.admit(request, Action::ManageTasks).await?;
        Ok(Response::new(stream(self.0.tasks()?.export_journal())))
    }

    async fn archive(
        &self,
        request: Request<api::JournalArchiveRequest>,
    ) -> Result<Response<Self::ArchiveStream>, Status> {
        let (_, request) = self.admit(request, Action::ManageTasks).await?.into_parts();
        let tasks = self.0.tasks()?;
        tasks.archive_journal(&request).map(|parts| Response::new(stream(parts))).map_err(told(tasks))
    }

    async fn import(
        &self,
        request: Request<Streaming<api::JournalPart>>,
    ) -> Result<Response<api::JournalReport>, Status> {
        let (_, mut parts) = self.admit(request, Action::ManageTasks).await?.into_parts();
        let tasks = self.0.tasks()?.clone();
        let (send, receive) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(part)) = parts.message().await {
                if send.send(part.data).await.is_err() {
                    return;
                }
            }
        });
        tasks.import_journal(receive).await.map(Response::new).map_err(told(&tasks))
    }
}
