//! A crash at any place: the next writer goes on, no record before the place is lost, the log verifies.

use std::fs;

use aion_audit::{Reader, verify};
use proptest::prelude::*;

use crate::support::{Log, append, small};

/// A log whose writer vanished: what it had written, and `HEAD` from the last checkpoint at record 4.
fn abandoned() -> (Log, Vec<u8>) {
    let log = Log::new();
    let mut writer = log.writer(small());
    for n in 1..=4 {
        append(&mut writer, n);
    }
    writer.checkpoint().unwrap();
    let head = fs::read(log.dir().join("HEAD")).unwrap();
    for n in 5..=8 {
        append(&mut writer, n);
    }
    drop(writer);
    fs::write(log.dir().join("HEAD"), head).unwrap();
    let bytes = fs::read(log.segment(1)).unwrap();
    (log, bytes)
}

#[test]
fn every_cut_after_the_checkpoint_recovers() {
    let (log, bytes) = abandoned();
    let key = log.key();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let checkpoint = text.find("{\"checkpoint\"").unwrap();
    let synced = checkpoint + text[checkpoint..].find('\n').unwrap() + 1;
    let head = fs::read(log.dir().join("HEAD")).unwrap();
    for cut in synced..=bytes.len() {
        fs::write(log.segment(1), &bytes[..cut]).unwrap();
        fs::write(log.dir().join("HEAD"), &head).unwrap();
        // Nobody has opened it yet: half a line is no fault, it might be being written.
        assert_eq!(verify(&log.dir(), Some(key)).unwrap().faults, [], "cut at {cut}");
        let kept = String::from_utf8_lossy(&bytes[..cut]);
        let whole =
            kept.split_inclusive('\n').filter(|l| l.starts_with("{\"seq\":") && l.ends_with('\n')).count()
                as u64;
        let mut writer = log.writer(small());
        let recovered = u64::from(!kept.ends_with('\n'));
        assert_eq!(writer.last_seq(), whole + recovered, "cut at {cut}");
        assert_eq!(append(&mut writer, 99), whole + recovered + 1);
        drop(writer);
        let report = verify(&log.dir(), Some(key)).unwrap();
        assert_eq!(report.faults, [], "cut at {cut}");
        assert_eq!(report.notes.len() as u64, recovered, "cut at {cut}: {:?}", report.notes);
        let page = Reader::open(&log.dir()).unwrap().read_after(0, 100).unwrap();
        assert_eq!(page.len() as u64, report.records);
        assert_eq!(page.iter().filter(|r| r.kind == "audit.recovered").count() as u64, recovered);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    /// Whatever stands at the end, opening succeeds, numbers go on, and a loss of stated records stays visible.
    #[test]
    fn any_tail_can_be_opened(cut in 0_usize..4000, garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let (log, bytes) = abandoned();
        let mut damaged = bytes[..cut.min(bytes.len())].to_vec();
        damaged.extend_from_slice(&garbage);
        let unharmed = damaged == bytes;
        fs::write(log.segment(1), &damaged).unwrap();
        let mut writer = log.writer(small());
        let seq = append(&mut writer, 99);
        prop_assert!(seq > 4);
        drop(writer);
        let again = log.writer(small());
        prop_assert_eq!(again.last_seq(), seq);
        drop(again);
        let report = log.verify();
        prop_assert!(report.ok || !unharmed);
        let page = Reader::open(&log.dir()).unwrap().read_after(seq - 1, 1).unwrap();
        prop_assert_eq!(page.first().map(|r| r.seq), Some(seq));
    }
}

#[test]
fn a_crash_between_footer_and_next_segment_is_no_loss() {
    let log = Log::filled(37);
    let newest = log.segments().len() as u64;
    // As if the newest segment had not been begun: HEAD was written with the footer before it.
    let mut writer = log.writer(small());
    while !log.segment(newest + 1).exists() {
        append(&mut writer, 1);
    }
    let last = writer.last_seq() - 1;
    let head = fs::read(log.dir().join("HEAD")).unwrap();
    drop(writer);
    fs::write(log.dir().join("HEAD"), head).unwrap();
    fs::remove_file(log.segment(newest + 1)).unwrap();
    assert!(log.verify().ok);
    let mut writer = log.writer(small());
    assert_eq!(writer.last_seq(), last);
    append(&mut writer, 2);
    drop(writer);
    let report = log.verify();
    assert!(report.ok && report.notes.is_empty(), "{report:?}");
}

#[test]
fn a_damaged_segment_stays_as_evidence() {
    let (log, mut bytes) = abandoned();
    let at = String::from_utf8(bytes.clone()).unwrap().find("\"seq\":3").unwrap() + 60;
    bytes[at] ^= 1;
    fs::write(log.segment(1), &bytes).unwrap();
    let mut writer = log.writer(small());
    assert_eq!(append(&mut writer, 0), 10, "9 tells of the damage");
    drop(writer);
    assert_eq!(fs::read(log.segment(1)).unwrap(), bytes, "the evidence is untouched");
    let report = log.verify();
    assert_eq!(
        (report.faults[0].segment.as_str(), report.faults[0].seq),
        ("0000000001.seg", 3),
        "{report:?}"
    );
    assert!(report.notes.iter().any(|n| n.contains("damaged_at")), "{report:?}");
}
