//! Whether an agent may run: what it asks for, met with the operator's rules and its tenant's bounds. Looked at when it is registered, and
//! again before a launch when they may be others by then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aion_manifest::{AgentSpec, Overrides};
use aion_store::AgentRecord;
use aion_tenants::Tenant;
use aion_types::{AgentId, ErrorCode, TenantId};

use crate::core::Core;
use crate::problem::{Outcome, Problem};

/// The tenant of local operators: it has no bounds of its own.
const LOCAL_TENANT: &str = "default";

/// Under which bounds agents were permitted since this daemon started; the operator's rules stay the same as long.
#[derive(Default)]
pub(crate) struct Permitted(Mutex<HashMap<AgentId, Option<Arc<Tenant>>>>);

impl Permitted {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Option<Arc<Tenant>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget(&self, id: &AgentId) {
        self.lock().remove(id);
    }
}

impl Core {
    /// Meets a manifest with what its agent may have.
    ///
    /// # Errors
    /// Which rule denies what; the tenant is gone.
    pub(crate) fn permit(&self, tenant: &TenantId, spec: &AgentSpec) -> Outcome<()> {
        let bounds = self.bounds(tenant)?;
        self.within(bounds.as_deref(), spec)
    }

    /// The same, remembered for the launches of a registered agent.
    pub(crate) fn permit_as(&self, tenant: &TenantId, id: &AgentId, spec: &AgentSpec) -> Outcome<()> {
        let bounds = self.bounds(tenant)?;
        self.within(bounds.as_deref(), spec)?;
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
        let same = match (&known, &bounds) {
            (Some(None), None) => true,
            (Some(Some(before)), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        if same {
            return Ok(());
        }
        let yaml = self.store.manifest_of(&record.tenant, &record.id)?.unwrap_or_default();
        let spec =
            AgentSpec::parse(yaml.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests)?;
        self.permit_as(&record.tenant, &record.id, &spec)
    }

    fn bounds(&self, tenant: &TenantId) -> Outcome<Option<Arc<Tenant>>> {
        if tenant.as_str() == LOCAL_TENANT {
            return Ok(None);
        }
        self.kernel()?.tenants().get(tenant).map(Some).ok_or_else(|| {
            Problem::new(ErrorCode::TenantNotFound, format!("tenant {tenant} is not there any more"))
                .hint("`aionctl tenant ls` shows all of them")
        })
    }

    fn within(&self, tenant: Option<&Tenant>, spec: &AgentSpec) -> Outcome<()> {
        let denied = |rule| move |error| Problem::from(error).with("rule", rule);
        if let Some(policy) = &self.options.policy {
            spec.restrict(policy).map_err(denied("policy:capabilities"))?;
        }
        if let Some(policy) = tenant.and_then(|tenant| tenant.policy.as_ref()) {
            spec.restrict_sandbox(policy).map_err(denied("policy:tenant"))?;
        }
        Ok(())
    }
}
