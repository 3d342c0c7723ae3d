//! The writer's thread: order, merging, and every outcome told once.

use std::sync::{Arc, Mutex};

use aion_task_journal::{Batch, Error, Writer, WriterOptions};

use crate::{open, rows};

#[test]
fn batches_are_written_in_order_and_together() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    let writer = Writer::start(Arc::clone(&journal), WriterOptions { max_bytes: 4000, queue: 64 }).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    for n in 1..=500u64 {
        let mut batch = Batch::new();
        batch.put_row(b"last", &n.to_be_bytes());
        batch.put_row(&n.to_be_bytes(), &[1; 100]);
        batch.event(n, 1, n - 1, b"x");
        let told = Arc::clone(&told);
        writer.submit(batch, move |result| {
            result.unwrap();
            told.lock().unwrap().push(n);
        });
    }
    drop(writer);
    assert_eq!(*told.lock().unwrap(), (1..=500).collect::<Vec<_>>());
    assert_eq!(journal.row(b"last").unwrap().unwrap(), 500u64.to_be_bytes());
    assert_eq!(rows(&journal).len(), 501);
    let commits = journal.stats().unwrap().commits;
    assert!(commits < 500, "{commits} writes for 500 batches");
    assert!(commits >= 500 * 100 / 4200);
}

#[test]
fn what_builds_on_a_refused_batch_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    let writer = Writer::start(Arc::clone(&journal), WriterOptions::default()).unwrap();
    let (outcomes, outcome) = std::sync::mpsc::channel();
    let submit = |seq: u64| {
        let mut batch = Batch::new();
        batch.event(seq, 1, seq - 1, b"x");
        let outcomes = outcomes.clone();
        writer.submit(batch, move |result| outcomes.send(result.map_err(|e| e.to_string())).unwrap());
        outcome.recv().unwrap()
    };
    submit(1).unwrap();
    assert_eq!(submit(3).unwrap_err(), Error::OutOfOrder { last: 1, found: 3 }.to_string());
    submit(2).unwrap_err();
    writer.recover().unwrap();
    submit(2).unwrap();
    assert_eq!(journal.last_event(), 2);
}
