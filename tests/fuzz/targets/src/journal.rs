//! An agent's journal: written by its init, read by a daemon that trusts none of it.

use std::fs::File;
use std::io::Write;

use aion_agent_journal::{Exit, Item, Kind, PlainFile, Reader, Writer};

/// Reading ends, goes forwards only, and gives no more than the file had.
pub fn check(data: &[u8]) {
    let mut cursors = vec![0, 4096, u64::MAX];
    if let Some(bytes) = data.last_chunk() {
        cursors.push(u64::from_le_bytes(*bytes));
    }
    for cursor in cursors {
        let Ok(mut reader) = Reader::open(memory(data), cursor) else { continue };
        let mut payload = 0;
        let mut at = reader.cursor();
        for steps in 0.. {
            assert!(steps <= data.len(), "reading does not end");
            match reader.next() {
                Ok(Some(Item::Record(record))) => {
                    payload += record.payload.len();
                    let _ = (record.exit(), record.denied(), record.start(), record.next_cursor());
                }
                Ok(Some(Item::Lost { bytes, .. })) => assert!(bytes > 0, "lost nothing"),
                Ok(None) | Err(_) => break,
            }
            assert!(reader.cursor() > at, "reading stands still");
            at = reader.cursor();
        }
        assert!(payload <= data.len(), "{payload} bytes of payload from {}", data.len());
        if let Ok(mut reader) = Reader::open(memory(data), cursor) {
            let _ = reader.last_exit();
        }
        if let Ok(mut reader) = Reader::open(memory(data), cursor) {
            let _ = reader.skip_to_end();
        }
    }
}

fn memory(data: &[u8]) -> File {
    let fd = nix::sys::memfd::memfd_create(c"journal", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = match fd {
        Ok(fd) => File::from(fd),
        Err(error) => panic!("no memory file: {error}"),
    };
    if let Err(error) = file.write_all(data) {
        panic!("cannot fill a memory file: {error}");
    }
    file
}

/// Journals as the writer makes them.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let written = |limit: u64, lines: u32, exit: bool| -> Option<Vec<u8>> {
        let file = memory(b"");
        let copy = file.try_clone().ok()?;
        let mut writer = Writer::open(file, PlainFile, limit, 0, 1).ok()?;
        for i in 0..lines {
            let kind = if i % 3 == 0 { Kind::Stderr } else { Kind::Stdout };
            writer.append(kind, 0, u64::from(i), b"a line of output\n").ok()?;
        }
        if exit {
            writer.finish(Exit { code: 3, signal: 0 }, 9).ok()?;
        }
        let len = usize::try_from(copy.metadata().ok()?.len()).ok()?;
        let mut bytes = vec![0; len];
        std::os::unix::fs::FileExt::read_exact_at(&copy, &mut bytes, 0).ok()?;
        Some(bytes)
    };
    let mut seeds: Vec<Vec<u8>> = [(1 << 20, 5, true), (1 << 20, 0, false), (1 << 16, 40, true)]
        .into_iter()
        .filter_map(|(l, n, e)| written(l, n, e))
        .collect();
    seeds.push(b"AIONJNL1\x00\x10\0\0\0\0\0\0".to_vec());
    seeds
}

/// Heads of records and of files.
pub const WORDS: &[&[u8]] = &[
    b"AIONJNL1",
    b"\0\x10\0\0\0\0\0\0",
    b"\x01\0\0\0\x01\0\0\0",
    b"\0\0\x01\0\x02\0\0\0",
    b"\x02\0\0\0\x03\0\0\0",
    b"\xff\xff\xff\xff\x01",
    b"\0",
];
