//! A small archive with everything in it.

use std::io::Read;

use aion_backup::{Check, Entry, FORMAT, Manifest, Result, SUPPORTED, Summary, Writer, read};

pub(crate) const AGENT: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

pub(crate) fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        aion: "0.1.0".to_owned(),
        created: "2026-01-31T12:00:00Z".to_owned(),
        host: "old-host".to_owned(),
        state: SUPPORTED,
        cursor: 3,
        paused_us: 900,
        journal: None,
        parts: vec!["db".to_owned()],
        left_out: vec!["managed workspaces".to_owned()],
    }
}

/// Names, and what is in them.
pub(crate) fn files() -> Vec<(String, bool, Vec<u8>)> {
    let digest = "0a".repeat(32);
    let long = format!("tools/{digest}/{}main.py", "deep/".repeat(60));
    vec![
        ("db/CURRENT".to_owned(), false, b"MANIFEST-000005\n".to_vec()),
        ("db/000012.sst".to_owned(), false, (0..300u32).flat_map(u32::to_le_bytes).collect()),
        ("journal/db/CURRENT".to_owned(), false, b"x".to_vec()),
        ("keys/seal.key".to_owned(), false, vec![7; 32]),
        ("secrets/token".to_owned(), false, b"hunter2".to_vec()),
        (long, true, b"print(1)".to_vec()),
        (format!("tools/{digest}/empty"), false, Vec::new()),
        (Entry::journal_name(AGENT, 8192), false, b"records".to_vec()),
        (format!("agents/{AGENT}/result"), false, b"{}".to_vec()),
    ]
}

pub(crate) fn archive() -> Vec<u8> {
    archive_of(&manifest(), &files())
}

pub(crate) fn archive_of(manifest: &Manifest, files: &[(String, bool, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), manifest).unwrap();
    for (name, executable, bytes) in files {
        writer.file(name, *executable, bytes.len() as u64, bytes.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

pub(crate) fn verify(archive: impl Read) -> Result<Summary> {
    read(archive, &mut Check)
}
