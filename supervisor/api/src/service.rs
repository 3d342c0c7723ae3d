//! The gRPC traits: each method lets a request through its stages and hands it to the core. Nothing is decided here.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::agent_service_server::AgentService;
use aion_api_proto::v1::audit_service_server::AuditService;
use aion_api_proto::v1::event_service_server::EventService;
use aion_api_proto::v1::host_service_server::HostService;
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;
use crate::logs::Answers;
use crate::stage::{Action, Authenticated, Authorized};

/// In which tenant an operator works; `default` when it is not there.
const TENANT: &str = "aion-tenant";

/// All services; cheap to clone.
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Arc<Core>);

impl Services {
    /// Door and policy; a request that is turned away is recorded.
    pub(crate) async fn admit<R>(
        &self,
        request: Request<R>,
        action: Action,
    ) -> Result<Authorized<R>, Status> {
        let tenant = request.metadata().get(TENANT).map(|value| value.to_str().map(str::to_owned));
        let admitted = Authenticated::from_request(request).and_then(|request| request.authorize(action));
        match (admitted, tenant) {
            (Ok(authorized), None) => Ok(authorized),
            (Ok(authorized), Some(name)) => {
                let tenant = self.0.tenant_named(&name.unwrap_or_default())?;
                Ok(authorized.in_tenant(tenant))
            }
            (Err(denied), _) => {
                tracing::warn!(
                    uid = denied.stranger.uid,
                    pid = denied.stranger.pid,
                    action = action.kind(),
                    "denied"
                );
                self.0.trail.denied(&denied.stranger, action.kind()).await;
                Err(denied.problem.into())
            }
        }
    }
}

/// A mutation: once for its request id, in a task of its own.
macro_rules! mutation {
    ($self:ident, $request:ident, $action:ident, $method:ident) => {{
        let authorized = $self.admit($request, Action::$action).await?;
        let (tenant, id) = (authorized.principal().tenant().clone(), authorized.request().request_id.clone());
        let message = authorized.request().clone();
        let kind = authorized.action().kind();
        let core = Arc::clone(&$self.0);
        let work = move |claim| {
            let (principal, request) = authorized.into_parts();
            core.$method(principal, request, claim)
        };
        $self.0.requests.once(&tenant, kind, &id, &message, work).await.map(Response::new)
    }};
}

#[tonic::async_trait]
impl AgentService for Services {
    type LogsStream = Answers<api::LogChunk>;
    type ExecStream = Answers<api::ExecOutput>;
    type AttachStream = Answers<api::AttachOutput>;
    type StatsStream = Answers<api::StatsSample>;

    async fn register(&self, request: Request<api::RegisterRequest>) -> Result<Response<api::Agent>, Status> {
        mutation!(self, request, Register, register)
    }

    async fn start(&self, request: Request<api::StartRequest>) -> Result<Response<api::Agent>, Status> {
        mutation!(self, request, Start, start)
    }

    async fn stop(&self, request: Request<api::StopRequest>) -> Result<Response<api::Agent>, Status> {
        mutation!(self, request, Stop, stop)
    }

    async fn kill(&self, request: Request<api::KillRequest>) -> Result<Response<api::Agent>, Status> {
        mutation!(self, request, Kill, kill)
    }

    async fn pause(&self, request: Request<api::PauseRequest>) -> Result<Response<api::Agent>, Status> {
        mutation!(self, request, Pause, pause)
    }

    async fn resume(&self, request: Request<api::ResumeRequest>) -> Result<Response<api::Agent>, Status> {
        mutation!(self, request, Resume, resume)
    }

    async fn remove(
        &self,
        request: Request<api::RemoveRequest>,
    ) -> Result<Response<api::RemoveResponse>, Status> {
        mutation!(self, request, Remove, remove)
    }

    async fn heartbeat(
        &self,
        request: Request<api::HeartbeatRequest>,
    ) -> Result<Response<api::HeartbeatResponse>, Status> {
        let (principal, request) = self.admit(request, Action::Heartbeat).await?.into_parts();
        Ok(Response::new(self.0.heartbeat(&principal, request)?))
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Result<Response<api::Agent>, Status> {
        let (principal, request) = self.admit(request, Action::ReadAgents).await?.into_parts();
        Ok(Response::new(self.0.get(&principal, &request)?))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<api::ListResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ReadAgents).await?.into_parts();
        Ok(Response::new(self.0.list(&principal, request)?))
    }

    async fn wait(&self, request: Request<api::WaitRequest>) -> Result<Response<api::Agent>, Status> {
        let (principal, request) = self.admit(request, Action::ReadAgents).await?.into_parts();
        Arc::clone(&self.0).wait(principal, request).await.map(Response::new)
    }

    async fn validate(
        &self,
        request: Request<api::ValidateRequest>,
    ) -> Result<Response<api::ValidateResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ReadHost).await?.into_parts();
        Ok(Response::new(self.0.validate(&principal, request).await?))
    }

    async fn logs(&self, request: Request<api::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let (principal, request) = self.admit(request, Action::ReadOutput).await?.into_parts();
        Ok(Response::new(Arc::clone(&self.0).logs(&principal, &request)?))
    }

    async fn exec(
        &self,
        request: Request<Streaming<api::ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let (principal, input) = self.admit(request, Action::Exec).await?.into_parts();
        Arc::clone(&self.0).exec(principal, input).await.map(Response::new)
    }

    async fn attach(
        &self,
        request: Request<Streaming<api::AttachInput>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (principal, input) = self.admit(request, Action::Attach).await?.into_parts();
        Arc::clone(&self.0).attach(principal, input).await.map(Response::new)
    }

    async fn stats(
        &self,
        request: Request<api::StatsRequest>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        let (principal, request) = self.admit(request, Action::ReadAgents).await?.into_parts();
        Ok(Response::new(Arc::clone(&self.0).stats(principal, &request)?))
    }
}

#[tonic::async_trait]
impl HostService for Services {
    async fn doctor(
        &self,
        request: Request<api::DoctorRequest>,
    ) -> Result<Response<api::DoctorResponse>, Status> {
        self.admit(request, Action::ReadHost).await?;
        Ok(Response::new(self.0.doctor().await?))
    }

    async fn version(
        &self,
        request: Request<api::VersionRequest>,
    ) -> Result<Response<api::VersionResponse>, Status> {
        self.admit(request, Action::ReadHost).await?;
        Ok(Response::new(self.0.version().await))
    }
}

#[tonic::async_trait]
impl EventService for Services {
    type SubscribeStream = Answers<api::Record>;

    async fn subscribe(
        &self,
        request: Request<api::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (principal, request) = self.admit(request, Action::ReadEvents).await?.into_parts();
        Ok(Response::new(Arc::clone(&self.0).subscribe(&principal, request)?))
    }
}

#[tonic::async_trait]
impl AuditService for Services {
    async fn query(
        &self,
        request: Request<api::QueryRequest>,
    ) -> Result<Response<api::QueryResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ReadEvents).await?.into_parts();
        Ok(Response::new(self.0.query_events(&principal, request).await?))
    }

    async fn verify(
        &self,
        request: Request<api::VerifyRequest>,
    ) -> Result<Response<api::VerifyResponse>, Status> {
        let (_, request) = self.admit(request, Action::VerifyAudit).await?.into_parts();
        Ok(Response::new(self.0.verify_audit(&request).await?))
    }
}
