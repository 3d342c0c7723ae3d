//! Checkpoints of all sizes, damaged ones, and ones that nobody committed.

use std::path::Path;
use std::sync::Arc;

use aion_task_journal::{Batch, Checkpoint, Error, Journal, Options};

use crate::{noise, open, small};

fn write(journal: &Arc<Journal>, task: u64, number: u32, data: &[u8]) -> Checkpoint {
    let mut writer = journal.checkpoint_writer(task, number).unwrap();
    for part in data.chunks(70_001) {
        writer.write(part).unwrap();
    }
    writer.finish().unwrap()
}

fn put(journal: &Arc<Journal>, task: u64, number: u32, data: &[u8]) {
    let mut batch = Batch::new();
    batch.checkpoint(&write(journal, task, number, data));
    journal.commit(batch).unwrap();
}

fn numbers(journal: &Journal, task: u64) -> Vec<u32> {
    journal.checkpoints(task).unwrap().iter().map(|info| info.number).collect()
}

#[test]
fn any_size_comes_back_and_two_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    let text = b"all work and no play ".repeat(200_000);
    let noise = noise(3 << 20, 7);
    let sizes = [0, 1, 1000, (256 << 10) - 1, 256 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20];
    let mut number = 0;
    for data in sizes.iter().flat_map(|&size| [&text[..size], &noise[..size]]) {
        number += 1;
        put(&journal, 5, number, data);
        assert!(journal.load_checkpoint(5, number).unwrap() == data, "{}", data.len());
        assert_eq!(numbers(&journal, 5), if number == 1 { vec![1] } else { vec![number - 1, number] });
    }
    put(&journal, 6, 1, b"another's");
    assert!(journal.check(|_, _| Ok(None)).is_ok());
    drop(journal);
    let journal = Arc::new(open(dir.path()));
    assert!(journal.load_checkpoint(5, number).unwrap() == noise);
    let mut batch = Batch::new();
    batch.drop_checkpoints(5, u32::MAX);
    journal.commit(batch).unwrap();
    assert_eq!((numbers(&journal, 5), numbers(&journal, 6)), (vec![], vec![1]));
    assert!(matches!(journal.load_checkpoint(5, number), Err(Error::CheckpointMissing { task: 5, .. })));
    journal.compact().unwrap();
    let blobs = journal.stats().unwrap().families.iter().find(|(name, ..)| *name == "blobs").unwrap().2;
    assert_eq!(blobs, 0, "the files of dropped checkpoints are gone");
    assert_eq!(journal.load_checkpoint(6, 1).unwrap(), b"another's");
}

#[test]
fn the_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { max_checkpoint_bytes: 2 << 20, ..small() };
    let journal = Arc::new(Journal::open(dir.path(), options).unwrap());
    let mut writer = journal.checkpoint_writer(1, 1).unwrap();
    writer.write(&vec![0; 2 << 20]).unwrap();
    assert!(matches!(writer.write(b"x"), Err(Error::CheckpointTooLarge { limit: 2_097_152 })));
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
}

fn tables(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .filter(|file| {
            file.path().extension().is_some_and(|e| e == "sst") && file.metadata().unwrap().len() > 1 << 20
        })
        .map(|file| file.path())
        .collect();
    files.sort();
    files
}

#[test]
fn a_damaged_one_is_named_and_the_one_before_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    let (first, second) = (noise(2 << 20, 1), noise(2 << 20, 2));
    put(&journal, 9, 1, &first);
    put(&journal, 9, 2, &second);
    drop(journal);
    let newest = tables(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let journal = Arc::new(open(dir.path()));
    let error = journal.load_checkpoint(9, 2).unwrap_err();
    assert!(matches!(error, Error::CheckpointCorrupt { task: 9, number: 2, .. }), "{error:?}");
    let (found, damaged) = journal.newest_checkpoint(9).unwrap();
    assert_eq!(found.unwrap().number, 1);
    assert_eq!(damaged.len(), 1);
    assert!(journal.load_checkpoint(9, 1).unwrap() == first);
    let checked = journal.check(|_, _| Ok(None));
    assert!(
        checked.problems.iter().any(|text| text.contains("checkpoint 2 of task 9")),
        "{:?}",
        checked.problems
    );
}

#[test]
fn what_was_never_committed_is_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(dir.path()));
    put(&journal, 1, 1, &noise(2 << 20, 1));
    write(&journal, 1, 2, &noise(2 << 20, 2));
    write(&journal, 2, 1, &noise(2 << 20, 3));
    // The same number a second time, as after a failed batch.
    put(&journal, 2, 1, &noise(2 << 20, 4));
    assert_eq!(tables(dir.path()).len(), 4);
    drop(journal);
    let journal = Arc::new(open(dir.path()));
    assert!(journal.load_checkpoint(1, 1).unwrap() == noise(2 << 20, 1));
    assert!(journal.load_checkpoint(2, 1).unwrap() == noise(2 << 20, 4));
    assert!(matches!(journal.load_checkpoint(1, 2), Err(Error::CheckpointMissing { .. })));
    assert!(journal.check(|_, _| Ok(None)).is_ok());
    drop(journal);
    assert_eq!(tables(dir.path()).len(), 2);
}
