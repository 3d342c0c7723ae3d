//! A full disk: an error, a whole file, and everything that was accepted arrives once there is room.

use std::path::Path;
use std::process::Command;

use aion_audit::{Error, NewRecord, Options, Reader, Writer, verify};

use crate::support::append;

struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_that_was_accepted() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("audit");
    std::fs::create_dir(&dir).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&dir)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: cannot mount a tmpfs (needs root)");
        return;
    }
    let _mount = Mount(&dir);
    let key = root.path().join("audit.key");
    let options = Options { segment_max_bytes: 100_000, ..Options::default() };
    let mut writer = Writer::open(&dir, &key, options).unwrap();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; 60_000]).unwrap();

    let mut accepted = 0;
    let failure = loop {
        let new = NewRecord { kind: "proc.exec", rule: "0123456789abcdef", ..NewRecord::default() };
        match writer.append(&new) {
            Ok(seq) => accepted = seq,
            Err(e) => break e,
        }
        assert!(accepted < 100_000, "the disk never filled");
    };
    assert!(failure.is_disk_full(), "{failure:?}");
    assert!(matches!(writer.sync(), Err(Error::Io { .. })));
    // What is on the disk is whole lines only, and the reader is content with it.
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|e| e == "seg") {
            assert!(std::fs::read(&path).unwrap().ends_with(b"\n"), "{}", path.display());
        }
    }
    let public = writer.public_key();
    let report = verify(&dir, Some(public)).unwrap();
    assert_eq!(report.faults, []);
    assert!(report.records <= accepted);

    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(append(&mut writer, 1), accepted + 1, "the refused record took no number");
    assert_eq!(writer.sync().unwrap(), accepted + 1);
    drop(writer);
    let report = verify(&dir, Some(public)).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!(report.records, accepted + 1);
    let mut reader = Reader::open(&dir).unwrap();
    assert_eq!(reader.read_after(accepted, 10).unwrap().len(), 1);
}
