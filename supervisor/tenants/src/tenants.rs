//! The register of tenants: rows in the store, open in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aion_manifest::CapabilityPolicy;
use aion_store::{Batch, Durability, Store, Table};
use aion_types::{AgentName, AgentUri, Bucket, TenantId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::error::{AuthError, Error};
use crate::nonces::{Nonces, Taken};
use crate::seal::{Sealer, Secret};
use crate::signature::{MAX_SKEW_MS, SOON_MS, Signed, bearer, bearer_mac, bearer_parts, decode, fits};

const MIN_SECRET: usize = 16;
const MAX_SECRET: usize = 4096;
/// Secrets of one tenant that are valid at once.
const MAX_SECRETS: usize = 4;
/// Wrong signatures in a second, for each tenant's name, before the rest is turned away unread.
const FAILURES_PER_SECOND: u32 = 20;
/// Names that wrong signatures are counted for; more share one count.
const MAX_FAILING: usize = 4096;

/// What an operator sets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Requests must carry a time and a nonce.
    #[serde(default)]
    pub require_timestamp: bool,
    /// Capabilities that its agents may have at most; empty: no bound of its own.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Capabilities that its agents never have.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Requests in a second; none: no bound.
    #[serde(default)]
    pub rate_per_second: Option<u32>,
    /// Millionths of a US dollar that all its agents may spend in an hour; none: no bound.
    #[serde(default)]
    pub usd_micros_per_hour: Option<u64>,
    /// Tokens that all its agents may use in an hour; none: no bound.
    #[serde(default)]
    pub tokens_per_hour: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct SecretRow {
    id: String,
    sealed: String,
    created_ns: u64,
    #[serde(default)]
    until_ns: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct TenantRow {
    settings: Settings,
    created_ns: u64,
    secrets: Vec<SecretRow>,
}

struct OpenSecret {
    id: String,
    value: Secret,
    sealed: String,
    created_ns: u64,
    until_ns: Option<u64>,
}

/// A tenant.
pub struct Tenant {
    /// Its name.
    pub name: TenantId,
    /// What an operator has set.
    pub settings: Settings,
    /// The rules in `settings`; none: no bound.
    pub policy: Option<CapabilityPolicy>,
    created_ns: u64,
    secrets: Vec<OpenSecret>,
    rate: Option<Mutex<Bucket>>,
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What is shown of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Its name.
    pub name: TenantId,
    /// What is set.
    pub settings: Settings,
    /// When it was made, nanoseconds since 1970.
    pub created_ns: u64,
    /// Its secrets: id, when it was made, until when it is good.
    pub secrets: Vec<(String, u64, Option<u64>)>,
}

impl Tenant {
    /// Its secrets, for those who keep them out of what is told.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().map(|secret| &secret.value)
    }

    /// Takes one request from the tenant's rate.
    ///
    /// # Errors
    /// In how many milliseconds there is room again.
    pub fn take_rate(&self, now_ms: u64) -> Result<(), u64> {
        match &self.rate {
            Some(rate) => rate.lock().unwrap_or_else(PoisonError::into_inner).take(now_ms),
            None => Ok(()),
        }
    }
}

/// The register. Cheap to clone.
#[derive(Clone)]
pub struct Tenants(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    sealer: Sealer,
    started_ms: u64,
    tenants: RwLock<HashMap<TenantId, Arc<Tenant>>>,
    writing: Mutex<()>,
    nonces: Mutex<Nonces>,
    failing: Mutex<HashMap<String, Bucket>>,
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tenants(…)")
    }
}

impl Tenants {
    /// Reads the register.
    ///
    /// # Errors
    /// When a row cannot be read or its seal does not open: a tenant that is left out silently would be worse.
    pub fn open(store: Arc<Store>, sealer: Sealer, now_ms: u64) -> Result<Self, Error> {
        let mut rows = Vec::new();
        store.rows(Table::Tenants, &[], None, 0, |row| {
            rows.push(row);
            true
        })?;
        let mut tenants = HashMap::new();
        for row in rows {
            let shown = row.key.first().cloned().unwrap_or_default();
            let corrupt = |source| Error::Corrupt { name: shown.clone(), source };
            let name = TenantId::parse(&shown)
                .map_err(|error| Error::Invalid { field: "tenant", message: error.to_string() })?;
            let read: TenantRow = serde_json::from_slice(&row.value).map_err(corrupt)?;
            tenants.insert(name.clone(), Arc::new(open_row(&sealer, name, read, now_ms)?));
        }
        let nonces = Mutex::new(ahead(&store, now_ms)?);
        Ok(Self(Arc::new(Inner {
            store,
            sealer,
            started_ms: now_ms,
            tenants: RwLock::new(tenants),
            writing: Mutex::default(),
            nonces,
            failing: Mutex::default(),
        })))
    }

