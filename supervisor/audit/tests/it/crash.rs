//! A crash at any place: the next writer goes on, no record before the place is lost, the log verifies.

use std::fs::{self, File};

use aion_audit::{Reader, verify, written};
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

/// How much of it was on the disk when `HEAD` was written.
fn synced(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let checkpoint = text.find("{\"checkpoint\"").unwrap();
    checkpoint + text[checkpoint..].find('\n').unwrap() + 1
}

/// Whole records at the beginning.
fn records(kept: &[u8]) -> u64 {
    let lines = kept.split_inclusive(|&b| b == b'\n');
    lines.filter(|l| l.starts_with(b"{\"seq\":") && l.ends_with(b"\n")).count() as u64
}

fn every_cut_recovers(room: usize) {
    let (log, bytes) = abandoned();
    let key = log.key();
    let head = fs::read(log.dir().join("HEAD")).unwrap();
    for cut in synced(&bytes)..=bytes.len() {
        let mut content = bytes[..cut].to_vec();
        content.resize(cut + room, 0);
        fs::write(log.segment(1), &content).unwrap();
        assert_eq!(written(&File::open(log.segment(1)).unwrap()).unwrap(), cut as u64);
        fs::write(log.dir().join("HEAD"), &head).unwrap();
        // Nobody has opened it yet: half a line is no fault, it might be being written.
        assert_eq!(verify(&log.dir(), Some(key)).unwrap().faults, [], "cut at {cut}");
        let kept = String::from_utf8_lossy(&bytes[..cut]);
        let whole = records(&bytes[..cut]);
        let page = Reader::open(&log.dir()).unwrap().read_after(0, 100).unwrap();
        assert_eq!(page.len() as u64, whole, "cut at {cut}");
        assert_eq!(Reader::open(&log.dir()).unwrap().last_seq().unwrap(), whole, "cut at {cut}");
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

#[test]
fn every_cut_after_the_checkpoint_recovers() {
    every_cut_recovers(0);
}

#[test]
fn every_cut_with_room_behind_it_recovers_as_one_without() {
    every_cut_recovers(5000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    /// Blocks of what was not synced reach the disk in any order; those that did not are zeros. What comes before the first of them is
    /// kept, what comes after it was promised to nobody.
    #[test]
    fn blocks_that_are_lost_after_the_checkpoint_are_a_tear(
        lost in prop::collection::vec(any::<bool>(), 1..100),
        block in 1_usize..700,
    ) {
        let (log, bytes) = abandoned();
        let key = log.key();
        let from = synced(&bytes);
        let mut content = bytes.clone();
        for (i, part) in content[from..].chunks_mut(block).enumerate() {
            if lost.get(i) == Some(&true) {
                part.fill(0);
            }
        }
        content.resize(bytes.len() + 3000, 0);
        fs::write(log.segment(1), &content).unwrap();
        prop_assert_eq!(verify(&log.dir(), Some(key)).unwrap().faults, []);
        let kept = content.iter().position(|&b| b == 0).unwrap();
        let whole = records(&content[..kept]);
        // A reader beside it waits for the rest, and takes nothing that comes after it.
        let mut reader = Reader::open(&log.dir()).unwrap();
        prop_assert_eq!(reader.read_after(0, 100).unwrap().len() as u64, whole);
        let end = content[..kept].iter().rposition(|&b| b == b'\n').unwrap() + 1;
        let torn = content[end..].iter().any(|&b| b != 0);
        let mut writer = log.writer(small());
        prop_assert_eq!(writer.last_seq(), whole + u64::from(torn));
        prop_assert_eq!(append(&mut writer, 99), whole + u64::from(torn) + 1);
        drop(writer);
        let report = verify(&log.dir(), Some(key)).unwrap();
        prop_assert_eq!(report.faults, []);
        prop_assert_eq!(report.records, whole + u64::from(torn) + 1);
        prop_assert_eq!(reader.damaged(), 0);
        prop_assert_eq!(reader.read_after(whole, 100).unwrap().len() as u64, u64::from(torn) + 1);
    }

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

#[test]
fn zeros_in_what_head_states_are_no_tear() {
    let (log, mut bytes) = abandoned();
    let at = String::from_utf8(bytes.clone()).unwrap().find("\"seq\":3").unwrap() + 60;
    bytes[at] = 0;
    bytes.resize(bytes.len() + 3000, 0);
    fs::write(log.segment(1), &bytes).unwrap();
    let named = |report: &aion_audit::Report| {
        let first = report.faults.first().expect("it was not found");
        assert_eq!((first.segment.as_str(), first.seq), ("0000000001.seg", 3), "{report:?}");
    };
    named(&log.verify());
    let mut writer = log.writer(small());
    assert_eq!(append(&mut writer, 0), 10, "9 tells of the damage, and no number is used twice");
    drop(writer);
    assert_eq!(fs::read(log.segment(1)).unwrap(), bytes, "the evidence is untouched");
    let report = log.verify();
    named(&report);
    assert!(report.notes.iter().any(|n| n.contains("damaged_at")), "{report:?}");
    // All that can be read is, though a line and the room stand in between.
    let mut reader = Reader::open(&log.dir()).unwrap();
    let seen: Vec<u64> = reader.read_after(0, 100).unwrap().iter().map(|r| r.seq).collect();
    assert_eq!(seen, [1, 2, 4, 5, 6, 7, 8, 9, 10]);
}
