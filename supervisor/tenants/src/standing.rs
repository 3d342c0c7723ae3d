//! What somebody was let in by, for what goes on after that: a stream of events ends when the right to it does.

use aion_types::TenantId;

use super::{OpenSecret, Tenant, Tenants};
use crate::signature::{Signed, decode, fits};

/// A right that was there once. It is of one tenant and, where something was signed, of one secret: neither another tenant of the
/// same name nor another secret brings it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    tenant: TenantId,
    created_ns: u64,
    secret: Option<(String, u64)>,
}

fn is_good(secret: &OpenSecret, now_ns: u64) -> bool {
    secret.until_ns.is_none_or(|until| until > now_ns)
}

impl Tenants {
    /// By what a signature, which [`Tenants::verify`] has taken, was good; none: it is not any more.
    #[must_use]
    pub fn standing(&self, tenant: &Tenant, signed: &Signed<'_>, now_ns: u64) -> Option<Standing> {
        let given = signed.signature.and_then(decode)?;
        let now = self.get(&tenant.name).filter(|now| now.created_ns == tenant.created_ns)?;
        let fitting = now.secrets.iter().filter(|secret| is_good(secret, now_ns));
        let secret = fitting
            .filter(|secret| fits(&secret.value, signed, &given))
            // Of two that are the same, the one that stays longer.
            .max_by_key(|secret| secret.until_ns.unwrap_or(u64::MAX))?;
        let secret = Some((secret.id.clone(), secret.created_ns));
        Some(Standing { tenant: now.name.clone(), created_ns: now.created_ns, secret })
    }

    /// That of somebody who needs no signature, and is of a tenant; none: there is no such tenant.
    #[must_use]
    pub fn standing_of(&self, tenant: &TenantId) -> Option<Standing> {
        let now = self.get(tenant)?;
        Some(Standing { tenant: now.name.clone(), created_ns: now.created_ns, secret: None })
    }

    /// Whether it still is one.
    #[must_use]
    pub fn holds(&self, standing: &Standing, now_ns: u64) -> bool {
        let now = self.get(&standing.tenant).filter(|now| now.created_ns == standing.created_ns);
        match (now, &standing.secret) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(now), Some((id, created_ns))) => now.secrets.iter().any(|secret| {
                secret.id == *id && secret.created_ns == *created_ns && is_good(secret, now_ns)
            }),
        }
    }
}
