//! Writing, tailing, rotation, retention.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use aion_audit::{Detail, Error, NewRecord, Options, Reader, Writer};

use crate::support::{Log, append, small};

#[test]
fn what_is_appended_is_read_and_verifies() {
    let log = Log::new();
    let mut writer = log.writer(small());
    for n in 1..=100 {
        assert_eq!(append(&mut writer, n), n);
    }
    assert_eq!(writer.sync().unwrap(), 100);
    let mut reader = Reader::open(&log.dir()).unwrap();
    assert_eq!(reader.last_seq().unwrap(), 100);
    let mut seen = Vec::new();
    while let Some(last) = {
        let page = reader.read_after(seen.len() as u64, 7).unwrap();
        seen.extend(page.iter().cloned());
        page.last().map(|r| r.seq)
    } {
        assert_eq!(last, seen.len() as u64);
    }
    assert_eq!(seen.len(), 100);
    for (record, n) in seen.iter().zip(1_u64..) {
        assert_eq!((record.seq, record.time_ns), (n, 1_700_000_000_000_000_000 + n));
        let detail: serde_json::Value = serde_json::from_str(&record.detail_json).unwrap();
        assert_eq!(detail["n"], n);
        assert_eq!(detail["argv"][1], "a\"b\n");
    }
    // Also while the writer has it open, and before any checkpoint.
    let report = log.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.records, 100);
    assert!(log.segments().len() > 5);
    drop(writer);
    assert!(log.verify().ok);
}

#[test]
fn any_number_is_found_in_any_segment() {
    let log = Log::filled(60);
    for seq in 0..62 {
        let page = Reader::open(&log.dir()).unwrap().read_after(seq, 3).unwrap();
        let expected: Vec<u64> = (seq + 1..=60).take(3).collect();
        assert_eq!(page.iter().map(|r| r.seq).collect::<Vec<_>>(), expected);
    }
    let mut reader = Reader::open(&log.dir()).unwrap();
    for seq in [50, 3, 59, 0, 60, 31] {
        assert_eq!(reader.read_after(seq, 1).unwrap().first().map(|r| r.seq), (seq < 60).then_some(seq + 1));
    }
}

#[test]
fn a_number_is_found_by_bytes_in_a_large_segment() {
    let log = Log::new();
    let mut writer = log.writer(Options::default());
    for n in 1..=20_000 {
        append(&mut writer, n);
    }
    writer.sync().unwrap();
    assert_eq!(log.segments().len(), 1);
    let mut reader = Reader::open(&log.dir()).unwrap();
    for seq in [0, 1, 777, 9_999, 10_000, 15_000, 19_990, 19_999] {
        let page = reader.read_after(seq, 2).unwrap();
        assert_eq!(page.first().map(|r| r.seq), Some(seq + 1));
    }
    assert_eq!(reader.last_seq().unwrap(), 20_000);
}

#[test]
fn a_reader_follows_the_writer_line_by_line() {
    let log = Log::new();
    let mut writer = log.writer(small());
    let mut reader = Reader::open(&log.dir()).unwrap();
    for n in 1..=50 {
        append(&mut writer, n);
        assert_eq!(
            reader.read_after(n - 1, 10).unwrap().len(),
            usize::from(n == 0),
            "gathered lines are not seen"
        );
        writer.flush().unwrap();
        let page = reader.read_after(n - 1, 10).unwrap();
        assert_eq!(page.iter().map(|r| r.seq).collect::<Vec<_>>(), [n]);
    }
}

#[test]
fn readers_and_verifier_run_beside_the_writer() {
    let log = Log::new();
    let mut writer = log.writer(Options { segment_max_bytes: 20_000, ..Options::default() });
    writer.sync().unwrap();
    let dir = log.dir();
    let key = log.key();
    std::thread::scope(|scope| {
        let tail = scope.spawn(|| {
            let mut reader = Reader::open(&dir).unwrap();
            let mut seq = 0;
            while seq < 5000 {
                for record in reader.read_after(seq, 100).unwrap() {
                    assert_eq!(record.seq, seq + 1);
                    seq = record.seq;
                }
            }
            assert_eq!(reader.damaged(), 0);
        });
        let check = scope.spawn(|| {
            for _ in 0..20 {
                let report = aion_audit::verify(&dir, Some(key)).unwrap();
                assert_eq!(report.faults, []);
            }
        });
        for n in 1..=5000 {
            append(&mut writer, n);
            if n % 50 == 0 {
                writer.flush().unwrap();
            }
            if n % 500 == 0 {
                writer.checkpoint().unwrap();
            }
        }
        writer.sync().unwrap();
        tail.join().unwrap();
        check.join().unwrap();
    });
}