    /// A tenant.
    #[must_use]
    pub fn get(&self, name: &TenantId) -> Option<Arc<Tenant>> {
        self.0.tenants.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All of them, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Overview> {
        let mut all: Vec<_> = self
            .0
            .tenants
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|tenant| overview(tenant))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// A new tenant.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Invalid`], or what the store says.
    pub fn add(
        &self,
        name: &TenantId,
        secret: Secret,
        settings: Settings,
        now_ns: u64,
    ) -> Result<Overview, Error> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(name).is_some() {
            return Err(Error::Exists { name: name.clone() });
        }
        let first = self.open_secret(name, secret, now_ns, 0)?;
        self.put(Tenant {
            name: name.clone(),
            policy: policy(name, &settings)?,
            rate: rate(&settings, now_ns / 1_000_000),
            settings,
            created_ns: now_ns,
            secrets: vec![first],
        })
    }

    /// Other settings.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], or what the store says.
    pub fn set(&self, name: &TenantId, settings: Settings, now_ns: u64) -> Result<Overview, Error> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.get(name).ok_or_else(|| Error::NotFound { name: name.clone() })?;
        self.put(Tenant {
            policy: policy(name, &settings)?,
            rate: rate(&settings, now_ns / 1_000_000),
            settings,
            ..copy(&old)
        })
    }

    /// A new secret; those before stay good for `overlap_ns`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], or what the store says.
    pub fn rotate(
        &self,
        name: &TenantId,
        secret: Secret,
        overlap_ns: u64,
        now_ns: u64,
    ) -> Result<Overview, Error> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.get(name).ok_or_else(|| Error::NotFound { name: name.clone() })?;
        if old.secrets.iter().any(|before| before.value == secret) {
            let message =
                "the tenant has this secret already: who knows it would go on knowing it".to_owned();
            return Err(Error::Invalid { field: "secret", message });
        }
        let mut next = copy(&old);
        let until = now_ns.saturating_add(overlap_ns);
        next.secrets.retain(|s| s.until_ns.is_none_or(|until| until > now_ns));
        for before in &mut next.secrets {
            before.until_ns = Some(before.until_ns.map_or(until, |old| old.min(until)));
        }
        next.secrets.retain(|s| s.until_ns.is_none_or(|until| until > now_ns));
        if next.secrets.len() >= MAX_SECRETS {
            let message = format!("{MAX_SECRETS} secrets are good already; wait until one of them has ended");
            return Err(Error::Invalid { field: "overlap", message });
        }
        let number = old.secrets.iter().filter_map(|s| s.id.parse::<u64>().ok()).max().unwrap_or(0) + 1;
        next.secrets.push(self.open_secret(name, secret, now_ns, number)?);
        self.put(next)
    }

    /// Forgets a tenant and its secrets. Its agents stay.
    ///
    /// # Errors
    /// [`Error::NotFound`], or what the store says.
    pub fn revoke(&self, name: &TenantId) -> Result<(), Error> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(name).is_none() {
            return Err(Error::NotFound { name: name.clone() });
        }
        let mut batch = Batch::new();
        batch.delete_row(Table::Tenants, &[name.as_str()]);
        self.0.store.commit(batch, Durability::Host)?;
        self.0.tenants.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// Judges a request by its signature.
    ///
    /// # Errors
    /// [`AuthError`]; nothing about it tells whether the tenant exists.
    pub fn verify(
        &self,
        tenant: Option<&str>,
        signed: &Signed<'_>,
        now_ns: u64,
    ) -> Result<Arc<Tenant>, AuthError> {
        let now_ms = now_ns / 1_000_000;
        let name = tenant.and_then(|text| TenantId::parse(text).ok()).ok_or(AuthError::NoTenant)?;
        let verified = self.judge(&name, signed, now_ns, now_ms);
        if verified.is_err() && self.fails_too_often(&name, now_ms) {
            return Err(AuthError::TooMany);
        }
        verified
    }

    /// Judges a bearer token: which agent it speaks for.
    ///
    /// # Errors
    /// [`AuthError`], as [`Tenants::verify`].
    pub fn verify_bearer(&self, token: &str, now_ns: u64) -> Result<(Arc<Tenant>, AgentName), AuthError> {
        let (uri, given) = bearer_parts(token).ok_or(AuthError::NoSignature)?;
        let good = |tenant: &Tenant| {
            tenant.secrets.iter().filter(|secret| secret.until_ns.is_none_or(|until| until > now_ns)).fold(
                false,
                |found, secret| {
                    let fits = bearer_mac(&secret.value, &uri).is_some_and(|mac| mac.ct_eq(&given).into());
                    fits | found
                },
            )
        };
        match self.get(&uri.tenant).filter(|tenant| good(tenant)) {
            Some(tenant) => Ok((tenant, uri.name)),
            None if self.fails_too_often(&uri.tenant, now_ns / 1_000_000) => Err(AuthError::TooMany),
            None => Err(AuthError::Mismatch),
        }
    }

    /// A bearer token for an agent, from the newest secret.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn bearer(&self, agent: &AgentUri) -> Result<String, Error> {
        let missing = || Error::NotFound { name: agent.tenant.clone() };
        let tenant = self.get(&agent.tenant).ok_or_else(missing)?;
        tenant.secrets.last().map(|newest| bearer(&newest.value, agent)).ok_or_else(missing)
    }

    fn judge(
        &self,
        name: &TenantId,
        signed: &Signed<'_>,
        now_ns: u64,
        now_ms: u64,
    ) -> Result<Arc<Tenant>, AuthError> {
        let given = signed.signature.and_then(decode).ok_or(AuthError::NoSignature)?;
        let tenant = self.get(name).ok_or(AuthError::Mismatch)?;
        let good = tenant
            .secrets
            .iter()
            .filter(|secret| secret.until_ns.is_none_or(|until| until > now_ns))
            // All are tried, so that the time tells nothing.
            .fold(false, |found, secret| fits(&secret.value, signed, &given) | found);
        if !good {
            return Err(AuthError::Mismatch);
        }
        match (signed.timestamp, signed.nonce) {
            (None, None) if tenant.settings.require_timestamp => Err(AuthError::TimeRequired),
            (None, None) => Ok(tenant),
            (Some(timestamp), Some(nonce)) => {
                let at: u64 = timestamp.parse().map_err(|_| AuthError::BadTime)?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                if !(8..=64).contains(&nonce.len()) || !nonce.bytes().all(plain) {
                    return Err(AuthError::BadTime);
                }
                if at.abs_diff(now_ms) > MAX_SKEW_MS {
                    return Err(AuthError::Skew);
                }
                // Of what was taken before a restart only what lay ahead is remembered; so nothing from before it is taken.
                if at < self.0.started_ms {
                    return Err(AuthError::BeforeStart);
                }
                let until = at.saturating_add(MAX_SKEW_MS);
                let taken = {
                    let mut nonces = self.0.nonces.lock().unwrap_or_else(PoisonError::into_inner);
                    nonces.take(now_ms, until, &tenant.name, nonce)
                };
                match taken {
                    Taken::New if at > now_ms => {
                        self.remember(&tenant.name, nonce, until, at - now_ms)?;
                        Ok(tenant)
                    }
                    Taken::New => Ok(tenant),
                    Taken::Before => Err(AuthError::Replayed),
                    Taken::NoRoom => Err(AuthError::NoRoom),
                }
            }
            _ => Err(AuthError::BadTime),
        }
    }

    /// A nonce whose time lies ahead is kept on disk, for a restart may come before its time does.
    fn remember(
        &self,
        tenant: &TenantId,
        nonce: &str,
        until_ms: u64,
        ahead_ms: u64,
    ) -> Result<(), AuthError> {
        // A host is not back so soon.
        let durability = if ahead_ms > SOON_MS { Durability::Host } else { Durability::Process };
        let mut batch = Batch::new();
        batch
            .put_row(Table::Nonces, &[tenant.as_str(), nonce], until_ms.saturating_mul(1_000_000), &[])
            .and_then(|()| self.0.store.commit(batch, durability))
            .map_err(|error| {
                tracing::warn!(%error, tenant = %tenant, "a nonce cannot be kept: its request is refused");
                AuthError::NoRoom
            })
    }

    fn fails_too_often(&self, name: &TenantId, now_ms: u64) -> bool {
        let mut failing = self.0.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if failing.len() < MAX_FAILING || failing.contains_key(name.as_str()) {
            name.as_str()
        } else {
            ""
        };
        let bucket = failing
            .entry(key.to_owned())
            .or_insert_with(|| Bucket::new(FAILURES_PER_SECOND, FAILURES_PER_SECOND, now_ms));
        bucket.take(now_ms).is_err()
    }

    fn open_secret(
        &self,
        name: &TenantId,
        value: Secret,
        now_ns: u64,
        number: u64,
    ) -> Result<OpenSecret, Error> {
        let length = value.expose().len();
        if !(MIN_SECRET..=MAX_SECRET).contains(&length) {
            let message = format!("the secret has {length} bytes; use {MIN_SECRET} to {MAX_SECRET}");
            return Err(Error::Invalid { field: "secret", message });
        }
        let sealed = self.0.sealer.seal(&place(name), &value).map_err(Error::Seal)?;
        Ok(OpenSecret {
            id: number.to_string(),
            value,
            sealed: hex::encode(sealed),
            created_ns: now_ns,
            until_ns: None,
        })
    }

    fn put(&self, tenant: Tenant) -> Result<Overview, Error> {
        let row = TenantRow {
            settings: tenant.settings.clone(),
            created_ns: tenant.created_ns,
            secrets: tenant
                .secrets
                .iter()
                .map(|secret| SecretRow {
                    id: secret.id.clone(),
                    sealed: secret.sealed.clone(),
                    created_ns: secret.created_ns,
                    until_ns: secret.until_ns,
                })
                .collect(),
        };
        let bytes = serde_json::to_vec(&row)
            .map_err(|source| Error::Corrupt { name: tenant.name.to_string(), source })?;
        let mut batch = Batch::new();
        batch.put_row(Table::Tenants, &[tenant.name.as_str()], 0, &bytes)?;
        self.0.store.commit(batch, Durability::Host)?;
        let shown = overview(&tenant);
        let mut tenants = self.0.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.insert(tenant.name.clone(), Arc::new(tenant));
        Ok(shown)
    }
}

