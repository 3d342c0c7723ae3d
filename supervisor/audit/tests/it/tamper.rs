//! What somebody does to a log, and where `verify` says that it was done.

use std::fs;

use aion_audit::{Anchor, Hash, Options, Report, Writer, verify, verify_against};

use crate::support::{Log, append, small};

fn seq_of(line: &str) -> Option<u64> {
    line.strip_prefix("{\"seq\":")?.split(',').next()?.parse().ok()
}

fn position(lines: &[String], seq: u64) -> usize {
    lines.iter().position(|l| seq_of(l) == Some(seq)).unwrap()
}

/// The first fault is in this segment at this record.
#[track_caller]
fn names(report: &Report, segment: u64, seq: u64) {
    let first = report.faults.first().expect("the change was not found");
    assert_eq!(
        (first.segment.as_str(), first.seq),
        (format!("{segment:010}.seg").as_str(), seq),
        "{report:?}"
    );
}

#[test]
fn a_changed_record_is_named() {
    let log = Log::filled(40);
    log.edit(2, |lines| {
        let at = lines.iter().rposition(|l| seq_of(l).is_some()).unwrap() - 3;
        let at = if seq_of(&lines[at]).is_some() { at } else { at - 1 };
        lines[at] = lines[at].replace("allowed", "denied!");
    });
    let seq = log.lines(2).iter().find(|l| l.contains("denied!")).and_then(|l| seq_of(l)).unwrap();
    let report = log.verify();
    names(&report, 2, seq);
    assert_eq!(report.faults.len(), 1, "one change is told once: {report:?}");
}

#[test]
fn a_removed_record_is_named() {
    let log = Log::filled(40);
    let seq = log.lines(2)[2..].iter().find_map(|l| seq_of(l)).unwrap();
    log.edit(2, |lines| {
        let at = position(lines, seq);
        lines.remove(at);
    });
    names(&log.verify(), 2, seq);
}

#[test]
fn swapped_records_are_named() {
    let log = Log::filled(40);
    let seq = seq_of(&log.lines(2)[1]).unwrap();
    log.edit(2, |lines| lines.swap(1, 2));
    names(&log.verify(), 2, seq);
}

#[test]
fn inserted_records_are_named() {
    let log = Log::filled(40);
    let seq = seq_of(&log.lines(2)[2]).unwrap();
    log.edit(2, |lines| lines.insert(3, lines[2].clone()));
    names(&log.verify(), 2, seq);

    let log = Log::filled(40);
    log.edit(2, |lines| lines.insert(3, lines[2].replace("allowed", "denied!")));
    names(&log.verify(), 2, seq);
}

#[test]
fn a_removed_checkpoint_is_found() {
    let log = Log::filled(40);
    let at = log.lines(1).iter().position(|l| l.starts_with("{\"checkpoint\"")).unwrap();
    let next = log.lines(1)[at + 1..].iter().find_map(|l| seq_of(l)).unwrap();
    log.edit(1, |lines| {
        lines.remove(at);
    });
    names(&log.verify(), 1, next);
}

#[test]
fn a_tail_cut_back_over_a_checkpoint_is_found() {
    let log = Log::filled(40);
    let newest = log.segments().len() as u64;
    log.edit(newest, |lines| {
        while lines.pop().is_some_and(|l| !l.starts_with("{\"checkpoint\"")) {}
        lines.pop();
    });
    let report = log.verify();
    assert!(report.faults[0].what.contains("cut off"), "{report:?}");
    // A writer that opens it says what was missing, uses no number twice, and the place stays named.
    let mut writer = log.writer(small());
    assert_eq!(writer.last_seq(), 41, "the record that tells of it");
    append(&mut writer, 42);
    drop(writer);
    let report = log.verify();
    assert!(report.faults[0].what.contains("missing"), "{report:?}");
    assert!(report.notes.iter().any(|n| n.contains("missing_records")), "{report:?}");
}

#[test]
fn removed_segments_are_found() {
    for which in ["first", "middle", "last"] {
        let log = Log::filled(60);
        let newest = log.segments().len() as u64;
        let number = match which {
            "first" => 1,
            "middle" => 3,
            _ => newest,
        };
        fs::remove_file(log.segment(number)).unwrap();
        let report = log.verify();
        assert_eq!(
            report.faults.first().map(|f| f.segment.clone()),
            Some(format!("{number:010}.seg")),
            "{which}"
        );
        // Opening it for writing neither hides nor undoes it.
        let mut writer = log.writer(small());
        append(&mut writer, 0);
        drop(writer);
        let report = log.verify();
        assert_eq!(
            report.faults.first().map(|f| f.segment.clone()),
            Some(format!("{number:010}.seg")),
            "{which}"
        );
    }
}

#[test]
fn a_log_that_is_gone_is_found() {
    let log = Log::filled(30);
    for segment in log.segments() {
        fs::remove_file(segment).unwrap();
    }
    assert!(!log.verify().ok);
    let writer = log.writer(small());
    assert_eq!(writer.last_seq(), 31);
    drop(writer);
    assert!(!log.verify().ok);

    fs::remove_dir_all(log.dir()).unwrap();
    fs::create_dir(log.dir()).unwrap();
    assert!(!verify(&log.dir(), None).unwrap().ok);
}

