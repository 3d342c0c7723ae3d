//! The component as a whole: services on a listener, the daemon's own work beside them, and an orderly end.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1::agent_service_server::AgentServiceServer;
use aion_api_proto::v1::audit_service_server::AuditServiceServer;
use aion_api_proto::v1::backup_service_server::BackupServiceServer;
use aion_api_proto::v1::detection_service_server::DetectionServiceServer;
use aion_api_proto::v1::event_service_server::EventServiceServer;
use aion_api_proto::v1::host_service_server::HostServiceServer;
use aion_api_proto::v1::journal_service_server::JournalServiceServer;
use aion_api_proto::v1::kernel_service_server::KernelServiceServer;
use aion_api_proto::v1::policy_service_server::PolicyServiceServer;
use aion_api_proto::v1::syscall_service_server::SyscallServiceServer;
use aion_api_proto::v1::task_service_server::TaskServiceServer;
use aion_launcher_client::Client;
use aion_manifest::{CapabilityPolicy, SchedulerFile};
use aion_store::Store;
use aion_tasks::Connection;
use futures::future::BoxFuture;
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::core::{Core, Options};
use crate::principal::Door;
use crate::service::Services;

/// The largest request.
const MAX_REQUEST: usize = 1 << 20;
/// The largest request about tasks: a task with the largest params, or a batch.
/// A system call: its parameters, with room to spare.
const MAX_SYSCALL: usize = 5 << 20;
/// A tool with its files.
const MAX_TOOL: usize = 72 << 20;
const MAX_TASKS: usize = 8 << 20;
/// The largest answer: a page of a thousand agents or records.
const MAX_ANSWER: usize = 16 << 20;
/// Requests at once on one connection.
const MAX_STREAMS: u32 = 256;
/// How long requests under way may take once the end has come.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// Why the services cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed at the start.
    #[error("cannot begin: {reason}")]
    Begin {
        /// What went wrong.
        reason: String,
    },
    /// The server failed.
    #[error("the server failed")]
    Server(#[source] tonic::transport::Error),
}

/// The services.
pub struct Api {
    core: Arc<Core>,
}

