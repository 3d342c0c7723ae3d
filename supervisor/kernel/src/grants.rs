//! What an agent may do, as far as its manifest and the global rules say. Computed once for each registration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aion_manifest::{AgentSpec, CapabilityPolicy, Context, Effective, Overrides, effective};
use aion_syscall::{Reason, Refusal};
use aion_types::{AgentUri, ErrorCode};

use crate::host::Host;

/// Registrations that are remembered.
const MOST: usize = 16_384;

/// An agent, as the router sees it.
#[derive(Debug)]
pub(crate) struct Grants {
    pub(crate) id: String,
    pub(crate) uri: AgentUri,
    pub(crate) address: String,
    pub(crate) spec: AgentSpec,
    pub(crate) effective: Effective,
}

/// The grants that were looked at.
pub(crate) struct GrantsOf {
    context: Context,
    policy: Option<Arc<CapabilityPolicy>>,
    known: Mutex<HashMap<String, Arc<Grants>>>,
}

impl GrantsOf {
    pub(crate) fn new(context: Context, policy: Option<Arc<CapabilityPolicy>>) -> Self {
        Self { context, policy, known: Mutex::default() }
    }

    pub(crate) fn policy(&self) -> Option<&CapabilityPolicy> {
        self.policy.as_deref()
    }

    pub(crate) fn of(&self, host: &dyn Host, uri: &AgentUri) -> Result<Arc<Grants>, Refusal> {
        if let Some(id) = host.agent_id(&uri.tenant, &uri.name)? {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(grants) = known.get(&id) {
                return Ok(Arc::clone(grants));
            }
        }
        let found = host.agent(&uri.tenant, &uri.name)?.ok_or_else(|| {
            Refusal::new(Reason::NotFound, ErrorCode::AgentNotFound, format!("there is no agent {uri}"))
                .at("agent_id")
                .hint("provision it with `aionctl apply -f agent.yml --tenant T --as NAME`, or POST /v1/agent/register")
        })?;
        let spec =
            AgentSpec::parse(found.manifest.as_bytes(), "agent.yml", Overrides::default(), &self.context)
                .map_err(|error| {
                    let message = format!("the manifest of {uri} is not valid any more: {error}");
                    Refusal::new(Reason::Conflict, ErrorCode::ManifestInvalid, message)
                        .hint("register it again")
                })?;
        let effective = match &self.policy {
            Some(policy) => effective(policy, &spec.allow, &spec.deny),
            None => {
                // What cannot be read is not given; it is a constant, and a test reads it.
                let open = CapabilityPolicy::everything_but(&[], "no global rules");
                effective(&open.unwrap_or_else(|_| CapabilityPolicy::nothing()), &spec.allow, &spec.deny)
            }
        };
        let grants =
            Arc::new(Grants { id: found.id, uri: uri.clone(), address: uri.to_string(), spec, effective });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(grants.id.clone(), Arc::clone(&grants));
        Ok(grants)
    }
}
