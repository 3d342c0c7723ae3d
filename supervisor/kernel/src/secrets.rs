//! Secrets that the kernel uses for agents, which never see them: for which hosts each is, and as which header it goes there.
//!
//! A row holds the secret sealed, and the seal is bound to tenant, name, hosts and header: a row that was altered does not open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aion_fetch::{HeaderMap, HeaderName, HeaderValue, Target, header_name};
use aion_manifest::{Capability, HostPattern, PortPattern};
use aion_store::{Batch, Durability, Store, Table};
use aion_syscall::{Reason, Refusal};
use aion_tenants::{Sealer, Secret};
use aion_types::{ErrorCode, TenantId};
use serde::{Deserialize, Serialize};

use crate::redact::SHORTEST;
use crate::rows;

const MAX_VALUE: usize = 4096;
/// Of one tenant: all of them are looked for in what is told.
const MAX_SECRETS: usize = 256;
const MAX_BYTES: usize = 64 << 10;
const MAX_HOSTS: usize = 64;
const MAX_NAME: usize = 64;
const MAX_PREFIX: usize = 256;

/// Where a secret goes, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretConfig {
    /// Its name.
    pub name: String,
    /// The hosts that get it, as `api.example.com:443`.
    pub hosts: Vec<String>,
    /// The header that carries it.
    pub header: String,
    /// What stands before it in the header.
    pub prefix: String,
}

/// What is shown of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretOverview {
    /// Where it goes.
    pub config: SecretConfig,
    /// When it was stored, nanoseconds since 1970.
    pub created_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct SecretRow {
    config: SecretConfig,
    sealed: String,
    created_ns: u64,
}

/// A secret, open.
pub(crate) struct OpenSecret {
    pub(crate) config: SecretConfig,
    header: HeaderName,
    value: Secret,
    created_ns: u64,
}

impl OpenSecret {
    /// Whether it is for this host and port.
    pub(crate) fn is_for(&self, target: &Target) -> bool {
        self.config.hosts.contains(&target.place())
    }

    /// The header, made anew for each request, so that no copy lives for long.
    pub(crate) fn headers(&self) -> Result<HeaderMap, Refusal> {
        let mut text = self.config.prefix.clone().into_bytes();
        text.extend_from_slice(self.value.expose());
        let text = Secret::new(text);
        let mut value = HeaderValue::from_bytes(text.expose())
            .map_err(|_| internal("a secret cannot be sent in a header"))?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(self.header.clone(), value)]))
    }
}

/// The secrets of all tenants.
pub(crate) struct Secrets {
    store: Arc<Store>,
    sealer: Sealer,
    all: RwLock<BTreeMap<(TenantId, String), Arc<OpenSecret>>>,
    writing: Mutex<()>,
    changes: AtomicU64,
}

fn internal(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Internal, ErrorCode::Internal, message)
}

pub(crate) fn not_found(name: &str) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(Reason::NotFound, ErrorCode::SecretNotFound, format!("there is no secret {shown:?}"))
        .at("params.secret")
        .hint("an operator adds it: aionctl --tenant T secret add NAME --file F --host HOST")
}

/// What a seal is bound to.
fn place(tenant: &TenantId, config: &SecretConfig) -> String {
    let SecretConfig { name, hosts, header, prefix } = config;
    format!("secret {tenant}/{name} for {} as {header}: {prefix:?}", hosts.join(" "))
}

impl Secrets {
    pub(crate) fn open(store: Arc<Store>, sealer: Sealer) -> Result<Self, Refusal> {
        let mut found = Vec::new();
        store
            .rows(Table::Secrets, &[], None, 0, |row| {
                found.push(row);
                true
            })
            .map_err(|error| rows::failed(&error))?;
        let mut all = BTreeMap::new();
        for row in found {
            let [tenant, name] = row.key.as_slice() else { continue };
            // One that does not open is left out: calls that need it say so, and the others work on.
            match opened(&sealer, tenant, &row.value) {
                Ok((tenant, secret)) => {
                    all.insert((tenant, secret.config.name.clone()), Arc::new(secret));
                }
                Err(refusal) => tracing::error!(%tenant, name, %refusal, "a secret cannot be used"),
            }
        }
        Ok(Self {
            store,
            sealer,
            all: RwLock::new(all),
            writing: Mutex::default(),
            changes: AtomicU64::new(0),
        })
    }

