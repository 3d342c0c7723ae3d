//! Any sequence of commits, retention and restarts gives what a simple model gives.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use aion_task_journal::{Batch, EndedTask, Journal, Retention};
use proptest::prelude::*;

use crate::{open, rows};

#[derive(Debug, Clone)]
enum Step {
    /// Writes to tasks of these numbers: a row with an event, a body, a checkpoint.
    Commit(Vec<(u64, u8, bool)>),
    End(u64),
    Delete(u64),
    Gap,
    Prune {
        age: u64,
        keep: u64,
        limit: usize,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec((1..12u64, any::<u8>(), any::<bool>()), 1..6).prop_map(Step::Commit),
        3 => (1..12u64).prop_map(Step::End),
        1 => (1..12u64).prop_map(Step::Delete),
        1 => Just(Step::Gap),
        2 => (0..20u64, 0..6u64, 1..4usize).prop_map(|(age, keep, limit)| Step::Prune { age, keep, limit }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Task {
    row: Vec<u8>,
    events: Vec<u64>,
    body: Option<Vec<u8>>,
    checkpoints: BTreeMap<u32, Vec<u8>>,
    made: u32,
}

#[derive(Default)]
struct Model {
    live: BTreeMap<u64, Task>,
    /// By time of the end and task.
    ended: BTreeMap<(u64, u64), Task>,
    seq: u64,
    now: u64,
    /// Numbers of tasks that were given.
    tasks: u64,
    /// The number that a name stands for until its task ends.
    names: BTreeMap<u64, u64>,
}

impl Model {
    fn task(&mut self, name: u64) -> u64 {
        *self.names.entry(name).or_insert_with(|| {
            self.tasks += 1;
            self.tasks
        })
    }
}

fn key(task: u64) -> Vec<u8> {
    [b"t", &task.to_be_bytes()[..]].concat()
}

fn apply(journal: &Arc<Journal>, model: &mut Model, step: &Step) {
    model.now += 1;
    match step {
        Step::Commit(writes) => {
            let mut batch = Batch::new();
            for &(name, byte, checkpoint) in writes {
                let task = model.task(name);
                let entry = model.live.entry(task).or_default();
                model.seq += 1;
                batch.event(model.seq, task, entry.events.last().copied().unwrap_or(0), &[byte]);
                entry.events.push(model.seq);
                entry.row = vec![byte; usize::from(byte) + 1];
                batch.put_row(&key(task), &entry.row);
                if byte % 3 == 0 {
                    entry.body = Some(vec![byte; usize::from(byte) * 200]);
                    batch.body(task, entry.body.as_ref().unwrap());
                }
                if checkpoint && writes.iter().filter(|write| write.0 == name).count() == 1 {
                    entry.made += 1;
                    let data = crate::noise(usize::from(byte) * 1000, u64::from(byte));
                    let mut writer = journal.checkpoint_writer(task, entry.made).unwrap();
                    writer.write(&data).unwrap();
                    batch.checkpoint(&writer.finish().unwrap());
                    entry.checkpoints.insert(entry.made, data);
                    while entry.checkpoints.len() > 2 {
                        entry.checkpoints.pop_first();
                    }
                }
            }
            journal.commit(batch).unwrap();
        }
        Step::End(name) => {
            let Some(task) = model.names.remove(name) else { return };
            let Some(mut entry) = model.live.remove(&task) else { return };
            let mut batch = Batch::new();
            model.seq += 1;
            batch.event(model.seq, task, entry.events.last().copied().unwrap_or(0), b"end");
            entry.events.push(model.seq);
            entry.row.push(0);
            let ended = EndedTask { task, ended_ms: model.now, last_event: model.seq };
            batch.end_task(ended, &[(&key(task), &entry.row), (&[b"n", &key(task)[..]].concat(), b"name")]);
            batch.result(task, b"result");
            journal.commit(batch).unwrap();
            model.ended.insert((model.now, task), entry);
        }
        Step::Delete(name) => {
            // A row that is no task's.
            let mut batch = Batch::new();
            batch.put_row(&[b'x', *name as u8], b"x");
            batch.delete_row(&[b'x', *name as u8]);
            journal.commit(batch).unwrap();
        }
        Step::Gap => {
            let mut batch = Batch::new();
            batch.put_row(b"never", b"never");
            batch.event(model.seq + 2, 1, 0, b"");
            journal.commit(batch).unwrap_err();
        }
        Step::Prune { age, keep, limit } => {
            let retention = Retention { now_ms: model.now, max_age_ms: *age, max_tasks: *keep };
            let mut pruned = 0;
            loop {
                let step = journal.prune(&retention, *limit).unwrap();
                pruned += step.tasks;
                if !step.more {
                    break;
                }
            }
            let before = model.ended.len();
            while let Some((&(at, task), _)) = model.ended.first_key_value() {
                if model.ended.len() as u64 <= *keep && at >= model.now.saturating_sub(*age) {
                    break;
                }
                model.ended.remove(&(at, task));
            }
            assert_eq!(pruned, (before - model.ended.len()) as u64);
        }
        Step::Reopen => {}
    }
}

fn compare(journal: &Journal, model: &Model) {
    let expected: Vec<_> = model.live.iter().map(|(task, entry)| (key(*task), entry.row.clone())).collect();
    assert_eq!(rows(journal), expected);
    assert_eq!(journal.last_event(), model.seq);
    let page = journal.ended_before(None, usize::MAX).unwrap();
    let ended: Vec<_> = page.tasks.iter().rev().map(|task| (task.ended_ms, task.task)).collect();
    assert_eq!(ended, model.ended.keys().copied().collect::<Vec<_>>());
    let mut seqs: Vec<u64> = Vec::new();
    for (task, entry, over) in model
        .live
        .iter()
        .map(|(task, entry)| (task, entry, false))
        .chain(model.ended.iter().map(|((_, task), entry)| (task, entry, true)))
    {
        assert_eq!(journal.body(*task).unwrap(), entry.body);
        assert_eq!(journal.ended_row(&key(*task)).unwrap(), over.then(|| entry.row.clone()));
        assert_eq!(journal.result(*task).unwrap().is_some(), over);
        let last = *entry.events.last().unwrap();
        let history = journal.history(last, usize::MAX).unwrap();
        assert!(history.events.iter().rev().map(|event| event.seq).eq(entry.events.iter().copied()));
        let middle = entry.events[entry.events.len() / 2];
        let after = journal.history_after(last, middle, 2).unwrap();
        let expected: Vec<_> = entry.events.iter().copied().filter(|seq| *seq > middle).collect();
        assert!(after.events.iter().map(|event| event.seq).eq(expected.iter().copied().take(2)));
        assert_eq!(after.end, expected.len() <= 2);
        let found: Vec<_> = journal.checkpoints(*task).unwrap().iter().map(|info| info.number).collect();
        assert_eq!(found, entry.checkpoints.keys().copied().collect::<Vec<_>>());
        for (number, data) in &entry.checkpoints {
            assert!(journal.load_checkpoint(*task, *number).unwrap() == *data);
        }
        seqs.extend(&entry.events);
    }
    seqs.sort_unstable();
    let mut found = Vec::new();
    let mut next = 0;
    loop {
        let page = journal.events_after(next, 7).unwrap();
        found.extend(page.events.iter().map(|event| event.seq));
        next = page.next;
        if page.end {
            break;
        }
    }
    assert_eq!(found, seqs);
    let checked = journal.check(|_, _| Ok(None));
    assert!(checked.is_ok(), "{:?}", checked.problems);
}

fn run(dir: &Path, steps: &[Step]) {
    let mut journal = Arc::new(open(dir));
    let mut model = Model::default();
    for step in steps {
        apply(&journal, &mut model, step);
        if matches!(step, Step::Reopen) {
            let epoch = journal.epoch();
            drop(journal);
            journal = Arc::new(open(dir));
            assert_eq!(journal.epoch(), epoch + 1);
            compare(&journal, &model);
        }
    }
    compare(&journal, &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_is_what_the_model_is(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &steps);
    }
}
