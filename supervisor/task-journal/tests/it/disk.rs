//! A disk that fills up: new work is refused, what was admitted is brought to its end, everything stays readable, and
//! it works again once there is room.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use aion_task_journal::{Batch, Error, Journal, Options, Writer, WriterOptions};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::rows;

/// Room for a log that RocksDB allocates ahead (8.8 MB), for what replaying it writes, and for a second log: a recovery on
/// less than that may rightly fail again.
const ROOMY: &str = "64m";

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

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn fill(&self) {
        let chunk = vec![1u8; 64 << 10];
        let mut file = std::fs::File::create(self.0.path().join("big")).unwrap();
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("big")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

fn batch(n: u64, admits: bool) -> Batch {
    let mut batch = Batch::new();
    if admits {
        batch.admits_work();
    }
    batch.put_row(&n.to_be_bytes(), &vec![n as u8; 20_000]);
    batch.event(n, n, 0, b"x");
    batch
}

fn assert_first(journal: &Journal, n: u64) {
    let rows = rows(journal);
    assert_eq!(rows.len() as u64, n);
    assert!(
        rows.iter()
            .zip(1u64..)
            .all(|((key, value), n)| *key == n.to_be_bytes() && value[..] == vec![n as u8; 20_000])
    );
    assert_eq!(journal.last_event(), n);
}

#[test]
fn the_reserve_is_for_what_was_admitted() {
    let Some(small) = Small::mount("64m") else { return };
    let options = Options { reserve_bytes: 16 << 20, admit_bytes: 4 << 20, ..Options::default() };
    let journal = Arc::new(Journal::open(&small.journal(), options.clone()).unwrap());
    journal.commit(batch(1, true)).unwrap();
    assert!(journal.space().admits && journal.space().reserve);
    small.fill();
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert!(!journal.space().admits);
    let error = journal.commit(batch(2, true)).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    assert_first(&journal, 1);
    // Without a restart and without recovery: nothing had failed.
    for n in 2..100 {
        journal.commit(batch(n, false)).unwrap();
    }
    assert!(!journal.space().reserve);
    assert!(matches!(journal.commit(batch(100, true)), Err(Error::DiskFull { .. })));
    // A restart on a full disk serves as well.
    drop(journal);
    let journal = Arc::new(Journal::open(&small.journal(), options).unwrap());
    assert_first(&journal, 99);
    journal.commit(batch(100, false)).unwrap();
    small.empty();
    std::thread::sleep(std::time::Duration::from_millis(30));
    journal.commit(batch(101, true)).unwrap();
    assert!(journal.space().admits && journal.space().reserve);
    assert_first(&journal, 101);
}

#[test]
fn a_failed_log_write_is_survived() {
    let Some(small) = Small::mount(ROOMY) else { return };
    // No reserve: RocksDB itself meets the full disk.
    let options = Options { reserve_bytes: 0, admit_bytes: 0, ..Options::default() };
    let journal = Journal::open(&small.journal(), options.clone()).unwrap();
    for n in 1..=20 {
        journal.commit(batch(n, true)).unwrap();
    }
    small.fill();
    let mut n = 20;
    let error = loop {
        match journal.commit(batch(n + 1, true)) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(matches!(journal.commit(batch(n + 1, true)), Err(Error::Failed)));
    assert_eq!(rows(&journal).len() as u64, n);
    // There is no room to recover either; it can be read all the same.
    let _ = journal.recover();
    assert!(rows(&journal).len() as u64 >= n);
    small.empty();
    journal.recover().unwrap();
    // The one that failed is there as a whole or not at all.
    let there = journal.last_event();
    assert!(there == n || there == n + 1);
    assert_first(&journal, there);
    for n in there + 1..there + 50 {
        journal.commit(batch(n, true)).unwrap();
    }
    drop(journal);
    assert_first(&Journal::open(&small.journal(), options).unwrap(), there + 49);
}

#[test]
fn after_a_failure_the_writer_fails_all_until_it_has_recovered() {
    let Some(small) = Small::mount(ROOMY) else { return };
    let options = Options { reserve_bytes: 0, admit_bytes: 0, ..Options::default() };
    let journal = Arc::new(Journal::open(&small.journal(), options).unwrap());
    let writer = Writer::start(Arc::clone(&journal), WriterOptions { max_bytes: 50_000, queue: 8 }).unwrap();
    small.fill();
    let (outcomes, outcome) = mpsc::channel();
    for n in 1..=1000 {
        let outcomes = outcomes.clone();
        writer.submit(batch(n, true), move |result| outcomes.send(result.map_err(|e| e.code())).unwrap());
    }
    let outcome: Vec<_> = outcome.iter().take(1000).collect();
    let good = outcome.iter().take_while(|result| result.is_ok()).count();
    assert!(good < 1000);
    assert!(outcome[good..].iter().all(|result| result.is_err_and(|code| code.to_string() == "DISK_FULL")));
    small.empty();
    writer.recover().unwrap();
    let there = journal.last_event();
    assert!(there >= good as u64 && there <= good as u64 + 4, "{there} {good}");
    let (done, is_done) = mpsc::channel();
    writer.submit(batch(there + 1, true), move |result| done.send(result.is_ok()).unwrap());
    assert!(is_done.recv().unwrap());
    drop(writer);
    assert_first(&journal, there + 1);
}

#[test]
fn a_checkpoint_that_does_not_fit_leaves_nothing() {
    let Some(small) = Small::mount("32m") else { return };
    let options = Options { reserve_bytes: 4 << 20, admit_bytes: 4 << 20, ..Options::default() };
    let journal = Arc::new(Journal::open(&small.journal(), options).unwrap());
    let data = crate::noise(64 << 20, 1);
    let mut writer = journal.checkpoint_writer(1, 1).unwrap();
    let error = data.chunks(100_000).try_for_each(|part| writer.write(part)).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    drop(writer);
    std::thread::sleep(std::time::Duration::from_millis(30));
    journal.commit(batch(1, true)).unwrap();
    let mut writer = journal.checkpoint_writer(1, 1).unwrap();
    writer.write(&data[..4 << 20]).unwrap();
    let mut last = Batch::new();
    last.checkpoint(&writer.finish().unwrap());
    journal.commit(last).unwrap();
    assert!(journal.load_checkpoint(1, 1).unwrap() == data[..4 << 20]);
}