impl Api {
    /// Makes the services. Must be called on the runtime that will serve.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(options: Options, store: Arc<Store>, launcher: Client) -> Result<Self, Error> {
        crate::backup::clear(&options.state);
        let core = Core::new(options, store, launcher)
            .map_err(|problem| Error::Begin { reason: problem.to_string() })?;
        Ok(Self { core })
    }

    /// Starts the engine of tasks: opens their journal and restores what was. Blocks; must be called on the runtime that will
    /// serve, before it serves. `reload` reads `scheduler.yaml`, now and whenever it is asked for.
    ///
    /// # Errors
    /// When the journal cannot be opened, or the settings are not valid.
    pub fn start_tasks(
        &self,
        options: aion_tasks::Options,
        reload: impl Fn() -> Result<SchedulerFile, aion_tasks::Error> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.core.start_tasks(options, reload).map_err(|reason| Error::Begin { reason })
    }

    /// Reads the operator's rules anew whenever it is asked for.
    pub fn read_policy_with(
        &self,
        read: impl Fn() -> Result<CapabilityPolicy, aion_manifest::Error> + Send + Sync + 'static,
    ) {
        // The first one counts.
        let _ = self.core.read_policy.set(Arc::new(read));
    }

    /// There is no file with the operator's rules, so that what AION ships counts. Agents may have more by it than before, and the audit log
    /// says so.
    pub fn rules_are_built_in(&self, file: &Path) {
        let core = Arc::clone(&self.core);
        let detail = serde_json::json!({"file": file.display().to_string()});
        // The launcher may be away; nobody waits for it.
        tokio::spawn(async move {
            core.trail.own("default", "", "api.policy.built_in", "", detail).await;
        });
    }

    /// What takes the operator's rules as they are in the file, and holds running agents to them. Where the file cannot be used, the
    /// rules before hold on.
    pub fn policy_reloader(&self) -> impl Fn() -> BoxFuture<'static, Result<(), Error>> + Send + use<> {
        let core = Arc::clone(&self.core);
        move || {
            let core = Arc::clone(&core);
            Box::pin(async move {
                let held = core.reload_policy(false).await;
                let agents = held.as_ref().map_or(0, Vec::len);
                let detail = serde_json::json!({"agents": agents, "by": "SIGHUP", "taken": held.is_ok()});
                core.trail.own("default", "", "api.policy.reload", "", detail).await;
                held.map(drop).map_err(|problem| Error::Begin { reason: problem.to_string() })
            })
        }
    }

    /// Has the detections look at agents' events. `reload` reads their rules, now and whenever it is asked for.
    ///
    /// # Errors
    /// When the rules are not valid, or the database cannot be used.
    pub fn start_detections(&self, reload: crate::ReloadRules) -> Result<(), Error> {
        let begun = self.core.detections.start(reload).and_then(|_| self.core.begin_to_detect());
        begun.map_err(|reason| Error::Begin { reason })
    }

    /// Reads the detections' rules again; bad ones change nothing.
    pub fn reload_detections(&self) -> impl Fn() -> crate::ReloadedRules + Send + Sync + use<> {
        let core = Arc::clone(&self.core);
        move || core.detections.reload()
    }

    /// Opens the kernel API. Blocks; on the runtime that serves.
    ///
    /// # Errors
    /// When its keys or rows cannot be read.
    pub fn start_kernel(&self, offline: bool) -> Result<aion_kernel::Kernel, Error> {
        self.core.start_kernel(offline).map_err(|refusal| Error::Begin { reason: refusal.to_string() })
    }

    /// What the door for HTTP needs besides the kernel.
    #[must_use]
    pub fn http_backend(&self) -> Arc<dyn aion_http::Backend> {
        Arc::new(crate::http_backend::ForHttp::new(Arc::clone(&self.core)))
    }

    /// The door for gRPC over TCP.
    #[must_use]
    pub fn grpc_door(
        &self,
        kernel: aion_kernel::Kernel,
        tls: Option<aion_http::Tls>,
        options: aion_http::GrpcOptions,
    ) -> aion_http::Grpc {
        let inner = self.core.tcp_routes().prepare().into_axum_router();
        aion_http::Grpc::new(kernel, inner, crate::syscall_service::refuse, tls, options)
    }

    /// Ends when the daemon begins to shut down.
    pub fn shutting_down(&self) -> impl Future<Output = ()> + Send + use<> {
        self.core.shutdown.clone().cancelled_owned()
    }

    /// The tasks, once they are served.
    #[must_use]
    pub fn tasks(&self) -> Option<aion_tasks::Tasks> {
        self.core.serving.get().map(|serving| serving.tasks.clone())
    }

    /// Serves on a listener until `stop` ends, then lets requests under way finish. Streams and waits are ended with
    /// UNAVAILABLE, so that their clients come back. `more` are services that know nothing of agents: health, reflection.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn serve(
        self,
        listener: UnixListener,
        door: Door,
        more: Routes,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        let supervisor = tokio::spawn(Arc::clone(&self.core).supervise());
        let services = Services(Arc::clone(&self.core));
        macro_rules! limited {
            ($server:ident) => {
                $server::new(services.clone())
                    .max_decoding_message_size(MAX_REQUEST)
                    .max_encoding_message_size(MAX_ANSWER)
            };
        }
        let routes = more
            .add_service(limited!(AgentServiceServer))
            .add_service(limited!(HostServiceServer))
            .add_service(limited!(EventServiceServer))
            .add_service(limited!(AuditServiceServer))
            .add_service(limited!(BackupServiceServer))
            .add_service(limited!(DetectionServiceServer))
            .add_service(limited!(JournalServiceServer))
            .add_service(limited!(PolicyServiceServer))
            .add_service(limited!(SyscallServiceServer).max_decoding_message_size(MAX_SYSCALL))
            .add_service(limited!(KernelServiceServer).max_decoding_message_size(MAX_TOOL))
            .add_service(limited!(TaskServiceServer).max_decoding_message_size(MAX_TASKS));
        let incoming = UnixListenerStream::new(listener)
            // A failed accept (too many open files) is that peer's problem; the listener goes on.
            .filter_map(|accepted| accepted.inspect_err(|error| tracing::warn!(%error, "accept failed")).ok())
            .map(move |stream| {
                let admission = door.admit(&stream);
                Ok::<_, io::Error>(Connection::new(stream, admission))
            });
        let shutdown = self.core.shutdown.clone();
        let ending = shutdown.clone();
        let kernel = self.core.kernel.get().cloned();
        let server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async move {
                stop.await;
                tracing::info!("shutting down; agents go on running");
                ending.cancel();
                // Calls that wait for a person or a message would hold up the end for as long as they may.
                if let Some(kernel) = kernel {
                    kernel.stop_waiting();
                }
            });
        let served = tokio::select! {
            served = server => served.map_err(Error::Server),
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(LAST_REQUESTS).await;
            } => {
                tracing::warn!("some requests were cut off");
                Ok(())
            }
        };
        shutdown.cancel();
        if let Some(serving) = self.core.serving.get() {
            serving.tasks.shut_down().await;
        }
        // Its tasks hold nothing that must be written down.
        let _ = supervisor.await;
        served
    }
}
