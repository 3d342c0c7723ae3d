//! The journal as its readers rely on it: nothing is lost or doubled, a torn end is ignored, a moved head is told.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may end, and say why")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use aion_agent_journal::{
    DeniedCall, Error, Exit, HEADER_LEN, Item, Kind, MAX_PAYLOAD, PlainFile, Reader, Record, RecordHeader,
    Space, Start, Writer,
};
use proptest::prelude::*;

fn file() -> File {
    tempfile::tempfile().unwrap()
}

fn writer(file: &File, limit: u64) -> Writer<PlainFile> {
    Writer::open(file.try_clone().unwrap(), PlainFile, limit, 0, 1).unwrap()
}

fn reader(file: &File) -> Reader {
    Reader::open(file.try_clone().unwrap(), 0).unwrap()
}

fn records(reader: &mut Reader) -> (Vec<Record>, u64) {
    let (mut records, mut lost) = (Vec::new(), 0);
    while let Some(item) = reader.next().unwrap() {
        match item {
            Item::Record(record) => records.push(record),
            Item::Lost { bytes, .. } => lost += bytes,
        }
    }
    (records, lost)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Stdout), Just(Kind::Stderr), Just(Kind::Denied)]
}

fn payloads() -> impl Strategy<Value = Vec<(Kind, Vec<u8>)>> {
    let payload = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => prop::collection::vec(any::<u8>(), MAX_PAYLOAD - 2..=MAX_PAYLOAD),
    ];
    prop::collection::vec((kind(), payload), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(all in payloads()) {
        let file = file();
        let mut writer = writer(&file, 0);
        let mut follower = reader(&file);
        let mut followed = Vec::new();
        for (i, (kind, payload)) in all.iter().enumerate() {
            writer.append(*kind, 0, i as u64, payload).unwrap();
            if i % 3 == 0 {
                followed.extend(records(&mut follower).0);
            }
        }
        writer.finish(Exit { code: 7, signal: 0 }, 99).unwrap();
        followed.extend(records(&mut follower).0);
        let (read, lost) = records(&mut reader(&file));
        prop_assert_eq!(lost, 0);
        prop_assert_eq!(&read, &followed);
        prop_assert_eq!(read[0].start(), Some(Start { incarnation: 0 }));
        prop_assert_eq!(read.last().unwrap().exit(), Some(Exit { code: 7, signal: 0 }));
        let middle: Vec<_> = read[1..read.len() - 1].iter().map(|r| (r.kind, r.payload.clone())).collect();
        prop_assert_eq!(middle, all);
        for pair in read.windows(2) {
            prop_assert_eq!(pair[0].next_cursor(), pair[1].cursor);
        }
    }

    #[test]
    fn any_cursor_of_a_record_resumes_there(all in payloads(), pick in any::<prop::sample::Index>()) {
        let file = file();
        let mut writer = writer(&file, 0);
        for (kind, payload) in &all {
            writer.append(*kind, 0, 1, payload).unwrap();
        }
        let (read, _) = records(&mut reader(&file));
        let at = pick.index(read.len());
        let mut resumed = Reader::open(file.try_clone().unwrap(), read[at].cursor).unwrap();
        prop_assert_eq!(&records(&mut resumed).0, &read[at..]);
    }

    #[test]
    fn a_torn_end_is_ignored_and_overwritten(all in payloads(), cut in 1u64..200) {
        let file = file();
        let mut writer = writer(&file, 0);
        for (kind, payload) in &all {
            writer.append(*kind, 0, 1, payload).unwrap();
        }
        let whole = writer.tail();
        writer.append(Kind::Stdout, 0, 1, &[b'x'; 300]).unwrap();
        drop(writer);
        // 316 bytes were written; a power cut left some of them, the last perhaps as zeros.
        file.set_len(whole + cut).unwrap();
        let before = records(&mut reader(&file)).0;
        prop_assert_eq!(before.len(), all.len() + 1);
        let again = Writer::open(file.try_clone().unwrap(), PlainFile, 0, 1, 5).unwrap();
        prop_assert_eq!(again.tail(), whole + 20);
        let after = records(&mut reader(&file)).0;
        prop_assert_eq!(&after[..before.len()], &before[..]);
        prop_assert_eq!(after.last().unwrap().start(), Some(Start { incarnation: 1 }));
    }

    #[test]
    fn a_moved_head_is_told_and_the_rest_is_whole(sizes in prop::collection::vec(0usize..60_000, 20..60)) {
        const LIMIT: u64 = 512 * 1024;
        let file = file();
        let mut writer = writer(&file, LIMIT);
        let mut behind = reader(&file);
        let Some(Item::Record(_)) = behind.next().unwrap() else { panic!("no start") };
        let mut written = HEADER_LEN + 20;
        for (i, size) in sizes.iter().enumerate() {
            writer.append(Kind::Stdout, 0, i as u64, &vec![i as u8; *size]).unwrap();
            written += 16 + *size as u64;
            prop_assert!(writer.tail() - writer.head() <= LIMIT);
        }
        prop_assert_eq!(writer.tail(), written);
        let (read, lost) = records(&mut behind);
        let bytes: u64 = read.iter().map(|r| 16 + r.payload.len() as u64).sum();
        prop_assert_eq!(HEADER_LEN + 20 + lost + bytes, written);
        for record in read {
            prop_assert_eq!(record.payload.len(), sizes[record.time_ns as usize]);
            prop_assert!(record.payload.iter().all(|&b| b == record.time_ns as u8));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), cursor in 0u64..8000) {
        let file = file();
        writer(&file, 0);
        file.write_all_at(&bytes, HEADER_LEN).unwrap();
        let Ok(mut reader) = Reader::open(file.try_clone().unwrap(), cursor) else { return Ok(()) };
        for _ in 0..200 {
            if !matches!(reader.next(), Ok(Some(_))) {
                break;
            }
        }
        while let Ok(Some(_)) = reader.next_event() {}
        let _ = Writer::open(file, PlainFile, 0, 1, 1);
    }
}

