//! kill -9 of a writer: what it acknowledged is there, and batches are whole.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use aion_store::{AgentState, Batch, Durability, EventQuery, EventRow};

use crate::{id, open, record, tenant};

const DIR: &str = "AION_STORE_TEST_DIR";

/// Runs in the child: writes batches and says which it has acknowledged, until it is killed.
#[test]
fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = open(std::path::Path::new(&dir));
    let mut agent = record("a", 1, "x");
    let from = store.cursor().unwrap();
    let mut out = std::io::stdout().lock();
    for n in (from / 3).. {
        let rows: Vec<_> = (1..=3)
            .map(|k| EventRow {
                seq: n * 3 + k,
                tenant: "a".into(),
                agent: id(1).to_string(),
                ..EventRow::default()
            })
            .collect();
        agent.dropped_events = n + 1;
        agent.state = AgentState::ALL[usize::try_from(n % 7).unwrap()];
        let mut batch = Batch::bookkeeping();
        batch.index_events(&rows);
        batch.put_agent(&agent).unwrap();
        store.commit(batch, Durability::Process).unwrap();
        writeln!(out, "\nacknowledged {}", n + 1).unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_no_batch_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_writes_until_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let target = before + 50 + round * 37;
        let mut acknowledged = before;
        while acknowledged < target {
            let line = lines.next().unwrap().unwrap();
            if let Some(n) = line.strip_prefix("acknowledged ") {
                acknowledged = n.parse().unwrap();
            }
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("acknowledged ") {
                acknowledged = n.parse().unwrap_or(acknowledged);
            }
        }
        child.wait().unwrap();

        let store = open(dir.path());
        let agent = store.agent(&tenant("a"), &id(1)).unwrap().unwrap();
        let batches = agent.dropped_events;
        assert!(batches >= acknowledged, "{batches} batches are there, {acknowledged} were acknowledged");
        assert!(batches <= acknowledged + 2);
        assert_eq!(store.cursor().unwrap(), batches * 3);
        let query = EventQuery::of_tenant(tenant("a"), true);
        let rows = store.events_after(&query, 0, 100_000, 100_000).unwrap().rows;
        assert_eq!(rows.len() as u64, batches * 3);
        before = batches;
    }
}