    /// Grows with each change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(crate) fn find(&self, tenant: &TenantId, name: &str) -> Option<Arc<OpenSecret>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(tenant.clone(), name.to_owned())).cloned()
    }

    fn of(&self, tenant: &TenantId) -> Vec<Arc<OpenSecret>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.range((tenant.clone(), String::new())..)
            .take_while(|((owner, _), _)| owner == tenant)
            .map(|(_, secret)| Arc::clone(secret))
            .collect()
    }

    /// All values of a tenant, with their names.
    pub(crate) fn values(&self, tenant: &TenantId) -> Vec<(String, Secret)> {
        self.of(tenant).iter().map(|secret| (secret.config.name.clone(), secret.value.clone())).collect()
    }

    /// What is there, by name.
    pub(crate) fn list(&self, tenant: &TenantId) -> Vec<SecretOverview> {
        self.of(tenant)
            .iter()
            .map(|secret| SecretOverview { config: secret.config.clone(), created_ns: secret.created_ns })
            .collect()
    }

    /// Stores a secret, in the place of one of the same name.
    pub(crate) fn add(
        &self,
        tenant: &TenantId,
        config: SecretConfig,
        value: Secret,
        now_ns: u64,
    ) -> Result<SecretOverview, Refusal> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = checked(config, value, now_ns)?;
        let others = self.of(tenant).into_iter().filter(|other| other.config.name != secret.config.name);
        let (count, bytes) = others
            .fold((1, secret.value.expose().len()), |(n, b), other| (n + 1, b + other.value.expose().len()));
        if count > MAX_SECRETS || bytes > MAX_BYTES {
            let message = format!("a tenant has at most {MAX_SECRETS} secrets with {MAX_BYTES} bytes");
            return Err(Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message));
        }
        let sealed = self
            .sealer
            .seal(&place(tenant, &secret.config), &secret.value)
            .map_err(|error| internal(error.to_string()))?;
        let row =
            SecretRow { config: secret.config.clone(), sealed: hex::encode(sealed), created_ns: now_ns };
        let name = secret.config.name.clone();
        rows::put(&self.store, Table::Secrets, &[tenant.as_str(), &name], 0, &row, Durability::Host)?;
        let shown = SecretOverview { config: secret.config.clone(), created_ns: now_ns };
        self.change(|all| {
            all.insert((tenant.clone(), name), Arc::new(secret));
        });
        Ok(shown)
    }

    pub(crate) fn remove(&self, tenant: &TenantId, name: &str) -> Result<(), Refusal> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.find(tenant, name).is_none() {
            return Err(not_found(name).at("name"));
        }
        rows::delete(&self.store, Table::Secrets, &[tenant.as_str(), name])?;
        self.change(|all| {
            all.remove(&(tenant.clone(), name.to_owned()));
        });
        Ok(())
    }

    /// Forgets all of a tenant: another one of its name shall not have them.
    pub(crate) fn forget(&self, tenant: &TenantId) -> Result<(), Refusal> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new();
        for secret in self.of(tenant) {
            batch.delete_row(Table::Secrets, &[tenant.as_str(), &secret.config.name]);
        }
        self.store.commit(batch, Durability::Host).map_err(|error| rows::failed(&error))?;
        self.change(|all| all.retain(|(owner, _), _| owner != tenant));
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<(TenantId, String), Arc<OpenSecret>>)) {
        change(&mut self.all.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

fn opened(sealer: &Sealer, tenant: &str, bytes: &[u8]) -> Result<(TenantId, OpenSecret), Refusal> {
    let tenant = TenantId::parse(tenant).map_err(|error| internal(error.to_string()))?;
    let row: SecretRow = serde_json::from_slice(bytes).map_err(|error| rows::corrupt(&error))?;
    let sealed = hex::decode(&row.sealed).map_err(|_| internal("its row cannot be read"))?;
    let value = sealer
        .open_sealed(&place(&tenant, &row.config), &sealed)
        .map_err(|error| internal(error.to_string()))?;
    Ok((tenant, checked(row.config, value, row.created_ns)?))
}

/// Reads what an operator gave; hosts come back with their port.
fn checked(mut config: SecretConfig, value: Secret, created_ns: u64) -> Result<OpenSecret, Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if config.name.is_empty() || config.name.len() > MAX_NAME || !config.name.chars().all(plain) {
        let message = format!("use 1 to {MAX_NAME} letters, digits, '_', '-' and '.'");
        return Err(Refusal::field("name", message));
    }
    let length = value.expose().len();
    if !(SHORTEST..=MAX_VALUE).contains(&length) {
        return Err(Refusal::field(
            "secret",
            format!("it has {length} bytes; use {SHORTEST} to {MAX_VALUE}"),
        ));
    }
    // The text is not repeated in what is told.
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    if !value.expose().iter().all(printable) {
        return Err(Refusal::field("secret", "it goes into a header: use printable ASCII"));
    }
    if config.prefix.len() > MAX_PREFIX || !config.prefix.as_bytes().iter().all(printable) {
        return Err(Refusal::field("prefix", format!("use at most {MAX_PREFIX} letters of printable ASCII")));
    }
    let header = header_name(&config.header).map_err(|message| Refusal::field("header", message))?;
    header.as_str().clone_into(&mut config.header);
    if config.hosts.is_empty() || config.hosts.len() > MAX_HOSTS {
        return Err(Refusal::field("hosts", format!("name 1 to {MAX_HOSTS} hosts that get it")));
    }
    config.hosts = config.hosts.iter().map(|host| place_of(host)).collect::<Result<_, _>>()?;
    config.hosts.sort();
    config.hosts.dedup();
    Ok(OpenSecret { config, header, value, created_ns })
}

/// `HOST` or `HOST:PORT`; without a port that of https.
fn place_of(text: &str) -> Result<String, Refusal> {
    let wrong = |message: String| Refusal::field("hosts", message);
    let with_port = match text.rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => text.to_owned(),
        _ => format!("{text}:443"),
    };
    let capability: Capability = format!("net:connect:{with_port}").parse().map_err(wrong)?;
    match capability {
        Capability::Net { host: HostPattern::One(host), port: PortPattern::One(port) } => {
            Ok(format!("{host}:{port}"))
        }
        _ => Err(wrong(format!("{text:?} is not one host and port"))),
    }
}

