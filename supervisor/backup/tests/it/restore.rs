//! A state from an archive: the right files with the right rights, all of it or nothing.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aion_agent_journal::head;
use aion_audit::{Detail, NewRecord, Options, Reader, Writer};
use aion_backup::{AuditFound, Error, Manifest, Owners, Restored, Target, Versions, restore};
use rustix::fs::FlockOperation;

use crate::support::{AGENT, archive_of, files, manifest};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn target(&self) -> Target {
        let found = fs::metadata(self.dir.path()).unwrap();
        // As root, aiond's user is another, as it is on a host.
        let user = if found.uid() == 0 { 65_534 } else { found.uid() };
        Target { state: self.state(), owners: Owners { root: found.uid(), user, group: found.gid() } }
    }

    fn restore(&self, archive: &[u8]) -> Result<Restored, Error> {
        restore(|| Ok(archive), &self.target())
    }

    /// Nothing of a restore is beside the state.
    fn is_tidy(&self) -> bool {
        fs::read_dir(self.dir.path()).unwrap().all(|entry| entry.unwrap().file_name() == "state")
    }
}

fn archive() -> Vec<u8> {
    archive_of(&manifest(), &files())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn every_file_is_there_with_its_owner_and_mode() {
    let place = Place::new();
    let restored = place.restore(&archive()).unwrap();
    assert_eq!(restored.summary.total().files, files().len() as u64);
    let state = place.state();
    for (name, executable, bytes) in files().iter().filter(|(name, ..)| !name.contains('@')) {
        let path = state.join(name);
        assert_eq!(&fs::read(&path).unwrap(), bytes, "{name}");
        let expected = match name.split('/').next().unwrap() {
            "tools" if *executable => 0o755,
            "tools" => 0o644,
            "agents" => 0o640,
            _ => 0o600,
        };
        assert_eq!(mode(&path), expected, "{name}");
        let owners = place.target().owners;
        let owner = if name.starts_with("agents") { owners.root } else { owners.user };
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (owner, owners.group), "{name}");
    }
    for (folder, expected) in [
        ("", 0o755),
        ("db", 0o700),
        ("journal", 0o700),
        ("journal/db", 0o700),
        ("keys", 0o700),
        ("secrets", 0o700),
        ("tools", 0o700),
        ("doors", 0o700),
        ("tmp", 0o700),
        ("run", 0o755),
        ("agents", 0o750),
        ("audit", 0o750),
    ] {
        assert_eq!(mode(&state.join(folder)), expected, "{folder}");
    }
    // Offsets are cursors: what was dropped before the first record is a hole.
    let journal = fs::File::open(state.join("agents").join(AGENT).join("journal")).unwrap();
    assert_eq!((head(&journal).unwrap(), journal.metadata().unwrap().len()), (8192, 8192 + 7));
    assert!(place.is_tidy());
}

#[test]
fn what_is_there_is_never_in_danger() {
    let place = Place::new();
    // Folders that the package makes are as good as none.
    for folder in ["db", "run", "launcher/agents"] {
        fs::create_dir_all(place.state().join(folder)).unwrap();
    }
    let kept = place.state().join("db/CURRENT");
    fs::write(&kept, "mine").unwrap();
    let Err(Error::NotEmpty { found, .. }) = place.restore(&archive()) else { panic!("it was not refused") };
    assert_eq!((found.as_str(), fs::read_to_string(&kept).unwrap().as_str()), ("db/CURRENT", "mine"));
    fs::remove_file(&kept).unwrap();

    let pid_file = place.state().join("run/aiond.pid");
    let lock = fs::File::create(&pid_file).unwrap();
    rustix::fs::flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(matches!(place.restore(&archive()), Err(Error::InUse { daemon: "aiond", .. })));
    drop(lock);
    fs::remove_file(&pid_file).unwrap();
    place.restore(&archive()).unwrap();
    assert!(matches!(place.restore(&archive()), Err(Error::NotEmpty { .. })), "a second time");
    assert!(place.is_tidy());
}

