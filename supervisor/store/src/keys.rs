//! Keys of every column family, in one place: they are the store's real schema.
//!
//! Numbers are big-endian so that RocksDB's order is theirs. Tenants, names and ids hold no NUL, which is
//! therefore the separator.

use aion_types::{AgentId, AgentName, TenantId};

/// `agents`: `a TENANT 0 ID` the record, `l TENANT 0 ID` the launch, `m TENANT 0 ID` the manifest, `o TENANT 0 ID` the manifest of another
/// agent that it was made from.
pub(crate) const AGENTS: &str = "agents";
/// `names`: `n TENANT 0 NAME` → id, `i ID` → `TENANT 0 NAME` (outlives the agent while events name it).
pub(crate) const NAMES: &str = "names";
/// `events`: `s SEQ` the row, `a ID SEQ` the index by agent.
pub(crate) const EVENTS: &str = "events";
/// `requests`: `r TENANT 0 REQUEST_ID` the row, `t TIME KEY` the index by expiry.
pub(crate) const REQUESTS: &str = "requests";
/// `meta`: `schema`, `cursor`, `floor`.
pub(crate) const META: &str = "meta";

/// `kernel`: rows of the kernel API that stay, by table (`tables.rs`).
pub(crate) const KERNEL: &str = "kernel";
/// `memory`: what agents keep and send.
pub(crate) const MEMORY: &str = "memory";
/// `decisions`: one row for each system call, for a while.
pub(crate) const DECISIONS: &str = "decisions";

pub(crate) const ALL: [&str; 8] = [AGENTS, NAMES, EVENTS, REQUESTS, META, KERNEL, MEMORY, DECISIONS];

/// Begins the list of what expires, in each family that has one.
pub(crate) const ROW_EXPIRY: u8 = b'!';

pub(crate) const META_SCHEMA: &[u8] = b"schema";
pub(crate) const META_CURSOR: &[u8] = b"cursor";
pub(crate) const META_DETECTED: &[u8] = b"detected";
pub(crate) const META_FLOOR: &[u8] = b"floor";

/// A ULID's text form.
pub(crate) const ID_LEN: usize = 26;

fn joined(kind: u8, tenant: &TenantId, rest: &str) -> Vec<u8> {
    let tenant = tenant.as_str();
    let mut key = Vec::with_capacity(2 + tenant.len() + rest.len());
    key.push(kind);
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(rest.as_bytes());
    key
}

pub(crate) fn agent(tenant: &TenantId, id: &AgentId) -> Vec<u8> {
    joined(b'a', tenant, id.as_str())
}

pub(crate) fn agents_of(tenant: &TenantId) -> Vec<u8> {
    joined(b'a', tenant, "")
}

pub(crate) const ALL_AGENTS: &[u8] = b"a";

pub(crate) fn launch(tenant: &TenantId, id: &AgentId) -> Vec<u8> {
    joined(b'l', tenant, id.as_str())
}

pub(crate) fn manifest(tenant: &TenantId, id: &AgentId) -> Vec<u8> {
    joined(b'm', tenant, id.as_str())
}

pub(crate) fn origin(tenant: &TenantId, id: &AgentId) -> Vec<u8> {
    joined(b'o', tenant, id.as_str())
}

pub(crate) fn name(tenant: &TenantId, name: &AgentName) -> Vec<u8> {
    joined(b'n', tenant, name.as_str())
}

pub(crate) fn name_of_id(id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len());
    key.push(b'i');
    key.extend_from_slice(id.as_bytes());
    key
}

pub(crate) fn event(seq: u64) -> [u8; 9] {
    let mut key = [b's', 0, 0, 0, 0, 0, 0, 0, 0];
    key[1..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The number in a key of [`event`]; none for other keys.
pub(crate) fn event_seq(key: &[u8]) -> Option<u64> {
    let rest = key.strip_prefix(b"s")?;
    Some(u64::from_be_bytes(rest.try_into().ok()?))
}

pub(crate) fn by_agent(id: &str, seq: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + id.len() + 8);
    key.push(b'a');
    key.extend_from_slice(id.as_bytes());
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// Id and number in a key of [`by_agent`]; none for other keys.
pub(crate) fn by_agent_parts(key: &[u8]) -> Option<(&str, u64)> {
    let rest = key.strip_prefix(b"a")?;
    if rest.len() != ID_LEN + 8 {
        return None;
    }
    let (id, seq) = rest.split_at(ID_LEN);
    Some((std::str::from_utf8(id).ok()?, u64::from_be_bytes(seq.try_into().ok()?)))
}

pub(crate) fn request(tenant: &TenantId, id: &str) -> Vec<u8> {
    joined(b'r', tenant, id)
}

pub(crate) fn expiry(at_ns: u64, request_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + request_key.len());
    key.push(b't');
    key.extend_from_slice(&at_ns.to_be_bytes());
    key.extend_from_slice(request_key);
    key
}

/// The time and the request's key in a key of [`expiry`].
pub(crate) fn expiry_parts(key: &[u8]) -> Option<(u64, &[u8])> {
    let rest = key.strip_prefix(b"t")?;
    let (time, request) = rest.split_at_checked(8)?;
    Some((u64::from_be_bytes(time.try_into().ok()?), request))
}

pub(crate) fn row_expiry(at_ns: u64, row_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + row_key.len());
    key.push(ROW_EXPIRY);
    key.extend_from_slice(&at_ns.to_be_bytes());
    key.extend_from_slice(row_key);
    key
}

/// The time and the row's key in a key of [`row_expiry`].
pub(crate) fn row_expiry_parts(key: &[u8]) -> Option<(u64, &[u8])> {
    let rest = key.strip_prefix(&[ROW_EXPIRY])?;
    let (time, row) = rest.split_at_checked(8)?;
    Some((u64::from_be_bytes(time.try_into().ok()?), row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_read_back() {
        assert!(event(255) < event(256));
        assert_eq!(event_seq(&event(77)), Some(77));
        let id = AgentId::from_parts(1, 2);
        assert!(by_agent(id.as_str(), 9) < by_agent(id.as_str(), 10));
        assert_eq!(by_agent_parts(&by_agent(id.as_str(), 10)), Some((id.as_str(), 10)));
        assert_eq!(by_agent_parts(b"s12345678"), None);
        let tenant = TenantId::parse("t").unwrap();
        let request = request(&tenant, "x");
        assert_eq!(expiry_parts(&expiry(5, &request)), Some((5, request.as_slice())));
    }

    #[test]
    fn one_tenant_is_no_prefix_of_another() {
        let (a, ab) = (TenantId::parse("a").unwrap(), TenantId::parse("ab").unwrap());
        assert!(!agents_of(&ab).starts_with(&agents_of(&a)));
    }
}
