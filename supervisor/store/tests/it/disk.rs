//! A disk that fills up: a clear refusal, nothing half-done, and it works again once there is room.

use std::path::Path;

use aion_store::{Batch, Durability, Error, Options, Store};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{record, tenant};

struct Small(tempfile::TempDir);

impl Small {
    #[expect(clippy::print_stderr, reason = "says why a test skips")]
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let none = None::<&Path>;
        match mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), Some(format!("size={size}").as_str()))
        {
            Ok(()) => Some(Self(dir)),
            Err(errno) => {
                eprintln!("skipped: cannot mount a small tmpfs here: {errno}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn create(store: &Store, n: u64) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.create_agent(&record("a", n, &format!("n{n}")), &vec![7; 40_000], "m")?;
    store.commit(batch, Durability::Host)
}

fn fill(path: &Path) {
    let chunk = vec![1u8; 64 << 10];
    let mut file = std::fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
}

fn count(store: &Store) -> u64 {
    let mut agents = 0;
    store
        .each_agent(|agent| {
            agents += 1;
            assert!(store.launch_of(&tenant("a"), &agent.id).unwrap().is_some());
            assert!(store.agent_by_name(&tenant("a"), &agent.name).unwrap().is_some());
        })
        .unwrap();
    agents
}

#[test]
fn the_reserve_refuses_before_the_disk_does() {
    let Some(small) = Small::mount("48m") else { return };
    let options = Options { reserve_bytes: 8 << 20, hard_reserve_bytes: 2 << 20, ..Options::default() };
    let store = Store::open(&small.0.path().join("db"), options).unwrap();
    create(&store, 1).unwrap();
    fill(&small.0.path().join("big"));
    let error = create(&store, 2).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_eq!(count(&store), 1);
    std::fs::remove_file(small.0.path().join("big")).unwrap();
    create(&store, 2).unwrap();
    assert_eq!(count(&store), 2);
}

#[test]
fn a_failed_log_write_is_survived() {
    let Some(small) = Small::mount("16m") else { return };
    // No reserve: RocksDB itself meets the full disk.
    let options = Options { reserve_bytes: 0, hard_reserve_bytes: 0, ..Options::default() };
    let store = Store::open(&small.0.path().join("db"), options.clone()).unwrap();
    let mut done = 0;
    for n in 0..20 {
        create(&store, n).unwrap();
        done += 1;
    }
    fill(&small.0.path().join("big"));
    let mut refused = 0;
    for n in 20..400 {
        match create(&store, n) {
            Ok(()) => done += 1,
            Err(Error::DiskFull { .. } | Error::Open { .. } | Error::Closed) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    std::fs::remove_file(small.0.path().join("big")).unwrap();
    create(&store, 1000).unwrap();
    done += 1;
    assert_eq!(count(&store), done);
    drop(store);
    let store = Store::open(&small.0.path().join("db"), options).unwrap();
    assert_eq!(count(&store), done);
}
