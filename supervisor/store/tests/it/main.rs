//! The store against a model, against kill -9, against a full disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agents;
mod crash;
mod disk;
mod events;
mod model;
mod requests;

use std::collections::BTreeMap;

use aion_store::{AgentRecord, AgentState, Options, RestartRule, Store};
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
        id: id(n),
        tenant: tenant(tenant_name),
        name: AgentName::parse(name).unwrap(),
        version: "1".into(),
        state: AgentState::Created,
        incarnation: 0,
        restarts: 0,
        restarts_in_row: 0,
        restart: RestartRule::default(),
        restart_at_ns: 0,
        stop_requested: false,
        launched: false,
        pid: 0,
        cgroup: String::new(),
        layers: Vec::new(),
        exit: None,
        dropped_events: 0,
        created_ns: 1,
        started_ns: 0,
        finished_ns: 0,
        launch_ns: 0,
        command: vec!["true".into()],
        message: String::new(),
        failure_code: String::new(),
        heartbeat_ns: 0,
        status: BTreeMap::new(),
        workspace: "managed".into(),
        audit: "events".into(),
        labels: BTreeMap::from([("n".to_owned(), (n % 3).to_string())]),
        tty: false,
        auto_remove: false,
    }
}
