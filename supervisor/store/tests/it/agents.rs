//! Agents and names.

use std::collections::BTreeMap;

use aion_store::{AgentState, Batch, Durability, Error, ListQuery};

use crate::{id, open, record, tenant};

#[test]
fn a_name_belongs_to_one_agent_of_a_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let create = |record| {
        let mut batch = Batch::new();
        batch.create_agent(&record, b"launch", "manifest: 1").unwrap();
        store.commit(batch, Durability::Process)
    };
    let first = record("a", 1, "x");
    create(first.clone()).unwrap();
    assert!(
        matches!(create(record("a", 2, "x")), Err(Error::NameTaken { owner, .. }) if owner == id(1).as_str())
    );
    assert!(store.agent(&tenant("a"), &id(2)).unwrap().is_none(), "nothing of a refused batch is there");
    create(record("b", 3, "x")).unwrap();

    assert_eq!(store.agent(&tenant("a"), &id(1)).unwrap(), Some(first.clone()));
    assert_eq!(store.agent(&tenant("b"), &id(1)).unwrap(), None);
    assert_eq!(store.agent_by_name(&tenant("a"), &first.name).unwrap(), Some(id(1)));
    assert_eq!(store.launch_of(&tenant("a"), &id(1)).unwrap().as_deref(), Some(&b"launch"[..]));
    assert_eq!(store.manifest_of(&tenant("a"), &id(1)).unwrap().as_deref(), Some("manifest: 1"));

    let mut batch = Batch::new();
    batch.remove_agent(&first);
    store.commit(batch, Durability::Process).unwrap();
    assert_eq!(store.agent_by_name(&tenant("a"), &first.name).unwrap(), None);
    // Events may still name it.
    assert_eq!(store.name_of(&tenant("a"), id(1).as_str()).unwrap().as_deref(), Some("x"));
    assert_eq!(store.name_of(&tenant("b"), id(1).as_str()).unwrap(), None);
    create(record("a", 4, "x")).unwrap();
}

#[test]
fn what_an_agent_was_made_from_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let made = record("a", 1, "x-1-1");
    let mut batch = Batch::new();
    batch.create_agent(&made, b"launch", "").unwrap();
    batch.made_from(&made, "manifest: 1");
    store.commit(batch, Durability::Process).unwrap();
    assert_eq!(store.origin_of(&tenant("a"), &id(1)).unwrap().as_deref(), Some("manifest: 1"));
    // It is no manifest of its own, by which it could speak.
    assert_eq!(store.manifest_of(&tenant("a"), &id(1)).unwrap().as_deref(), Some(""));
    assert_eq!(store.origin_of(&tenant("b"), &id(1)).unwrap(), None);

    let mut batch = Batch::new();
    batch.remove_agent(&made);
    store.commit(batch, Durability::Process).unwrap();
    assert_eq!(store.origin_of(&tenant("a"), &id(1)).unwrap(), None);
}

#[test]
fn replacing_frees_and_takes_the_name_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = record("a", 1, "x");
    let mut batch = Batch::new();
    batch.create_agent(&old, b"", "").unwrap();
    store.commit(batch, Durability::Host).unwrap();
    let new = record("a", 2, "x");
    let mut batch = Batch::new();
    batch.replace_agent(&old, &new, b"", "").unwrap();
    store.commit(batch, Durability::Host).unwrap();
    assert_eq!(store.agent_by_name(&tenant("a"), &new.name).unwrap(), Some(id(2)));
    assert_eq!(store.agent(&tenant("a"), &id(1)).unwrap(), None);
}

#[test]
fn pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..10 {
        let mut batch = Batch::new();
        let mut agent = record("a", n, &format!("agent-{n}"));
        if n >= 5 {
            agent.state = AgentState::Running;
        }
        batch.create_agent(&agent, b"", "").unwrap();
        batch.create_agent(&record("ab", 100 + n, &format!("agent-{n}")), b"", "").unwrap();
        store.commit(batch, Durability::Process).unwrap();
    }
    let mut query = ListQuery {
        tenant: tenant("a"),
        states: Vec::new(),
        name_prefix: String::new(),
        labels: BTreeMap::new(),
        after: None,
        limit: 4,
    };
    let mut seen = Vec::new();
    loop {
        let page = store.list(&query).unwrap();
        seen.extend(page.agents.iter().map(|a| a.id.clone()));
        query.after = page.agents.last().map(|a| a.id.clone());
        if !page.more {
            break;
        }
        assert_eq!(page.agents.len(), 4);
    }
    assert_eq!(seen, (0..10).map(id).collect::<Vec<_>>());
    query.after = None;
    query.limit = 100;
    query.states = vec![AgentState::Running];
    assert_eq!(store.list(&query).unwrap().agents.len(), 5);
    query.labels = BTreeMap::from([("n".into(), "0".into())]);
    assert_eq!(store.list(&query).unwrap().agents.len(), 2);
    query.name_prefix = "agent-9".into();
    assert_eq!(store.list(&query).unwrap().agents.len(), 1);
    let mut all = 0;
    store.each_agent(|_| all += 1).unwrap();
    assert_eq!(all, 20);
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let names = ["agents", "names", "events", "requests", "meta", "kernel", "memory", "decisions"];
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.path().join("db"), names).unwrap();
    let mut value = vec![1];
    value.extend_from_slice(&9u64.to_be_bytes());
    db.put_cf(db.cf_handle("meta").unwrap(), b"schema", value).unwrap();
    drop(db);
    let error = aion_store::Store::open(&dir.path().join("db"), crate::options()).unwrap_err();
    assert!(matches!(error, Error::SchemaTooNew { found: 9, supported: 1 }), "{error}");
}
