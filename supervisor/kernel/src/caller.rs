//! Who calls, as the door found out.

use std::sync::Arc;

use aion_syscall::{Reason, Refusal, Request};
use aion_tenants::Tenant;
use aion_types::{AgentName, AgentUri, ErrorCode, TenantId};

/// A caller. Only doors make one, after they have checked who it is.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An agent on its own socket: the kernel of the host says who it is.
    Agent {
        /// Whose.
        tenant: TenantId,
        /// Its name.
        name: AgentName,
        /// The task that the process at the other end was started for, when it was started for one.
        task: Option<String>,
    },
    /// Somebody who signs with a tenant's secret, and speaks for that tenant's agents.
    Tenant(Arc<Tenant>),
    /// Somebody with a certificate of a tenant, who speaks for its agents.
    Certificate(Arc<Tenant>),
    /// An operator of the host.
    Operator {
        /// In which tenant.
        tenant: TenantId,
        /// Who, as `unix:0`.
        subject: String,
    },
}

impl Caller {
    /// Whose objects it sees.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        match self {
            Self::Agent { tenant, .. } | Self::Operator { tenant, .. } => tenant,
            Self::Tenant(tenant) | Self::Certificate(tenant) => &tenant.name,
        }
    }

    /// For the audit log.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Agent { tenant, name, .. } => format!("agent://{tenant}/{name}"),
            Self::Tenant(tenant) => format!("hmac:{}", tenant.name),
            Self::Certificate(tenant) => format!("mtls:{}", tenant.name),
            Self::Operator { subject, .. } => subject.clone(),
        }
    }

    /// The agent that a request is made for; none: an operator's own call.
    ///
    /// # Errors
    /// Another tenant's or another agent's name, or none where there must be one.
    pub(crate) fn agent_of(&self, request: &Request) -> Result<Option<AgentUri>, Refusal> {
        match (self, &request.agent) {
            (Self::Agent { tenant, name, .. }, given) => {
                let own = AgentUri { tenant: tenant.clone(), name: name.clone() };
                match given {
                    Some(given) if *given != own => Err(foreign(given, &own.to_string())),
                    _ => Ok(Some(own)),
                }
            }
            (_, Some(given)) if given.tenant != *self.tenant() => {
                Err(foreign(given, &format!("tenant {}", self.tenant())))
            }
            (_, Some(given)) => Ok(Some(given.clone())),
            // The contract's memories name no agent: then they are the tenant's own.
            (Self::Tenant(tenant) | Self::Certificate(tenant), None)
                if request.syscall.as_str().starts_with("memory.") =>
            {
                Ok(Some(AgentUri { tenant: tenant.name.clone(), name: AgentName::whole_tenant() }))
            }
            (Self::Tenant(_) | Self::Certificate(_), None) => {
                Err(Refusal::field("agent_id", "it is missing: for which agent is this call?")
                    .hint("write agent://TENANT/NAME"))
            }
            (Self::Operator { .. }, None) => Ok(None),
        }
    }
}

fn foreign(given: &AgentUri, own: &str) -> Refusal {
    Refusal::new(Reason::Denied, ErrorCode::PermissionDenied, format!("{own} does not speak for {given}"))
        .by("door: agent_id")
        .at("agent_id")
}