#[test]
fn events_are_found_without_reading_output() {
    let file = file();
    let mut writer = writer(&file, 0);
    let denied = DeniedCall { nr: 1, pid: 2, count: 3, errno: 4 };
    for _ in 0..50 {
        writer.append(Kind::Stdout, 0, 1, &[0; 5000]).unwrap();
        writer.append(Kind::Denied, 0, 1, &denied.encode()).unwrap();
    }
    let mut events = reader(&file);
    let mut seen = 0;
    while let Some(Item::Record(record)) = events.next_event().unwrap() {
        if record.denied() == Some(denied) {
            seen += 1;
        }
    }
    assert_eq!(seen, 50);
    writer.append(Kind::Stderr, 0, 1, b"more").unwrap();
    assert_eq!(events.next_event().unwrap(), None);
    writer.finish(Exit { code: 0, signal: 9 }, 2).unwrap();
    let Some(Item::Record(last)) = events.next_event().unwrap() else { panic!("no exit") };
    assert_eq!(last.exit(), Some(Exit { code: 0, signal: 9 }));
    let exit = reader(&file).last_exit().unwrap().unwrap();
    assert_eq!(exit.exit(), Some(Exit { code: 0, signal: 9 }));
    Writer::open(file.try_clone().unwrap(), PlainFile, 0, 1, 1).unwrap();
    assert_eq!(reader(&file).last_exit().unwrap(), None, "the next incarnation has not ended");
}

/// A disk with room for so many bytes.
struct Disk(AtomicU64);

