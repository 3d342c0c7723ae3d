//! Export and import, journals that cannot be opened, and logs that end in pieces.

use std::sync::Arc;

use aion_task_journal::{Error, Journal, Options};

use crate::{load, open, small};

fn exported(journal: &Journal) -> Vec<u8> {
    let mut bytes = Vec::new();
    let done = journal.export(&mut bytes).unwrap();
    assert_eq!(done.bytes, bytes.len() as u64);
    bytes
}

#[test]
fn a_journal_goes_over_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(&dir.path().join("one")));
    for n in 1..=130 {
        load::step(&journal, n);
    }
    let bytes = exported(&journal);
    let other = dir.path().join("two");
    Journal::import(&other, &small(), bytes.as_slice()).unwrap();
    let reader = Journal::open_read_only(&other, small()).unwrap();
    assert_eq!(reader.epoch(), journal.epoch());
    assert!(exported(&reader) == bytes);
    assert!(matches!(reader.commit(aion_task_journal::Batch::new()), Err(Error::Failed)));
    drop(reader);
    assert!(matches!(Journal::import(&other, &small(), bytes.as_slice()), Err(Error::NotEmpty { .. })));
    let imported = Arc::new(open(&other));
    assert_eq!(imported.epoch(), journal.epoch() + 1);
    assert_eq!(load::verify(&imported), 130);
    load::step(&imported, 131);
    imported.compact().unwrap();
    assert_eq!(load::verify(&imported), 131);
}

#[test]
fn a_damaged_export_makes_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(&dir.path().join("one")));
    for n in 1..=30 {
        load::step(&journal, n);
    }
    let bytes = exported(&journal);
    let other = dir.path().join("two");
    for at in [0, 12, 16, 17, 21, 500, bytes.len() / 2, bytes.len() - 40, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let error = Journal::import(&other, &small(), damaged.as_slice()).unwrap_err();
        assert!(matches!(error, Error::Import { .. } | Error::SchemaTooNew { .. }), "{at}: {error:?}");
        assert!(!other.exists());
    }
    assert!(matches!(
        Journal::import(&other, &small(), &bytes[..bytes.len() / 3]),
        Err(Error::Import { .. })
    ));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn one_process_at_a_time_and_nothing_newer() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    assert!(matches!(Journal::open(dir.path(), small()), Err(Error::Locked { .. })));
    assert_eq!(Journal::open_read_only(dir.path(), small()).unwrap().epoch(), 1);
    drop(journal);
    assert_eq!(open(dir.path()).epoch(), 2);

    let mut options = rocksdb::Options::default();
    options.create_missing_column_families(true);
    let mut families = rocksdb::DB::list_cf(&options, dir.path()).unwrap();
    families.push("of_tomorrow".to_owned());
    let db = rocksdb::DB::open_cf(&options, dir.path(), families).unwrap();
    db.put_cf(db.cf_handle("meta").unwrap(), "schema", 7u64.to_be_bytes()).unwrap();
    drop(db);
    for error in [Journal::open(dir.path(), small()), Journal::open_read_only(dir.path(), small())] {
        assert!(matches!(error, Err(Error::SchemaTooNew { found: 7, supported: 1 })), "{error:?}");
    }
}

/// The newest log with one of its bytes changed, counted from its end.
fn damage(dir: &std::path::Path, from_end: usize) {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|file| file.path());
    let log = files.filter(|file| file.extension().is_some_and(|e| e == "log")).max().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(log, bytes).unwrap();
}

#[test]
fn a_last_record_in_pieces_is_left_out_and_a_damaged_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Large enough that all of it is in one log.
    let options = Options { reserve_bytes: 0, admit_bytes: 0, ..Options::default() };
    let open = |path| Journal::open(path, options.clone()).unwrap();
    let commit = |n: u64| {
        let journal = open(dir.path());
        let mut batch = aion_task_journal::Batch::new();
        batch.put_row(&n.to_be_bytes(), &crate::noise(70_000, n));
        batch.event(n, n, 0, b"x");
        journal.commit(batch).unwrap();
    };
    commit(1);
    commit(2);
    damage(dir.path(), 50_000);
    for _ in 0..2 {
        let journal = open(dir.path());
        assert_eq!(journal.last_event(), 1);
        assert!(journal.row(&1u64.to_be_bytes()).unwrap().is_some());
        assert!(journal.row(&2u64.to_be_bytes()).unwrap().is_none());
    }
    commit(2);
    {
        let journal = open(dir.path());
        for n in 3..6 {
            let mut batch = aion_task_journal::Batch::new();
            batch.event(n, n, 0, &crate::noise(10_000, n));
            journal.commit(batch).unwrap();
        }
    }
    damage(dir.path(), 25_000);
    for _ in 0..2 {
        assert!(matches!(Journal::open(dir.path(), options.clone()), Err(Error::Open { .. })));
    }
}
