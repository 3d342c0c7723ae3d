//! The store against a model, against kill -9, against a full disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod crash;
mod disk;
mod events;
mod model;
mod requests;

use std::collections::BTreeMap;

use aion_store::{AgentRecord, Options, Store};
use aion_types::{AgentId, AgentName, TenantId};

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn id(n: u64) -> AgentId {
    AgentId::from_parts(1_700_000_000_000 + n, u128::from(n))
}

/// Small reserves, so that the tests run on small disks.
pub(crate) fn options() -> Options {
    Options { reserve_bytes: 1 << 20, hard_reserve_bytes: 1 << 20, ..Options::default() }
}

pub(crate) fn open(dir: &std::path::Path) -> Store {
    Store::open(&dir.join("db"), options()).unwrap()
}

pub(crate) fn record(tenant_name: &str, n: u64, name: &str) -> AgentRecord {
    AgentRecord {
        version: "1".into(),
        created_ns: 1,
        command: vec!["true".into()],
        workspace: "managed".into(),
        audit: "events".into(),
        labels: BTreeMap::from([("n".to_owned(), (n % 3).to_string())]),
        ..AgentRecord::new(id(n), tenant(tenant_name), AgentName::parse(name).unwrap())
    }
}
