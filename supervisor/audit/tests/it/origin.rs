//! A log that goes on from another's last record, with a key of its own.

use std::fs;

use aion_audit::{Error, Origin, Reader, Writer, verify};
use serde_json::json;

use crate::support::{Log, append, small};

/// The log before, and the folder of one that is to go on from it.
fn continued() -> (Log, Log, Origin) {
    let (old, new) = (Log::filled(33), Log::new());
    let last = old.verify().last.unwrap();
    let detail = json!({"archive": "audit-archive/x"}).as_object().cloned().unwrap();
    let origin = Origin { seq: last.seq, hash: last.hash, detail };
    fs::create_dir(new.dir()).unwrap();
    origin.write(&new.dir(), None).unwrap();
    (old, new, origin)
}

#[test]
fn it_goes_on_with_the_next_number_and_says_from_where() {
    let (old, new, origin) = continued();
    let mut writer = new.writer(small());
    for n in 1..=40 {
        append(&mut writer, n);
    }
    drop(writer);
    // A second opening changes nothing of it.
    append(&mut new.writer(small()), 41);

    let report = new.verify();
    assert_eq!((report.faults.as_slice(), report.first_seq, report.records), (&[][..], 34, 42));
    let mut reader = Reader::open(&new.dir()).unwrap();
    let first = reader.read_after(0, 1).unwrap().remove(0);
    assert_eq!((first.seq, first.kind.as_str()), (34, "audit.continued"));
    let detail: serde_json::Value = serde_json::from_str(&first.detail_json).unwrap();
    assert_eq!(
        detail,
        json!({"seq": 33, "hash": origin.hash.to_string(), "archive": "audit-archive/x"}),
        "it names the record that the old log's verification names"
    );
    assert_eq!(reader.read_after(70, 9).unwrap().len(), 5);
    assert_ne!(new.key(), old.key());
}

#[test]
fn its_beginning_cannot_be_taken_off_or_changed_unseen() {
    let (_, new, origin) = continued();
    drop(new.writer(small()));
    fs::remove_file(new.dir().join("BASE")).unwrap();
    assert!(!new.verify().ok, "nothing says why it does not begin with 1");

    let (_, new, _) = continued();
    drop(new.writer(small()));
    // What is unsigned counts no more.
    Origin { seq: 90, ..origin }.write(&new.dir(), None).unwrap();
    assert_eq!(append(&mut new.writer(small()), 1), 35);
    assert!(verify(&new.dir(), Some(new.key())).unwrap().ok);
}

#[test]
fn a_start_that_was_cut_off_is_begun_again() {
    let (_, new, _) = continued();
    drop(new.writer(small()));
    // As after a power cut between BASE and the first segment.
    for file in ["0000000001.seg", "HEAD"] {
        fs::remove_file(new.dir().join(file)).unwrap();
    }
    assert_eq!(append(&mut new.writer(small()), 1), 35);
    assert!(new.verify().ok);
}

#[test]
fn one_that_cannot_be_read_is_no_reason_to_begin_with_1() {
    let log = Log::new();
    fs::create_dir(log.dir()).unwrap();
    fs::write(log.dir().join("ORIGIN"), "{\"seq\":7,\"hash\":\"xx\"}").unwrap();
    let refused = Writer::open(&log.dir(), &log.key_path(), small());
    assert!(matches!(refused, Err(Error::OriginInvalid { .. })));
}