impl Space for &Disk {
    fn reserve(&self, _: &File, offset: u64, len: u64) -> io::Result<()> {
        if offset + len > self.0.load(Ordering::Relaxed) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
    fn punch(&self, _: &File, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[test]
fn a_full_disk_refuses_output_and_takes_the_exit() {
    let disk = Disk(AtomicU64::new(100_000));
    let file = file();
    let mut writer = Writer::open(file.try_clone().unwrap(), &disk, 0, 0, 1).unwrap();
    let mut written = 0;
    let full = loop {
        match writer.append(Kind::Stdout, 0, 1, &[1; 3000]) {
            Ok(()) => written += 1,
            Err(e) => break e,
        }
    };
    assert!(full.is_disk_full() && written > 20, "{written}: {full}");
    let tail = writer.tail();
    // The payload is still there, and the same commit works when there is room.
    disk.0.store(200_000, Ordering::Relaxed);
    writer.commit(Kind::Stdout, 0, 1, 3000).unwrap();
    assert_eq!(writer.tail(), tail + 3016);
    disk.0.store(0, Ordering::Relaxed);
    writer.finish(Exit { code: 1, signal: 0 }, 1).unwrap();
    let (read, _) = records(&mut reader(&file));
    assert_eq!(read.len(), written + 3);
    assert!(read.iter().filter(|r| r.kind == Kind::Stdout).all(|r| r.payload == [1; 3000]));
}

#[test]
fn other_files_are_refused() {
    let file = file();
    assert!(matches!(Reader::open(file.try_clone().unwrap(), 0), Err(Error::NotAJournal)));
    file.write_all_at(&[7; 5000], 0).unwrap();
    assert!(matches!(Reader::open(file.try_clone().unwrap(), 0), Err(Error::NotAJournal)));
    assert!(matches!(Writer::open(file, PlainFile, 0, 0, 0), Err(Error::NotAJournal)));
    let file = tempfile::tempfile().unwrap();
    let mut writer = writer(&file, 0);
    let too_long = writer.append(Kind::Stdout, 0, 0, &vec![0; MAX_PAYLOAD + 1]);
    assert!(matches!(too_long, Err(Error::TooLong { .. })));
    file.write_all_at(&[9; 64], writer.tail()).unwrap();
    let mut reader = reader(&file);
    reader.next().unwrap();
    assert!(matches!(reader.next(), Err(Error::Corrupt { .. })));
}

#[test]
fn kinds_of_a_later_version_are_passed_over() {
    let file = file();
    let mut writer = writer(&file, 0);
    writer.append(Kind::Stdout, 0, 1, b"one").unwrap();
    let foreign = |payload: &[u8]| {
        let header = RecordHeader { len: payload.len() as u32, kind: Kind::Stderr, flags: 0, time_ns: 1 };
        let mut bytes = header.encode().to_vec();
        bytes[4] = 200;
        bytes.extend_from_slice(payload);
        bytes
    };
    let mut at = writer.tail();
    for payload in [&[7; 60_000][..], &[8; 100], &[]].into_iter().cycle().take(9) {
        let bytes = foreign(payload);
        file.write_all_at(&bytes, at).unwrap();
        at += bytes.len() as u64;
    }
    drop(writer);
    let mut writer = Writer::open(file.try_clone().unwrap(), PlainFile, 0, 1, 2).unwrap();
    writer.append(Kind::Checkpoint, 0, 3, &[0; 56]).unwrap();
    writer.append(Kind::Stdout, 0, 3, b"two").unwrap();
    let (read, _) = records(&mut reader(&file));
    let kinds: Vec<_> = read.iter().map(|r| r.kind).collect();
    assert_eq!(kinds, [Kind::Start, Kind::Stdout, Kind::Start, Kind::Checkpoint, Kind::Stdout]);
    let mut events = reader(&file);
    let mut seen = Vec::new();
    while let Some(Item::Record(record)) = events.next_event().unwrap() {
        seen.push(record.kind);
    }
    assert_eq!(seen, [Kind::Start, Kind::Start, Kind::Checkpoint]);
}

/// As a kernel has it: a hole of no length is an error.
struct Strict;

impl Space for Strict {
    fn reserve(&self, _: &File, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn punch(&self, _: &File, _: u64, len: u64) -> io::Result<()> {
        if len == 0 { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }
}

proptest! {
    #[test]
    fn the_smallest_limit_takes_the_longest_records(sizes in prop::collection::vec(0usize..=MAX_PAYLOAD, 1..60)) {
        let file = file();
        let mut writer = Writer::open(file.try_clone().unwrap(), Strict, 1, 0, 1).unwrap();
        for size in sizes {
            writer.append(Kind::Stdout, 0, 1, &vec![1; size]).unwrap();
            prop_assert!(writer.tail() - writer.head() <= 256 * 1024);
        }
    }
}