#[test]
fn a_bad_archive_leaves_nothing_and_a_newer_one_is_told() {
    let place = Place::new();
    let whole = archive();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1100;
    flipped[last] ^= 1;
    for bad in [&whole[..whole.len() - 512], flipped.as_slice(), b"not a backup"] {
        assert!(place.restore(bad).is_err());
        assert!(!place.state().exists() && place.is_tidy());
    }
    let newer = Manifest { state: Versions { store: 99, ..manifest().state }, ..manifest() };
    let refused = place.restore(&archive_of(&newer, &files()));
    assert!(matches!(refused, Err(Error::Newer { what: "database", found: 99, .. })));
    assert!(!place.state().exists() && place.is_tidy());
}

#[test]
fn what_an_earlier_try_left_is_no_hindrance() {
    let place = Place::new();
    let left = place.dir.path().join(".state.restoring");
    fs::create_dir_all(left.join("db")).unwrap();
    fs::write(left.join("db/half"), "x").unwrap();
    place.restore(&archive()).unwrap();
    assert!(!place.state().join("db/half").exists() && place.is_tidy());
}

/// A log of so many records, as files of an archive.
fn log(records: u64) -> Vec<(String, bool, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open_log(&dir.path().join("audit"), dir.path());
    for n in 1..=records {
        let detail = Detail::from_value(&serde_json::json!({ "n": n })).unwrap();
        writer
            .append(&NewRecord { kind: "test", verdict: "allowed", detail, ..NewRecord::default() })
            .unwrap();
    }
    drop(writer);
    let names = fs::read_dir(dir.path().join("audit")).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .map(|name| {
            let bytes = fs::read(dir.path().join("audit").join(&name)).unwrap();
            (format!("audit/{}", name.to_str().unwrap()), false, bytes)
        })
        .collect()
}

fn open_log(dir: &Path, key: &Path) -> Writer {
    Writer::open(dir, &key.join("audit.key"), Options::default()).unwrap()
}

#[test]
fn the_old_audit_log_stays_and_verifies_and_a_new_one_goes_on() {
    let place = Place::new();
    let restored = place.restore(&archive_of(&manifest(), &[files(), log(20)].concat())).unwrap();
    let AuditFound { folder, intact, records, last, .. } = restored.audit.unwrap();
    assert_eq!(
        (folder.as_str(), intact, records, last.0),
        ("audit-archive/2026-01-31T120000Z", true, 20, 20)
    );
    let state = place.state();
    assert!(aion_audit::verify(&state.join(&folder), None).unwrap().ok);
    assert_eq!(mode(&state.join(&folder).join("HEAD")), 0o640);

    // What the launcher does when it starts.
    drop(open_log(&state.join("audit"), place.dir.path()));
    let first = Reader::open(&state.join("audit")).unwrap().read_after(0, 1).unwrap().remove(0);
    assert_eq!((first.seq, first.kind.as_str()), (21, "audit.continued"));
    for part in [last.1.as_str(), &folder, "old-host"] {
        assert!(first.detail_json.contains(part), "{}", first.detail_json);
    }
    assert!(aion_audit::verify(&state.join("audit"), None).unwrap().ok);
}

#[test]
fn a_damaged_audit_log_is_kept_and_told_and_its_numbers_are_not_used_again() {
    let mut damaged = log(20);
    for (name, _, bytes) in &mut damaged {
        if name.ends_with(".seg") {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        }
    }
    let (place, manifest) = (Place::new(), Manifest { cursor: 25, ..manifest() });
    let audit = place.restore(&archive_of(&manifest, &damaged)).unwrap().audit.unwrap();
    assert!(!audit.intact && !audit.faults.is_empty(), "{audit:?}");
    drop(open_log(&place.state().join("audit"), place.dir.path()));
    let first = Reader::open(&place.state().join("audit")).unwrap().read_after(0, 1).unwrap().remove(0);
    assert_eq!(first.seq, 26);
}
