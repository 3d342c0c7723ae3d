//! kill -9 of a writer: what it acknowledged is there, batches are whole, no epoch comes twice.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::{load, open};

pub(crate) const DIR: &str = "AION_TASK_JOURNAL_TEST_DIR";

/// Runs in the child: commits and says which are acknowledged, until it is killed.
#[test]
fn child_commits_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let journal = Arc::new(open(Path::new(&dir)));
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nepoch {}", journal.epoch()).unwrap();
    for n in load::count(&journal) + 1.. {
        load::step(&journal, n);
        writeln!(out, "acknowledged {n}").unwrap();
    }
}

/// A child that commits.
pub(crate) struct Writing {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    pub(crate) epoch: u64,
    pub(crate) acknowledged: u64,
}

impl Writing {
    pub(crate) fn start(dir: &Path, environment: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_commits_until_killed", "--nocapture"])
            .env(DIR, dir)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, epoch: 0, acknowledged: 0 }
    }

    fn note(&mut self, line: &str) {
        if let Some(n) = line.strip_prefix("acknowledged ") {
            self.acknowledged = n.parse().unwrap_or(self.acknowledged);
        } else if let Some(n) = line.strip_prefix("epoch ") {
            self.epoch = n.parse().unwrap_or(self.epoch);
        }
    }

    /// Waits for so many commits, and a moment.
    pub(crate) fn run(&mut self, commits: u64, moment: Duration) {
        let mut seen = 0;
        while seen < commits {
            let Some(Ok(line)) = self.lines.next() else {
                let mut text = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
                panic!("the child ended: {text}");
            };
            seen += u64::from(line.starts_with("acknowledged "));
            self.note(&line);
        }
        std::thread::sleep(moment);
    }

    pub(crate) fn kill(mut self) -> (u64, u64) {
        self.child.kill().unwrap();
        while let Some(Ok(line)) = self.lines.next() {
            self.note(&line);
        }
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.contains("panicked"), "{text}");
        self.child.wait().unwrap();
        (self.epoch, self.acknowledged)
    }
}

/// Numbers that look random and are the same each time.
pub(crate) fn dice(round: u64) -> u64 {
    let mut x = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

#[test]
fn nothing_acknowledged_is_lost_and_no_batch_is_torn() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (mut before, mut epoch) = (0, 0);
    for round in 0..30u64 {
        let mut child = Writing::start(dir.path(), &[]);
        // Every fifth dies while it opens the journal.
        let commits = if round % 5 == 4 { 0 } else { 1 + dice(round) % 60 };
        child.run(commits, Duration::from_micros(dice(round) % 20_000));
        let (child_epoch, acknowledged) = child.kill();
        let journal = open(dir.path());
        assert!(journal.epoch() > epoch.max(child_epoch));
        epoch = journal.epoch();
        let there = load::verify(&journal);
        assert!(
            there >= acknowledged.max(before),
            "{there} commits are there, {acknowledged} were acknowledged"
        );
        assert!(acknowledged == 0 || there <= acknowledged + 1);
        before = there;
    }
}