/// Nonces from before the start that are good still.
fn ahead(store: &Store, now_ms: u64) -> Result<Nonces, Error> {
    let mut nonces = Nonces::default();
    store.rows(Table::Nonces, &[], None, now_ms.saturating_mul(1_000_000), |row| {
        if let [tenant, nonce] = row.key.as_slice()
            && let Ok(tenant) = TenantId::parse(tenant)
        {
            nonces.take(now_ms, row.expires_ns / 1_000_000, &tenant, nonce);
        }
        true
    })?;
    Ok(nonces)
}

fn place(name: &TenantId) -> String {
    format!("tenant {name}")
}

fn rate(settings: &Settings, now_ms: u64) -> Option<Mutex<Bucket>> {
    settings.rate_per_second.map(|rate| Mutex::new(Bucket::new(rate, rate, now_ms)))
}

fn policy(name: &TenantId, settings: &Settings) -> Result<Option<CapabilityPolicy>, Error> {
    if settings.allow.is_empty() && settings.deny.is_empty() {
        return Ok(None);
    }
    let origin = format!("tenant {name}");
    let rules = match settings.allow.as_slice() {
        [] => CapabilityPolicy::everything_but(&settings.deny, &origin),
        allow => CapabilityPolicy::from_list(allow, &settings.deny, &origin),
    };
    rules.map(Some).map_err(|message| {
        let is_of_deny = CapabilityPolicy::everything_but(&settings.deny, &origin).is_err();
        Error::Invalid { field: if is_of_deny { "deny" } else { "allow" }, message }
    })
}

