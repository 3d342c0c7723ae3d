//! Archives that somebody made on purpose: nothing of them reaches the disk.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aion_backup::{Error, Owners, Target, restore};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::support::{archive, files, manifest, verify};

/// An archive whose checksums are right: made as AION makes them, of entries that it would not write.
struct Forger {
    out: Vec<u8>,
    chain: Sha256,
    sums: String,
    time: u64,
}

impl Forger {
    fn new() -> Self {
        let time = manifest().created_secs().unwrap();
        let mut this = Self { out: Vec::new(), chain: Sha256::new(), sums: String::new(), time };
        let text = serde_json::to_vec_pretty(&manifest()).unwrap();
        this.file("aion-backup.json", &text);
        this
    }

    fn header(&self, name: &str, size: u64) -> Header {
        let mut header = Header::new_ustar();
        // Not by the crate's own function, which refuses what is wanted here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_size(size);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        header
    }

    fn file(&mut self, name: &str, body: &[u8]) {
        let header = self.header(name, body.len() as u64);
        self.entry(name, &header, body);
    }

    fn entry(&mut self, name: &str, header: &Header, body: &[u8]) {
        self.out.extend_from_slice(header.as_bytes());
        self.out.extend_from_slice(body);
        self.out.resize(self.out.len().next_multiple_of(512), 0);
        let sum = Sha256::digest(body);
        self.chain.update(header.as_bytes());
        self.chain.update(sum);
        self.sums.push_str(&format!("{}  {name}\n", hex::encode(sum)));
    }

    fn finish(mut self) -> Vec<u8> {
        let sums = std::mem::take(&mut self.sums);
        let mark = format!(
            "files {}\nsums {}\n",
            hex::encode(std::mem::take(&mut self.chain).finalize()),
            hex::encode(Sha256::digest(sums.as_bytes()))
        );
        self.file("aion-backup.sums", sums.as_bytes());
        self.file("aion-backup.end", mark.as_bytes());
        self.out.extend_from_slice(&[0; 1024]);
        self.out
    }
}

fn with(name: &str) -> Vec<u8> {
    let mut forger = Forger::new();
    forger.file("db/CURRENT", b"x");
    forger.file(name, b"evil");
    forger.finish()
}

/// Refuses it, and leaves no trace: neither in the folder nor beside it.
fn is_refused(archive: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outside"), "as it was").unwrap();
    let found = fs::metadata(dir.path()).unwrap();
    let owners = Owners { root: found.uid(), user: found.uid(), group: found.gid() };
    let target = Target { state: dir.path().join("state"), owners };
    let refused = restore(|| Ok::<_, Error>(archive), &target).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. } | Error::Broken { .. }), "{refused}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["outside"], "{refused}");
    assert_eq!(fs::read_to_string(dir.path().join("outside")).unwrap(), "as it was");
}

#[test]
fn the_forger_forges_well() {
    let mut forger = Forger::new();
    forger.file("db/CURRENT", b"x");
    assert!(verify(forger.finish().as_slice()).is_ok());
}

#[test]
fn no_name_leads_out_of_the_state() {
    for name in [
        "../outside",
        "/etc/cron.d/evil",
        "db/../../outside",
        "db/..",
        "./db/x",
        "db//x",
        "launcher/audit.key",
        "run/aion.sock",
        "db/\n",
        "db/a/b",
        "doors/x/kernel.sock",
        "volumes/v",
        "aion-backup.json",
        "etc/passwd",
    ] {
        is_refused(&with(name));
    }
}

#[test]
fn only_plain_files_are_taken() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNUSparse,
        EntryType::GNULongLink,
    ] {
        let mut forger = Forger::new();
        let mut header = forger.header("db/link", 0);
        header.set_entry_type(kind);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("../../outside").unwrap();
        }
        header.set_cksum();
        forger.entry("db/link", &header, b"");
        forger.file("db/link", b"through the link");
        is_refused(&forger.finish());
    }
}

#[test]
fn sizes_are_not_believed() {
    for size in [1 << 40, u64::MAX / 2, 1 << 33] {
        let mut forger = Forger::new();
        let header = forger.header("db/huge", size);
        forger.entry("db/huge", &header, b"small");
        is_refused(&forger.finish());
    }
    // The first file is read into memory.
    let mut header = Forger::new().header("aion-backup.json", 1 << 40);
    header.set_cksum();
    let endless = header.as_bytes().as_slice().chain(std::io::repeat(b'x'));
    assert!(matches!(verify(endless), Err(Error::Refused { .. })));
}

#[test]
fn setuid_owners_and_doubles_are_refused() {
    let edits: [fn(&mut Header); 3] =
        [|header| header.set_mode(0o4755), |header| header.set_uid(1000), |header| header.set_mode(0o666)];
    for edit in edits {
        let mut forger = Forger::new();
        let mut header = forger.header("db/x", 1);
        edit(&mut header);
        header.set_cksum();
        forger.entry("db/x", &header, b"x");
        is_refused(&forger.finish());
    }
    let mut forger = Forger::new();
    forger.file("db/x", b"1");
    forger.file("db/x", b"2");
    is_refused(&forger.finish());
    // A file where another needs a folder.
    let digest = "0a".repeat(32);
    let mut forger = Forger::new();
    forger.file(&format!("tools/{digest}/a"), b"1");
    forger.file(&format!("tools/{digest}/a/b"), b"2");
    let dir = tempfile::tempdir().unwrap();
    let found = fs::metadata(dir.path()).unwrap();
    let owners = Owners { root: found.uid(), user: found.uid(), group: found.gid() };
    let target = Target { state: dir.path().join("state"), owners };
    let bytes = forger.finish();
    assert!(restore(|| Ok::<_, Error>(bytes.as_slice()), &target).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "half a state stayed");
}

#[test]
fn one_that_changes_between_two_readings_is_refused() {
    let (good, mut more) = (archive(), files());
    more.push(("secrets/other".to_owned(), false, b"x".to_vec()));
    let other = crate::support::archive_of(&manifest(), &more);
    let dir = tempfile::tempdir().unwrap();
    let found = fs::metadata(dir.path()).unwrap();
    let owners = Owners { root: found.uid(), user: found.uid(), group: found.gid() };
    let target = Target { state: dir.path().join("state"), owners };
    let mut readings = vec![other, good];
    let open = || Ok::<_, Error>(std::io::Cursor::new(readings.pop().unwrap()));
    assert!(matches!(restore(open, &target), Err(Error::Broken { .. })));
    assert!(!Path::new(&target.state).exists());
}
