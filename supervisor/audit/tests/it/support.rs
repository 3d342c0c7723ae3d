//! A log in a temporary folder.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aion_audit::{Detail, NewRecord, Options, PublicKey, Report, Writer, verify};

pub(crate) struct Log {
    pub(crate) root: tempfile::TempDir,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// A closed log of `records` records over several segments, with checkpoints in between.
    pub(crate) fn filled(records: u64) -> Self {
        let log = Self::new();
        let mut writer = log.writer(small());
        for n in 1..=records {
            append(&mut writer, n);
            if n % 5 == 0 {
                writer.checkpoint().unwrap();
            }
        }
        drop(writer);
        assert_eq!(log.verify().faults, []);
        log
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("audit")
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.root.path().join("audit.key")
    }

    pub(crate) fn writer(&self, options: Options) -> Writer {
        Writer::open(&self.dir(), &self.key_path(), options).unwrap()
    }

    pub(crate) fn verify(&self) -> Report {
        verify(&self.dir(), Some(self.key())).unwrap()
    }

    /// The key as an auditor keeps it, elsewhere.
    pub(crate) fn key(&self) -> PublicKey {
        let kept = self.root.path().join("kept.pub");
        if !kept.exists() {
            fs::copy(self.dir().join("key.pub"), &kept).unwrap();
        }
        fs::read_to_string(kept).unwrap().trim_end().parse().unwrap()
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.dir().join(format!("{number:010}.seg"))
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = fs::read_dir(self.dir())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        paths.sort();
        paths
    }

    pub(crate) fn lines(&self, number: u64) -> Vec<String> {
        fs::read_to_string(self.segment(number)).unwrap().lines().map(str::to_owned).collect()
    }

    pub(crate) fn put_lines(&self, number: u64, lines: &[String]) {
        fs::write(self.segment(number), lines.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    }

    /// Changes the segment's lines.
    pub(crate) fn edit(&self, number: u64, change: impl FnOnce(&mut Vec<String>)) {
        let mut lines = self.lines(number);
        change(&mut lines);
        self.put_lines(number, &lines);
    }
}

/// Segments of about ten records; checkpoints only where asked for.
pub(crate) fn small() -> Options {
    Options { segment_max_bytes: 4000, checkpoint_every: Duration::from_secs(3600), ..Options::default() }
}

pub(crate) fn append(writer: &mut Writer, n: u64) -> u64 {
    writer
        .append(&NewRecord {
            time_ns: 1_700_000_000_000_000_000 + n,
            tenant: "default",
            agent: "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            kind: "proc.exec",
            verdict: "allowed",
            detail: Detail::of(&serde_json::json!({"n": n, "argv": ["/bin/é", "a\"b\n"]})).unwrap(),
            ..NewRecord::default()
        })
        .unwrap()
}
