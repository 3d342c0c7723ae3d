//! Random operations against a model that is plain maps; the store is closed and opened again in between.

use std::collections::BTreeMap;

use aion_store::{
    AgentRecord, AgentState, Batch, Durability, Error, EventQuery, EventRow, ListQuery, RequestHash,
    RequestKey, RequestRow, Store,
};
use proptest::prelude::*;

use crate::{id, open, record, tenant};

#[derive(Debug, Clone)]
enum Op {
    Create { tenant: u8, agent: u8, name: u8 },
    Move { tenant: u8, agent: u8, state: u8 },
    Remove { tenant: u8, agent: u8 },
    Index { count: u8, agent: u8 },
    Request { id: u8, expires: u8 },
    Expire { now: u8 },
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..2u8, 0..12u8, 0..6u8).prop_map(|(tenant, agent, name)| Op::Create { tenant, agent, name }),
        3 => (0..2u8, 0..12u8, 0..7u8).prop_map(|(tenant, agent, state)| Op::Move { tenant, agent, state }),
        2 => (0..2u8, 0..12u8).prop_map(|(tenant, agent)| Op::Remove { tenant, agent }),
        3 => (1..20u8, 0..12u8).prop_map(|(count, agent)| Op::Index { count, agent }),
        2 => (0..6u8, 0..50u8).prop_map(|(id, expires)| Op::Request { id, expires }),
        1 => (0..50u8).prop_map(|now| Op::Expire { now }),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..60)
}

#[derive(Default)]
struct Model {
    agents: BTreeMap<(String, String), AgentRecord>,
    events: Vec<EventRow>,
    requests: BTreeMap<String, RequestRow>,
}

impl Model {
    fn owner(&self, tenant: &str, name: &str) -> Option<String> {
        self.agents
            .values()
            .find(|a| a.tenant.as_str() == tenant && a.name.as_str() == name)
            .map(|a| a.id.to_string())
    }
}

fn tenant_name(n: u8) -> &'static str {
    if n == 0 { "a" } else { "ab" }
}

fn step(store: &Store, model: &mut Model, op: &Op) {
    match *op {
        Op::Create { tenant, agent, name } => {
            // One id belongs to one tenant, as ULIDs do.
            let new =
                record(tenant_name(tenant), u64::from(agent) + 100 * u64::from(tenant), &format!("n{name}"));
            let key = (new.tenant.to_string(), new.id.to_string());
            if model.agents.contains_key(&key) {
                return;
            }
            let mut batch = Batch::new();
            batch.create_agent(&new, b"l", "m").unwrap();
            match store.commit(batch, Durability::Process) {
                Ok(()) => {
                    assert_eq!(model.owner(&key.0, new.name.as_str()), None);
                    model.agents.insert(key, new);
                }
                Err(Error::NameTaken { owner, .. }) => {
                    assert_eq!(model.owner(&key.0, new.name.as_str()), Some(owner));
                }
                Err(other) => panic!("{other}"),
            }
        }
        Op::Move { tenant, agent, state } => {
            let key =
                (tenant_name(tenant).to_owned(), id(u64::from(agent) + 100 * u64::from(tenant)).to_string());
            if let Some(record) = model.agents.get_mut(&key) {
                record.state = AgentState::ALL[usize::from(state)];
                let mut batch = Batch::bookkeeping();
                batch.put_agent(record).unwrap();
                store.commit(batch, Durability::Process).unwrap();
            }
        }
        Op::Remove { tenant, agent } => {
            let key =
                (tenant_name(tenant).to_owned(), id(u64::from(agent) + 100 * u64::from(tenant)).to_string());
            if let Some(record) = model.agents.remove(&key) {
                let mut batch = Batch::new();
                batch.remove_agent(&record);
                store.commit(batch, Durability::Host).unwrap();
            }
        }
        Op::Index { count, agent } => {
            let rows: Vec<_> = (0..u64::from(count))
                .map(|n| EventRow {
                    seq: model.events.len() as u64 + n + 1,
                    tenant: "a".into(),
                    agent: if n % 4 == 3 { String::new() } else { id(u64::from(agent)).to_string() },
                    kind: "proc.exec".into(),
                    ..EventRow::default()
                })
                .collect();
            let mut batch = Batch::bookkeeping();
            batch.index_events(&rows);
            store.commit(batch, Durability::Process).unwrap();
            model.events.extend(rows);
        }
        Op::Request { id, expires } => {
            let id = format!("r{id}");
            let row = RequestRow::pending(RequestHash::of("m", id.as_bytes()), None, u64::from(expires));
            let mut batch = Batch::new();
            batch.put_request(&RequestKey { tenant: tenant("a"), id: id.clone() }, &row);
            store.commit(batch, Durability::Process).unwrap();
            model.requests.insert(id, row);
        }
        Op::Expire { now } => {
            store.expire_requests(u64::from(now), 1000).unwrap();
            model.requests.retain(|_, row| row.expires_ns > u64::from(now));
        }
        Op::Reopen => {}
    }
}

fn compare(store: &Store, model: &Model) {
    let mut found = BTreeMap::new();
    store
        .each_agent(|a| {
            found.insert((a.tenant.to_string(), a.id.to_string()), a);
        })
        .unwrap();
    assert_eq!(found, model.agents);
    for name in ["a", "ab"] {
        let query = ListQuery {
            tenant: tenant(name),
            states: Vec::new(),
            name_prefix: String::new(),
            labels: BTreeMap::new(),
            after: None,
            limit: 1000,
        };
        let listed = store.list(&query).unwrap().agents;
        let want: Vec<_> = model.agents.values().filter(|a| a.tenant.as_str() == name).cloned().collect();
        assert_eq!(listed, want);
    }
    for agent in model.agents.values() {
        assert_eq!(store.agent_by_name(&agent.tenant, &agent.name).unwrap().as_ref(), Some(&agent.id));
    }
    assert_eq!(store.cursor().unwrap(), model.events.len() as u64);
    let mut query = EventQuery::of_tenant(tenant("a"), true);
    assert_eq!(store.events_after(&query, 0, 10_000, 10_000).unwrap().rows, model.events);
    for n in 0..12 {
        query.agents = vec![id(n)];
        let want: Vec<_> = model.events.iter().filter(|r| r.agent == id(n).as_str()).cloned().collect();
        assert_eq!(store.events_after(&query, 0, 10_000, 10_000).unwrap().rows, want);
        assert_eq!(store.newest_events(&query, 10_000, 10_000).unwrap(), want);
    }
    for n in 0..6u8 {
        let key = RequestKey { tenant: tenant("a"), id: format!("r{n}") };
        let want = model.requests.get(&key.id).filter(|row| row.expires_ns > 0).cloned();
        assert_eq!(store.request(&key, 0).unwrap(), want);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_its_model(ops in ops()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let mut model = Model::default();
        for op in &ops {
            if matches!(op, Op::Reopen) {
                drop(store);
                store = open(dir.path());
                compare(&store, &model);
            } else {
                step(&store, &mut model, op);
            }
        }
        compare(&store, &model);
    }
}
