//! Export and import, and journals that cannot be opened.

use std::sync::Arc;

use aion_task_journal::{Error, Journal};

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
