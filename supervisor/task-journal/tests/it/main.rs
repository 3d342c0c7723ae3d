//! The journal as its users meet it: a model, crashes, power cuts, full disks.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

mod archive;
mod checkpoints;
mod crash;
mod disk;
mod load;
mod model;
mod power;
mod transfer;
mod writer;

use std::path::Path;

use aion_task_journal::{Error, Journal, Options};

/// Small enough that tables are written and merged within a test.
fn small() -> Options {
    Options {
        write_buffer_bytes: 256 << 10,
        max_wal_bytes: 512 << 10,
        reserve_bytes: 1 << 20,
        admit_bytes: 1 << 20,
        ..Options::default()
    }
}

fn open(path: &Path) -> Journal {
    Journal::open(path, small()).unwrap()
}

fn rows(journal: &Journal) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    journal
        .rows(|key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok::<_, Error>(())
        })
        .unwrap();
    rows
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    })
    .take(length)
    .collect()
}