#[cfg(test)]
mod tests {
    use aion_store::Options;

    use super::*;

    fn config(name: &str, hosts: &[&str]) -> SecretConfig {
        SecretConfig {
            name: name.to_owned(),
            hosts: hosts.iter().map(ToString::to_string).collect(),
            header: "Authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        }
    }

    fn value(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn they_are_kept_sealed_and_apart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("db"), Options::default()).unwrap());
        let sealer = Sealer::open(&dir.path().join("seal.key")).unwrap();
        let secrets = Secrets::open(Arc::clone(&store), sealer.clone()).unwrap();
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let made = secrets
            .add(&a, config("x", &["API.example.com", "h:8443", "h:8443"]), value("planted-1"), 1)
            .unwrap();
        assert_eq!(
            (made.config.hosts, made.config.header.as_str()),
            (vec!["api.example.com:443".to_owned(), "h:8443".to_owned()], "authorization")
        );
        secrets.add(&b, config("x", &["h"]), value("planted-2"), 1).unwrap();
        let again = Secrets::open(Arc::clone(&store), sealer.clone()).unwrap();
        for secrets in [&secrets, &again] {
            assert_eq!(secrets.find(&a, "x").unwrap().value, value("planted-1"));
            assert_eq!(secrets.values(&b).len(), 1);
        }
        // A row that is changed to send it elsewhere does not open.
        let row = store.row(Table::Secrets, &["a", "x"], 0).unwrap().unwrap();
        let mut altered: SecretRow = serde_json::from_slice(&row.value).unwrap();
        assert!(!String::from_utf8_lossy(&row.value).contains("planted"));
        altered.config.hosts = vec!["evil.example:443".to_owned()];
        rows::put(&store, Table::Secrets, &["a", "x"], 0, &altered, Durability::Host).unwrap();
        assert!(Secrets::open(Arc::clone(&store), sealer.clone()).unwrap().find(&a, "x").is_none());
        let before = secrets.changes();
        secrets.forget(&a).unwrap();
        assert!(secrets.list(&a).is_empty() && secrets.changes() > before);
        assert_eq!(secrets.remove(&a, "x").unwrap_err().code, ErrorCode::SecretNotFound);
        secrets.remove(&b, "x").unwrap();
        assert!(Secrets::open(store, sealer).unwrap().list(&b).is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_and_the_secret_not_repeated() {
        let good = || config("x", &["h"]);
        for (config, secret, field) in [
            (SecretConfig { name: "a b".to_owned(), ..good() }, "planted-1", "name"),
            (good(), "1234567", "secret"),
            (good(), "planted\nline", "secret"),
            (SecretConfig { header: "Host".to_owned(), ..good() }, "planted-1", "header"),
            (SecretConfig { prefix: "a\r\nb".to_owned(), ..good() }, "planted-1", "prefix"),
            (SecretConfig { hosts: Vec::new(), ..good() }, "planted-1", "hosts"),
            (config("x", &["*"]), "planted-1", "hosts"),
            (config("x", &["*.example.com"]), "planted-1", "hosts"),
            (config("x", &["h:*"]), "planted-1", "hosts"),
            (config("x", &["http://h/"]), "planted-1", "hosts"),
            (config("x", &["h:0"]), "planted-1", "hosts"),
        ] {
            let refusal = checked(config, value(secret), 0).err().unwrap();
            assert_eq!(refusal.field, field);
            assert!(!format!("{refusal:?}").contains("planted"), "{refusal:?}");
        }
    }
}
