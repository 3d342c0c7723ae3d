//! Whether an agent may run: what it asks for, met with the operator's rules and its tenant's bounds. Looked at when it is registered, and
//! again before a launch when they may be others by then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aion_kernel::Kernel;
use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, CapabilityPolicy, Overrides};
use aion_store::AgentRecord;
use aion_tenants::Tenant;
use aion_types::{AgentId, ErrorCode, TenantId};

use crate::core::Core;
use crate::launch;
use crate::problem::{Outcome, Problem};

/// The tenant of local operators: it has no bounds of its own.
const LOCAL_TENANT: &str = "default";

/// What bounds an agent: the operator's rules, and its tenant's.
#[derive(Clone)]
pub(crate) struct Bounds {
    global: Option<Arc<CapabilityPolicy>>,
    tenant: Option<Arc<Tenant>>,
}

impl Bounds {
    pub(crate) fn same(&self, other: &Self) -> bool {
        fn one<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            }
        }
        one(self.global.as_ref(), other.global.as_ref()) && one(self.tenant.as_ref(), other.tenant.as_ref())
    }

    /// The same under other rules of the operator.
    pub(crate) fn under(self, global: Arc<CapabilityPolicy>) -> Self {
        Self { global: Some(global), ..self }
    }

    /// Gives a launch the limits of the network that its manifest does not name.
    pub(crate) fn limit_network(&self, plan: &mut launcher::Launch) {
        for policy in self.policies() {
            launch::limit_network(plan, policy.network().limit);
        }
    }

    /// All of them.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &CapabilityPolicy> {
        let tenant = self.tenant.as_ref().and_then(|tenant| tenant.policy.as_ref());
        self.global.as_deref().into_iter().chain(tenant)
    }
}

/// Under which bounds agents were permitted since this daemon started.
#[derive(Default)]
pub(crate) struct Permitted(Mutex<HashMap<AgentId, Bounds>>);

impl Permitted {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Bounds>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, id: &AgentId) {
        self.lock().remove(id);
    }
}

impl Core {
    /// Meets a manifest with what its agent may have; gives what it was judged by.
    ///
    /// # Errors
    /// Which rule denies what; the tenant is gone.
    pub(crate) fn permit(&self, tenant: &TenantId, spec: &AgentSpec) -> Outcome<Bounds> {
        let bounds = self.bounds(tenant)?;
        within(&bounds, spec)?;
        Ok(bounds)
    }

    /// The same, remembered for the launches of a registered agent.
    pub(crate) fn permit_as(&self, tenant: &TenantId, id: &AgentId, spec: &AgentSpec) -> Outcome<()> {
        let bounds = self.bounds(tenant)?;
        within(&bounds, spec)?;
        self.permitted.lock().insert(id.clone(), bounds);
        Ok(())
    }

    /// Looks again whether a registered agent may run, when it was not yet found so under what holds now.
    ///
    /// # Errors
    /// As [`Core::permit`].
    pub(crate) fn still_permitted(&self, record: &AgentRecord) -> Outcome<()> {
        let bounds = self.bounds(&record.tenant)?;
        let known = self.permitted.lock().get(&record.id).cloned();
        if known.is_some_and(|known| known.same(&bounds)) {
            return Ok(());
        }
        let yaml = self.store.manifest_of(&record.tenant, &record.id)?.unwrap_or_default();
        let spec =
            AgentSpec::parse(yaml.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests)?;
        self.permit_as(&record.tenant, &record.id, &spec)
    }

    /// # Errors
    /// The tenant is gone.
    pub(crate) fn bounds(&self, tenant: &TenantId) -> Outcome<Bounds> {
        let global = self.policy();
        if tenant.as_str() == LOCAL_TENANT {
            return Ok(Bounds { global, tenant: None });
        }
        let found = self.kernel()?.tenants().get(tenant);
        let tenant = found.map(Some).ok_or_else(|| {
            Problem::new(ErrorCode::TenantNotFound, format!("tenant {tenant} is not there any more"))
                .hint("`aionctl tenant ls` shows all of them")
        })?;
        Ok(Bounds { global, tenant })
    }

    /// The operator's rules; none: everything is allowed.
    pub(crate) fn policy(&self) -> Option<Arc<CapabilityPolicy>> {
        self.kernel.get().map_or_else(|| self.options.policy.clone(), Kernel::policy)
    }
}

fn within(bounds: &Bounds, spec: &AgentSpec) -> Outcome<()> {
    let denied = |rule| move |error| Problem::from(error).with("rule", rule);
    if let Some(policy) = &bounds.global {
        spec.restrict(policy).map_err(denied("policy:capabilities"))?;
    }
    if let Some(policy) = bounds.tenant.as_ref().and_then(|tenant| tenant.policy.as_ref()) {
        spec.restrict_sandbox(policy).map_err(denied("policy:tenant"))?;
    }
    Ok(())
}
