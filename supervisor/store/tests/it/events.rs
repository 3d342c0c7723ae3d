//! The event index: order, filters, retention.

use std::time::Duration;

use aion_store::{Batch, Durability, Error, EventQuery, EventRow, KindPattern, Options, Store};

use crate::{id, open, options, record, tenant};

fn row(seq: u64, agent: u64, kind: &str) -> EventRow {
    EventRow {
        seq,
        time_ns: seq * 1000,
        tenant: "a".into(),
        agent: id(agent).to_string(),
        kind: kind.into(),
        verdict: if seq.is_multiple_of(2) { "denied".into() } else { "allowed".into() },
        detail_json: "{}".into(),
        ..EventRow::default()
    }
}

fn fill(store: &Store, seqs: std::ops::RangeInclusive<u64>) {
    let rows: Vec<_> = seqs
        .map(|seq| row(seq, seq % 3, if seq.is_multiple_of(5) { "net.bind" } else { "proc.exec" }))
        .collect();
    let mut batch = Batch::bookkeeping();
    batch.index_events(&rows);
    store.commit(batch, Durability::Process).unwrap();
}

fn all(store: &Store, query: &EventQuery, mut after: u64, limit: usize, budget: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let page = store.events_after(query, after, limit, budget).unwrap();
        assert!(page.rows.len() <= limit);
        seqs.extend(page.rows.iter().map(|r| r.seq));
        assert!(page.next_after >= after);
        if !page.more {
            return seqs;
        }
        assert!(page.next_after > after, "no progress at {after}");
        after = page.next_after;
    }
}

#[test]
fn pages_filters_and_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1..=300);
    assert_eq!(store.cursor().unwrap(), 300);
    let every = EventQuery::of_tenant(tenant("a"), true);
    assert_eq!(all(&store, &every, 0, 7, 10), (1..=300).collect::<Vec<_>>());
    assert_eq!(all(&store, &every, 290, 7, 1000), (291..=300).collect::<Vec<_>>());
    assert!(all(&store, &EventQuery::of_tenant(tenant("b"), true), 0, 7, 10).is_empty());

    let mut one = every.clone();
    one.agents = vec![id(1)];
    assert_eq!(all(&store, &one, 10, 7, 11), (11..=300).filter(|s| s % 3 == 1).collect::<Vec<_>>());
    one.kinds = vec![KindPattern::parse("net.*").unwrap()];
    one.verdicts = vec!["denied".into()];
    let want: Vec<u64> = (1..=300).filter(|s| s % 3 == 1 && s % 5 == 0 && s % 2 == 0).collect();
    assert_eq!(all(&store, &one, 0, 3, 1000), want);
    let newest: Vec<u64> = store.newest_events(&one, 4, 1000).unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(newest, want[want.len() - 4..]);
    one.agents.push(id(2));
    let want: Vec<u64> = (1..=300).filter(|s| s % 3 != 0 && s % 5 == 0 && s % 2 == 0).collect();
    assert_eq!(all(&store, &one, 0, 3, 16), want);
    let newest: Vec<u64> = store.newest_events(&one, 4, 1000).unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(newest, want[want.len() - 4..]);
    one.since_ns = Some(100_000);
    one.until_ns = Some(200_000);
    assert!(all(&store, &one, 0, 50, 1000).iter().all(|s| (100..=200).contains(s)));
}

#[test]
fn a_record_is_indexed_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 1..=5);
    let mut batch = Batch::bookkeeping();
    batch.index_events(&[row(5, 1, "proc.exec")]);
    let error = store.commit(batch, Durability::Process).unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { last: 5, found: 5 }));
    // A gap is no mistake of ours: the log may have been pruned meanwhile.
    fill(&store, 9..=10);
    assert_eq!(store.cursor().unwrap(), 10);
}

#[test]
fn retention_by_count_and_age() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(
        &dir.path().join("db"),
        Options { max_events: 1000, max_event_age: Duration::from_nanos(500_000), ..options() },
    )
    .unwrap();
    // Agent 1 still exists, agents 0 and 2 are gone.
    let mut batch = Batch::new();
    for n in 0..3 {
        batch.create_agent(&record("a", n, &format!("n{n}")), b"", "").unwrap();
    }
    batch.remove_agent(&record("a", 0, "n0"));
    batch.remove_agent(&record("a", 2, "n2"));
    store.commit(batch, Durability::Process).unwrap();
    fill(&store, 1..=3000);
    assert_eq!(store.trim_events(1_000_000).unwrap().oldest, 2001);
    assert_eq!(store.oldest_event().unwrap(), 2001);
    let every = EventQuery::of_tenant(tenant("a"), true);
    assert!(matches!(
        store.events_after(&every, 5, 10, 10),
        Err(Error::CursorExpired { wanted: 6, oldest: 2001 })
    ));
    assert_eq!(all(&store, &every, 2000, 100, 1000).len(), 1000);
    let mut one = every.clone();
    one.agents = vec![id(1)];
    assert_eq!(all(&store, &one, 2000, 100, 1000).first(), Some(&2002));
    assert_eq!(store.trim_events(1_000_000).unwrap().rows, 0, "trimming is done in steps");
    // By age: what is older than 500 us at 3.2 ms.
    assert_eq!(store.trim_events(3_200_000).unwrap().oldest, 2700);
    // Everything.
    let trimmed = store.trim_events(9_000_000).unwrap();
    assert_eq!(trimmed.oldest, 3001);
    assert_eq!(store.name_of(&tenant("a"), id(1).as_str()).unwrap().as_deref(), Some("n1"));
    assert_eq!(store.name_of(&tenant("a"), id(2).as_str()).unwrap(), None, "its last event is gone");
    assert_eq!(store.oldest_event().unwrap(), 3001);
    fill(&store, 3001..=3002);
    assert_eq!(all(&store, &every, 3000, 100, 1000), [3001, 3002]);
}
