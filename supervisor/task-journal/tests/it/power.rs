//! A power cut, which kill -9 is not: what was written and not synced is gone.
//!
//! The writer runs with `power.c` preloaded, which keeps a second copy of every file: only what a sync has covered, under
//! only the names that a sync of the folder has covered. After the kill that copy is all there is.
//! `AION_CUTS` says how many cuts.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::crash::{Writing, dice};
use crate::{load, open};

/// What a disk would hold: files by inode, and the names in the folder.
fn begin(journal: &Path, disk: &Path) {
    let _ = fs::remove_dir_all(disk);
    fs::create_dir_all(disk.join("grave")).unwrap();
    let mut names = String::new();
    for entry in fs::read_dir(journal).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let inode = entry.metadata().unwrap().ino();
        fs::copy(entry.path(), disk.join(inode.to_string())).unwrap();
        names += &format!("{inode} {}\n", entry.file_name().into_string().unwrap());
    }
    fs::write(disk.join("names"), names).unwrap();
}

/// Some of what was written to a log and not synced.
fn tear(from: &Path, to: &Path, round: u64) -> bool {
    let (Ok(written), Ok(mut kept)) = (fs::read(from), fs::read(to)) else { return false };
    let synced = kept.len();
    if written.len() <= synced {
        return false;
    }
    let more = written.len() - synced;
    kept.extend_from_slice(&written[synced..synced + more - dice(round) as usize % more / 2]);
    let hole = synced + dice(round + 7) as usize % (kept.len() - synced);
    let end = kept.len().min(hole + 4096);
    kept[hole..end].fill(0);
    fs::write(to, kept).unwrap();
    true
}

/// The journal's folder becomes what the disk holds.
fn cut(journal: &Path, disk: &Path, round: u64) -> bool {
    let mut torn = false;
    let names = fs::read_to_string(disk.join("names")).unwrap();
    let after = journal.with_extension("after");
    fs::create_dir(&after).unwrap();
    let mut seen = HashMap::new();
    for (inode, name) in names.lines().filter_map(|line| line.split_once(' ')) {
        assert!(seen.insert(name.to_owned(), ()).is_none());
        if fs::copy(disk.join(inode), after.join(name)).is_err() {
            fs::write(after.join(name), b"").unwrap();
        }
        if round % 3 == 2 && name.ends_with(".log") {
            torn |= tear(&journal.join(name), &after.join(name), round);
        }
    }
    fs::remove_dir_all(journal).unwrap();
    fs::rename(&after, journal).unwrap();
    torn
}

#[test]
#[expect(clippy::print_stderr, reason = "says why a test skips")]
fn what_was_acknowledged_survives_a_power_cut() {
    let cuts: u64 = std::env::var("AION_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let shim = dir.path().join("power.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/power.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&shim)
        .arg(source)
        .status();
    match built {
        Err(error) => return eprintln!("skipped: no C compiler: {error}"),
        Ok(status) => assert!(status.success(), "power.c does not compile"),
    }
    let (journal, disk) = (dir.path().join("journal"), dir.path().join("disk"));
    fs::create_dir(&journal).unwrap();
    let (mut before, mut epoch, mut lost_files, mut dropped, mut torn) = (0, 0, 0u64, 0, 0);
    for round in 0..cuts {
        begin(&journal, &disk);
        let environment = [
            ("LD_PRELOAD", shim.as_path()),
            ("AION_POWER_ROOT", journal.as_path()),
            ("AION_POWER_DISK", disk.as_path()),
        ];
        let mut child = Writing::start(&journal, &environment);
        let commits = if round % 6 == 5 { 0 } else { 1 + dice(round) % 40 };
        child.run(commits, Duration::from_micros(dice(round) % 30_000));
        let (child_epoch, acknowledged) = child.kill();
        let written = bytes(&journal);
        torn += u64::from(cut(&journal, &disk, round));
        dropped += written.saturating_sub(bytes(&journal));
        lost_files += u64::from(written > bytes(&journal));

        let opened = open(&journal);
        assert!(opened.epoch() > epoch.max(child_epoch), "round {round}: an epoch came twice");
        epoch = opened.epoch();
        let there = load::verify(&opened);
        assert!(
            there >= acknowledged.max(before),
            "round {round}: {there} commits are there, {acknowledged} were acknowledged"
        );
        assert!(acknowledged == 0 || there <= acknowledged + 1);
        before = there;
    }
    // The shim did its work: cuts took something away.
    assert!(cuts < 10 || (lost_files > 0 && dropped > 0), "no cut lost anything");
    eprintln!(
        "{cuts} cuts, {before} commits, {lost_files} cuts lost bytes, {dropped} in all, {torn} tore a write"
    );
}

fn bytes(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name() != "LOG")
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.is_file())
        .map(|meta| meta.len())
        .sum()
}
