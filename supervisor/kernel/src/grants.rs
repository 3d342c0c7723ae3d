//! What an agent may do, as far as its manifest and the global rules say. Computed once for each registration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aion_manifest::{AgentSpec, CapabilityPolicy, Context, Effective, Overrides, effective};
use aion_syscall::{Reason, Refusal};
use aion_types::{AgentUri, ErrorCode};

use crate::host::{AgentInfo, Host};

/// Registrations that are remembered.
const MOST: usize = 16_384;

/// What a tenant itself may do: keep memories that are no agent's, within the global rules and its own.
const WHOLE_TENANT: &str = "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: tenant}\nspec: {entry: x, syscalls: [\"memory.*\"]}\n";

/// An agent, as the router sees it.
#[derive(Debug)]
pub(crate) struct Grants {
    pub(crate) id: String,
    pub(crate) uri: AgentUri,
    pub(crate) address: String,
    pub(crate) spec: AgentSpec,
    pub(crate) effective: Effective,
    /// The global rules that it was computed under.
    pub(crate) policy: Option<Arc<CapabilityPolicy>>,
}

/// The grants that were looked at.
pub(crate) struct GrantsOf {
    context: Context,
    policy: RwLock<Option<Arc<CapabilityPolicy>>>,
    known: Mutex<HashMap<String, Arc<Grants>>>,
}

impl GrantsOf {
    pub(crate) fn new(context: Context, policy: Option<Arc<CapabilityPolicy>>) -> Self {
        Self { context, policy: RwLock::new(policy), known: Mutex::default() }
    }

    pub(crate) fn policy(&self) -> Option<Arc<CapabilityPolicy>> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls that are decided from now on are decided by other rules.
    pub(crate) fn set_policy(&self, policy: Arc<CapabilityPolicy>) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Some(policy);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn of(&self, host: &dyn Host, uri: &AgentUri) -> Result<Arc<Grants>, Refusal> {
        if uri.name.is_whole_tenant() {
            return self.of_whole_tenant(uri);
        }
        if let Some(id) = host.agent_id(&uri.tenant, &uri.name)?
            && let Some(grants) = self.known(&id)
        {
            return Ok(grants);
        }
        let found = host.agent(&uri.tenant, &uri.name)?.ok_or_else(|| {
            Refusal::new(Reason::NotFound, ErrorCode::AgentNotFound, format!("there is no agent {uri}"))
                .at("agent_id")
                .hint("provision it with `aionctl apply -f agent.yml --tenant T --as NAME`, or POST /v1/agent/register")
        })?;
        self.read(found, uri)
    }

    /// No registration changes it: one for each tenant.
    fn of_whole_tenant(&self, uri: &AgentUri) -> Result<Arc<Grants>, Refusal> {
        let id = uri.to_string();
        let read = || self.read(AgentInfo { id: id.clone(), manifest: WHOLE_TENANT.to_owned() }, uri);
        self.known(&id).map_or_else(read, Ok)
    }

    fn known(&self, id: &str) -> Option<Arc<Grants>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()?;
        // One that was computed while the rules were changed is of the old ones.
        let same = match (&known.policy, &self.policy()) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        };
        same.then_some(known)
    }

    fn read(&self, found: AgentInfo, uri: &AgentUri) -> Result<Arc<Grants>, Refusal> {
        let spec =
            AgentSpec::parse(found.manifest.as_bytes(), "agent.yml", Overrides::default(), &self.context)
                .map_err(|error| {
                    let message = format!("the manifest of {uri} is not valid any more: {error}");
                    Refusal::new(Reason::Conflict, ErrorCode::ManifestInvalid, message)
                        .hint("register it again")
                })?;
        let policy = self.policy();
        let effective = match &policy {
            Some(policy) => effective(policy, &spec.allow, &spec.deny),
            None => {
                // What cannot be read is not given; it is a constant, and a test reads it.
                let open = CapabilityPolicy::everything_but(&[], "no global rules");
                effective(&open.unwrap_or_else(|_| CapabilityPolicy::nothing()), &spec.allow, &spec.deny)
            }
        };
        let (id, address) = (found.id, uri.to_string());
        let grants = Arc::new(Grants { id, uri: uri.clone(), address, spec, effective, policy });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(grants.id.clone(), Arc::clone(&grants));
        Ok(grants)
    }
}