#[test]
fn the_log_goes_on_after_it_was_closed() {
    let log = Log::filled(23);
    let mut writer = log.writer(small());
    assert_eq!((writer.last_seq(), writer.durable_seq()), (23, 23));
    assert_eq!(append(&mut writer, 24), 24);
    drop(writer);
    let report = log.verify();
    assert!(report.ok && report.notes.is_empty(), "{report:?}");
    assert_eq!(report.records, 24);
    // Opening and closing without a record adds nothing.
    let before = fs::read(log.segments().last().unwrap()).unwrap();
    drop(log.writer(small()));
    assert_eq!(fs::read(log.segments().last().unwrap()).unwrap(), before);
}

#[test]
fn one_writer_only_and_the_key_is_private() {
    let log = Log::new();
    let writer = log.writer(small());
    let second = Writer::open(&log.dir(), &log.key_path(), small());
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    drop(writer);
    assert_eq!(fs::metadata(log.key_path()).unwrap().permissions().mode() & 0o777, 0o600);
    for file in fs::read_dir(log.dir()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o640);
    }
    fs::set_permissions(log.key_path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Writer::open(&log.dir(), &log.key_path(), small()), Err(Error::KeyInvalid { .. })));
    fs::remove_file(log.key_path()).unwrap();
    assert!(matches!(Writer::open(&log.dir(), &log.key_path(), small()), Err(Error::KeyMissing { .. })));
}

#[test]
fn a_record_that_is_too_long_is_refused_and_nothing_else() {
    let log = Log::new();
    let mut writer = log.writer(small());
    let long = "x".repeat(5000);
    assert!(matches!(
        writer.append(&NewRecord { rule: &long, ..NewRecord::default() }),
        Err(Error::TooLong { field: "rule", .. })
    ));
    // The worst that is accepted: every byte of every field becomes six.
    let (worst, detail) = ("\u{1}".repeat(4096), format!("{{\"a\":\"{}\"}}", "\\u0001".repeat(10_000)));
    let new = NewRecord {
        tenant: &worst,
        agent: &worst,
        task: &worst,
        trace: &worst,
        kind: &worst,
        verdict: &worst,
        rule: &worst,
        detail: Detail::parse(&detail).unwrap(),
        time_ns: 0,
    };
    assert_eq!(writer.append(&new).unwrap(), 1);
    assert_eq!(append(&mut writer, 2), 2);
    writer.sync().unwrap();
    let page = Reader::open(&log.dir()).unwrap().read_after(0, 10).unwrap();
    assert_eq!(page.len(), 2);
    assert_eq!(page[0].trace, worst);
    assert!(log.verify().ok);
}

#[test]
fn time_does_not_run_backwards_by_a_little() {
    let log = Log::new();
    let mut writer = log.writer(small());
    for time_ns in [5_000_000_000, 4_999_999_000, 5_000_000_001, 1_000_000_000] {
        writer.append(&NewRecord { time_ns, ..NewRecord::default() }).unwrap();
    }
    writer.sync().unwrap();
    let page = Reader::open(&log.dir()).unwrap().read_after(0, 10).unwrap();
    let times: Vec<u64> = page.iter().map(|r| r.time_ns).collect();
    assert_eq!(times, [5_000_000_000, 5_000_000_000, 5_000_000_001, 1_000_000_000]);
}

#[test]
fn pruning_leaves_a_statement_and_verify_says_from_where() {
    let log = Log::new();
    let mut writer = log.writer(small());
    for n in 1..=60 {
        append(&mut writer, n);
    }
    let mut tail = Reader::open(&log.dir()).unwrap();
    tail.read_after(0, 1).unwrap();
    let before = log.segments().len();
    let pruned = writer.prune_to(8000).unwrap();
    assert!(pruned.segments > 2 && log.segments().len() < before, "{pruned:?}");
    assert_eq!(writer.prune_to(1 << 20).unwrap().segments, 0);
    append(&mut writer, 61);
    drop(writer);
    let report = log.verify();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.first_seq, pruned.first_seq);
    let mut reader = Reader::open(&log.dir()).unwrap();
    assert_eq!(reader.first_seq().unwrap(), pruned.first_seq);
    assert_eq!(reader.read_after(0, 1).unwrap()[0].seq, pruned.first_seq);
    let next = tail.read_after(1, 1000).unwrap();
    assert_eq!(next.last().unwrap().seq, 62);

    // Without its statement the same log is a log with segments removed.
    fs::remove_file(log.dir().join("BASE")).unwrap();
    assert!(!log.verify().ok);
}

#[test]
fn pruning_that_was_interrupted_is_finished_at_the_next_start() {
    let log = Log::new();
    let mut writer = log.writer(small());
    for n in 1..=40 {
        append(&mut writer, n);
    }
    let first = fs::read(log.segment(1)).unwrap();
    writer.prune_to(5000).unwrap();
    drop(writer);
    fs::write(log.segment(1), first).unwrap();
    assert!(log.verify().ok, "left over segments are not part of the log");
    drop(log.writer(small()));
    assert!(!log.segment(1).exists());
    assert!(log.verify().ok);
}
