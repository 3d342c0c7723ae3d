//! A log that ends in the middle of a write, told apart from a log that is damaged.
//!
//! The writer syncs each record before the next, so a power cut leaves at most one record in pieces: some of its blocks
//! written, others not. RocksDB's tolerant mode accepts a short last record and takes one with holes for damage. Here the newest
//! log is read as RocksDB's format has it (blocks of 32 KiB; CRC-32C, length, kind, bytes): what follows the first bad piece may
//! be more pieces of that record, never the beginning of another.

use std::path::{Path, PathBuf};

const BLOCK: usize = 32 << 10;
const HEAD: usize = 7;
/// A record in one piece, or its first piece; plain and in a recycled log.
const BEGINNINGS: [u8; 4] = [1, 2, 5, 6];

/// Whether the newest log in `path` lacks nothing but its last record.
pub(crate) fn only_the_tail(path: &Path) -> bool {
    newest_log(path).and_then(|log| std::fs::read(log).ok()).is_some_and(|bytes| is_torn(&bytes))
}

/// The newest one that has anything in it: a start that was cut off may have made the next one already.
fn newest_log(path: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(path).ok()?.flatten();
    let begun = files.filter(|file| file.metadata().is_ok_and(|meta| meta.len() > 0)).map(|file| file.path());
    let numbered = begun.filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    numbered.max_by_key(|file| file.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()))
}

fn is_torn(log: &[u8]) -> bool {
    let mut bad = false;
    for block in log.chunks(BLOCK) {
        let mut rest = block;
        while let Some((head, after)) = rest.split_at_checked(HEAD) {
            let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
            let Some((bytes, after)) = after.split_at_checked(length) else {
                bad = true;
                break;
            };
            let stored = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            if stored != masked(crc32c(&head[6..7], bytes)) {
                bad = true;
            } else if bad && BEGINNINGS.contains(&head[6]) {
                return false;
            }
            rest = after;
        }
    }
    bad
}

/// As RocksDB stores it: a checksum of bytes that hold checksums would be a poor one.
const fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(kind: &[u8], bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    !kind.iter().chain(bytes).fold(!0, step)
}

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0u32;
    while n < 256 {
        let (mut crc, mut bit) = (n, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[n as usize] = crc;
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32c(b"1", b"23456789"), 0xe306_9283);
    }

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let bytes = vec![7; usize::from(length)];
        let crc = masked(crc32c(&[kind], &bytes));
        [&crc.to_le_bytes()[..], &length.to_le_bytes(), &[kind], &bytes].concat()
    }

    #[test]
    fn pieces_of_one_record_are_a_torn_tail_and_another_record_is_not() {
        let whole = [record(1, 100), record(1, 200)].concat();
        assert!(!is_torn(&whole));
        assert!(is_torn(&whole[..whole.len() - 1]));
        let mut last = whole.clone();
        last[150] ^= 1;
        assert!(is_torn(&last));
        let mut first = whole;
        first[50] ^= 1;
        assert!(!is_torn(&first));

        let fill = u16::try_from(BLOCK - HEAD).unwrap();
        let mut long = [record(2, fill), record(3, fill), record(4, 10)].concat();
        assert!(!is_torn(&long));
        long[100..5000].fill(0);
        assert!(is_torn(&long));
        long.extend(record(1, 10));
        assert!(!is_torn(&long));
    }
}
