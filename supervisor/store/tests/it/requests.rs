//! Request ids.

use aion_store::{Batch, Durability, RequestHash, RequestKey, RequestRow, StoredOutcome};

use crate::{open, tenant};

#[test]
fn rows_live_for_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = RequestKey { tenant: tenant("a"), id: "r1".into() };
    let hash = RequestHash::of("Start", b"x");
    assert_ne!(hash, RequestHash::of("Stop", b"x"));
    let mut row = RequestRow::pending(hash, Some("agent".into()), 100);
    let put = |row: &RequestRow| {
        let mut batch = Batch::new();
        batch.put_request(&key, row);
        store.commit(batch, Durability::Process).unwrap();
    };
    put(&row);
    assert_eq!(store.request(&key, 99).unwrap(), Some(row.clone()));
    assert_eq!(store.request(&key, 100).unwrap(), None);
    let other = RequestKey { tenant: tenant("b"), ..key.clone() };
    assert_eq!(store.request(&other, 0).unwrap(), None);

    row.outcome = Some(StoredOutcome::Err { code: 5, message: "no".into(), details: vec![1] });
    put(&row);
    assert_eq!(store.request(&key, 0).unwrap(), Some(row.clone()));
    row.outcome = Some(StoredOutcome::Ok(Vec::new()));
    put(&row);
    assert_eq!(store.request(&key, 0).unwrap().unwrap().outcome, Some(StoredOutcome::Ok(Vec::new())));

    // The id is used again before the old expiry row is swept.
    row.expires_ns = 500;
    put(&row);
    assert_eq!(store.expire_requests(200, 10).unwrap(), 1);
    assert!(store.request(&key, 200).unwrap().is_some());
    assert_eq!(store.expire_requests(600, 10).unwrap(), 1);
    assert_eq!(store.request(&key, 0).unwrap(), None);
    assert_eq!(store.expire_requests(u64::MAX, 10).unwrap(), 0);
}

#[test]
fn a_forgotten_request_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = RequestKey { tenant: tenant("a"), id: "r1".into() };
    let mut batch = Batch::new();
    batch.put_request(&key, &RequestRow::pending(RequestHash::of("a", b""), None, 9));
    store.commit(batch, Durability::Process).unwrap();
    let mut batch = Batch::new();
    batch.forget_request(&key);
    store.commit(batch, Durability::Process).unwrap();
    assert_eq!(store.request(&key, 0).unwrap(), None);
}
