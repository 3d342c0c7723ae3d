//! The stages of a request: admitted at the door, then authorised. A handler takes the last stage only, so that
//! leaving a check out does not compile.

use aion_types::{ErrorCode, TenantId};
use tonic::Request;

use crate::principal::{Admission, Principal, Role, Stranger};
use crate::problem::Problem;

/// What a request wants to do. The names are those of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Register,
    Start,
    Stop,
    Kill,
    Pause,
    Resume,
    Remove,
    Heartbeat,
    Exec,
    Attach,
    ReadAgents,
    ReadOutput,
    ReadEvents,
    VerifyAudit,
    ReadHost,
    SubmitTask,
    CancelTask,
    ReadTasks,
    ManageTasks,
    InvokeSyscall,
    ManagePolicy,
    ManageTenants,
    ManageTools,
    ManageModels,
    ManageSecrets,
    AnswerApprovals,
    ReadKernel,
    ReadDetections,
    ManageDetections,
    ClearRestraints,
    CreateBackup,
}

impl Action {
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Register => "api.agent.register",
            Self::Start => "api.agent.start",
            Self::Stop => "api.agent.stop",
            Self::Kill => "api.agent.kill",
            Self::Pause => "api.agent.pause",
            Self::Resume => "api.agent.resume",
            Self::Remove => "api.agent.remove",
            Self::Heartbeat => "api.agent.heartbeat",
            Self::Exec => "api.agent.exec",
            Self::Attach => "api.agent.attach",
            Self::ReadAgents => "api.agent.read",
            Self::ReadOutput => "api.agent.logs",
            Self::ReadEvents => "api.events.read",
            Self::VerifyAudit => "api.audit.verify",
            Self::ReadHost => "api.host.read",
            Self::SubmitTask => "api.task.submit",
            Self::CancelTask => "api.task.cancel",
            Self::ReadTasks => "api.task.read",
            Self::ManageTasks => "api.task.manage",
            Self::InvokeSyscall => "api.syscall",
            Self::ManagePolicy => "api.policy.manage",
            Self::ManageTenants => "api.tenant.manage",
            Self::ManageTools => "api.tool.manage",
            Self::ManageModels => "api.model.manage",
            Self::ManageSecrets => "api.secret.manage",
            Self::AnswerApprovals => "api.approval.answer",
            Self::ReadKernel => "api.kernel.read",
            Self::ReadDetections => "api.detection.read",
            Self::ManageDetections => "api.detection.reload",
            Self::ClearRestraints => "api.agent.clear",
            Self::CreateBackup => "api.backup.create",
        }
    }
}

/// A request whose sender is known.
pub(crate) struct Authenticated<R> {
    principal: Principal,
    request: R,
}

/// A request whose sender may do what it asks for.
pub(crate) struct Authorized<R> {
    principal: Principal,
    action: Action,
    request: R,
}

/// A request that is turned away.
pub(crate) struct Denied {
    pub(crate) problem: Problem,
    pub(crate) stranger: Stranger,
}

impl<R> Authenticated<R> {
    /// Takes the sender from the connection that the request came on.
    pub(crate) fn from_request(request: Request<R>) -> Result<Self, Denied> {
        let unknown = Stranger { uid: None, pid: None };
        let Some(admission) = request.extensions().get::<Admission>().cloned() else {
            return Err(denied(unknown));
        };
        match admission.0.as_ref() {
            Ok(principal) => Ok(Self { principal: principal.clone(), request: request.into_inner() }),
            Err(stranger) => Err(denied(stranger.clone())),
        }
    }

    /// Decides whether the sender may do it. Operators may do everything; other roles come with policy.
    pub(crate) fn authorize(self, action: Action) -> Result<Authorized<R>, Denied> {
        if self.principal.has(Role::Operator) {
            return Ok(Authorized { principal: self.principal, action, request: self.request });
        }
        Err(denied(Stranger { uid: Some(self.principal.uid()), pid: Some(self.principal.pid()) }))
    }
}

impl<R> Authorized<R> {
    /// The same in another tenant.
    pub(crate) fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.principal = self.principal.in_tenant(tenant);
        self
    }

    pub(crate) const fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(crate) const fn action(&self) -> Action {
        self.action
    }

    pub(crate) const fn request(&self) -> &R {
        &self.request
    }

    pub(crate) fn into_parts(self) -> (Principal, R) {
        (self.principal, self.request)
    }
}

fn denied(stranger: Stranger) -> Denied {
    let who = stranger.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
    let problem = Problem::new(ErrorCode::PermissionDenied, format!("{who} may not use this socket"))
        .with("rule", "door:operators")
        .hint("be root or a member of the group aion");
    Denied { problem, stranger }
}
