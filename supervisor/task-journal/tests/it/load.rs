//! A load whose state is a function of how many commits there were, so that what a crash left can be compared.
//!
//! Commit n submits task n and ends task n - 20. It writes events 2n - 1 and 2n. Every 5th task has a checkpoint, every
//! 20th a large one as well; ended tasks are dropped now and then.

use std::sync::Arc;

use aion_task_journal::{Batch, EndedTask, Journal, Retention, RowRefs};

use crate::{noise, rows};

pub(crate) const LIVE: u64 = 20;
const KEPT: u64 = 40;

fn key(task: u64) -> Vec<u8> {
    [&b"t"[..], &task.to_be_bytes()].concat()
}

fn value(task: u64, last_event: u64) -> Vec<u8> {
    [&task.to_be_bytes()[..], &last_event.to_be_bytes(), &noise(task as usize % 300, task)].concat()
}

fn checkpoint(n: u64, number: u32) -> Vec<u8> {
    if number == 2 { noise((1 << 20) + 4000, n) } else { noise(20_000, n) }
}

/// Commits until it has done number `n` and says what is on disk.
pub(crate) fn step(journal: &Arc<Journal>, n: u64) {
    let mut batch = Batch::new();
    batch.admits_work();
    batch.put_row(b"count", &n.to_be_bytes());
    batch.put_row(&key(n), &value(n, 2 * n - 1));
    batch.body(n, &noise(n as usize * 37 % 2000, n));
    batch.event(2 * n - 1, n, 0, b"submitted");
    if n > LIVE {
        let task = n - LIVE;
        batch.event(2 * n, task, 2 * task - 1, b"succeeded");
        batch.result(task, &task.to_be_bytes());
        let (key, value) = (key(task), value(task, 2 * n));
        batch.end_task(EndedTask { task, ended_ms: n, last_event: 2 * n }, &[(&key, &value)]);
        if task.is_multiple_of(2) {
            batch.drop_checkpoints(task, u32::MAX);
        }
    } else {
        batch.event(2 * n, 0, 0, b"nothing");
    }
    for number in numbers(n) {
        let mut writer = journal.checkpoint_writer(n, number).unwrap();
        for part in checkpoint(n, number).chunks(60_000) {
            writer.write(part).unwrap();
        }
        batch.checkpoint(&writer.finish().unwrap());
    }
    journal.commit(batch).unwrap();
    if n.is_multiple_of(32) {
        let retention = Retention { now_ms: n, max_age_ms: u64::MAX, max_tasks: KEPT };
        while journal.prune(&retention, 7).unwrap().more {}
    }
}

fn numbers(n: u64) -> impl Iterator<Item = u32> {
    n.is_multiple_of(5).then_some(1).into_iter().chain(n.is_multiple_of(20).then_some(2))
}

pub(crate) fn count(journal: &Journal) -> u64 {
    journal.row(b"count").unwrap().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Option<RowRefs>, String> {
    if key == b"count" {
        return Ok(None);
    }
    let number = |at: usize| value.get(at..at + 8).map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    let (task, last_event) = number(0).zip(number(8)).ok_or("too short")?;
    Ok(Some(RowRefs { task, last_event }))
}

/// Everything is as it must be after the commits that are there; how many that is.
pub(crate) fn verify(journal: &Journal) -> u64 {
    let n = count(journal);
    assert_eq!(journal.last_event(), 2 * n);
    let checked = journal.check(decode);
    assert!(checked.is_ok(), "{:#?}", checked.problems);
    let first = n.saturating_sub(LIVE) + 1;
    let live: Vec<_> = (first..=n).map(|task| (key(task), value(task, 2 * task - 1))).collect();
    let found: Vec<_> = rows(journal).into_iter().filter(|(key, _)| key != b"count").collect();
    assert!(found == live, "{} rows after {n} commits", found.len());
    for task in first..=n {
        assert_eq!(journal.body(task).unwrap().unwrap(), noise(task as usize * 37 % 2000, task));
        for number in numbers(task) {
            assert!(journal.load_checkpoint(task, number).unwrap() == checkpoint(task, number));
        }
    }
    for task in (1..first).rev().take(KEPT as usize) {
        let last = 2 * (task + LIVE);
        assert_eq!(journal.ended_row(&key(task)).unwrap().unwrap(), value(task, last));
        assert_eq!(journal.result(task).unwrap().unwrap(), task.to_be_bytes());
        let seqs: Vec<_> = journal.history(last, 10).unwrap().events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [last, 2 * task - 1]);
    }
    let page = journal.ended_before(None, 1000).unwrap();
    // A cut may have come between a commit and the retention after it.
    assert!(page.tasks.len() as u64 <= KEPT + 10 * 32);
    assert!(page.tasks.first().is_none_or(|task| task.task == n - LIVE));
    assert_eq!(checked.events, journal.events_after(0, usize::MAX).unwrap().events.len() as u64);
    n
}