fn open_row(sealer: &Sealer, name: TenantId, row: TenantRow, now_ms: u64) -> Result<Tenant, Error> {
    let mut secrets = Vec::with_capacity(row.secrets.len());
    for secret in row.secrets {
        let sealed = hex::decode(&secret.sealed).map_err(|_| Error::Seal(crate::seal::SealError::Broken))?;
        let value = sealer.open_sealed(&place(&name), &sealed).map_err(Error::Seal)?;
        secrets.push(OpenSecret {
            id: secret.id,
            value,
            sealed: secret.sealed,
            created_ns: secret.created_ns,
            until_ns: secret.until_ns,
        });
    }
    Ok(Tenant {
        policy: policy(&name, &row.settings)?,
        rate: rate(&row.settings, now_ms),
        name,
        settings: row.settings,
        created_ns: row.created_ns,
        secrets,
    })
}

fn copy(tenant: &Tenant) -> Tenant {
    Tenant {
        name: tenant.name.clone(),
        settings: tenant.settings.clone(),
        policy: tenant.policy.clone(),
        created_ns: tenant.created_ns,
        rate: tenant
            .rate
            .as_ref()
            .map(|rate| Mutex::new(rate.lock().unwrap_or_else(PoisonError::into_inner).clone())),
        secrets: tenant
            .secrets
            .iter()
            .map(|secret| OpenSecret {
                id: secret.id.clone(),
                value: secret.value.clone(),
                sealed: secret.sealed.clone(),
                created_ns: secret.created_ns,
                until_ns: secret.until_ns,
            })
            .collect(),
    }
}

fn overview(tenant: &Tenant) -> Overview {
    Overview {
        name: tenant.name.clone(),
        settings: tenant.settings.clone(),
        created_ns: tenant.created_ns,
        secrets: tenant.secrets.iter().map(|s| (s.id.clone(), s.created_ns, s.until_ns)).collect(),
    }
}

#[path = "standing.rs"]
mod standing;
pub use standing::Standing;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