#[test]
fn a_sealed_segment_without_its_footer_is_found() {
    let log = Log::filled(40);
    log.edit(2, |lines| {
        lines.pop();
    });
    let report = log.verify();
    assert!(report.faults[0].what.contains("footer"), "{report:?}");
}

#[test]
fn another_key_is_found() {
    let log = Log::filled(20);
    let other = Log::filled(20);
    let report = verify(&log.dir(), Some(other.key())).unwrap();
    assert!(report.faults.iter().any(|f| f.what.contains("another key")), "{report:?}");
    assert!(report.faults.iter().any(|f| f.segment == "key.pub"), "{report:?}");
}

#[test]
fn a_log_made_anew_with_another_key_is_found_by_the_key_that_was_kept() {
    let log = Log::filled(20);
    let kept = log.key();
    fs::remove_dir_all(log.dir()).unwrap();
    fs::remove_file(log.key_path()).unwrap();
    let mut writer = log.writer(small());
    for n in 1..=20 {
        append(&mut writer, n);
    }
    drop(writer);
    assert!(verify(&log.dir(), None).unwrap().ok, "by itself it is a log in order");
    assert!(!verify(&log.dir(), Some(kept)).unwrap().ok);
}

#[test]
fn a_replaced_signature_is_found() {
    let log = Log::filled(40);
    let at = log.lines(1).iter().position(|l| l.starts_with("{\"checkpoint\"")).unwrap();
    let other = log.lines(2).into_iter().find(|l| l.starts_with("{\"checkpoint\"")).unwrap();
    let signature = other.split("\"sig\":").nth(1).unwrap().to_owned();
    let seq = log.lines(1)[..at].iter().rev().find_map(|l| seq_of(l)).unwrap();
    log.edit(1, |lines| {
        let front = lines[at].split("\"sig\":").next().unwrap().to_owned();
        lines[at] = format!("{front}\"sig\":{signature}");
    });
    let report = log.verify();
    names(&report, 1, seq);
    assert!(report.faults[0].what.contains("signature"), "{report:?}");
}

#[test]
fn a_log_that_was_hashed_anew_without_the_key_is_found() {
    use sha2::{Digest, Sha256};
    let log = Log::filled(9);
    assert_eq!(log.segments().len(), 1);
    log.edit(1, |lines| {
        lines[2] = lines[2].replace("allowed", "denied!");
        let mut chain: [u8; 32] = [0; 32];
        for line in lines.iter_mut() {
            if line.starts_with("{\"checkpoint\"") {
                // The forger can put the new hash in, and sign nothing.
                let (head, tail) = line.split_once("\"hash\":\"").unwrap();
                *line = format!("{head}\"hash\":\"{}{}", hex::encode(chain), &tail[64..]);
                chain = Sha256::new().chain_update(chain).chain_update(line.as_bytes()).finalize().into();
                continue;
            }
            let (covered, _) = line.rsplit_once(",\"hash\":\"").unwrap();
            chain = Sha256::new().chain_update(chain).chain_update(covered).finalize().into();
            *line = format!("{covered},\"hash\":\"{}\"}}", hex::encode(chain));
        }
    });
    let report = log.verify();
    names(&report, 1, 5);
    assert!(report.faults[0].what.contains("signature"), "{report:?}");
}

#[test]
fn a_log_set_back_as_a_whole_is_found_by_an_anchor() {
    let log = Log::filled(10);
    let old = tempfile::tempdir().unwrap();
    for file in fs::read_dir(log.dir()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), old.path().join(file.file_name())).unwrap();
    }
    let mut writer = log.writer(small());
    for n in 11..=15 {
        append(&mut writer, n);
    }
    drop(writer);
    let anchor = log.verify().last.unwrap();
    assert_eq!(anchor.seq, 15);
    assert!(verify_against(&log.dir(), Some(log.key()), &[anchor]).unwrap().ok);
    let set_back = |anchors: &[Anchor]| verify_against(old.path(), Some(log.key()), anchors).unwrap();
    assert!(set_back(&[]).ok);
    assert!(!set_back(&[anchor]).ok);
    assert!(!set_back(&[Anchor { seq: 3, hash: Hash::ZERO }]).ok);
}

#[test]
fn segments_of_another_log_under_the_same_key_do_not_pass() {
    // Two logs of one key: the same numbers, other records.
    let log = Log::filled(40);
    let other = Log::new();
    fs::copy(log.key_path(), other.key_path()).unwrap();
    let mut writer = Writer::open(&other.dir(), &other.key_path(), Options { ..small() }).unwrap();
    for n in 100..140 {
        append(&mut writer, n);
    }
    drop(writer);
    assert!(other.verify().ok);
    fs::copy(other.segment(2), log.segment(2)).unwrap();
    assert!(!log.verify().ok);
}

#[test]
fn nonsense_in_a_segment_neither_stops_the_reader_nor_passes() {
    let log = Log::filled(20);
    log.edit(1, |lines| {
        lines.insert(3, "x".repeat(3 << 20));
        lines.insert(4, String::new());
        lines.insert(5, "[".repeat(100_000));
        lines.insert(6, "{\"seq\":18446744073709551615}".to_owned());
    });
    let mut reader = aion_audit::Reader::open(&log.dir()).unwrap();
    assert_eq!(reader.read_after(0, 100).unwrap().len(), 20);
    assert!(reader.damaged() >= 4);
    assert!(!log.verify().ok);
}
