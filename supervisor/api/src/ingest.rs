//! The event index grows out of the audit log: rows and cursor in one batch, so that a record is indexed exactly once
//! whenever the daemon dies.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aion_audit::{Reader, Record};
use aion_store::{Batch, Durability, EventRow, Store};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::core::Core;

/// Records in one batch.
const STEP: usize = 512;
/// Without a notice the log is looked at this often.
const LOOK: Duration = Duration::from_secs(2);

impl Core {
    pub(crate) async fn index(self: Arc<Self>, wake: Arc<Notify>) {
        let dir = self.options.state.join("audit");
        let mut reader = None;
        self.index_before_restore().await;
        loop {
            let store = Arc::clone(&self.store);
            let (taken, path) = (reader.take(), dir.clone());
            let step = tokio::task::spawn_blocking(move || {
                let mut reader = taken;
                let result = step(&store, &mut reader, &path);
                (reader, result)
            })
            .await;
            let result = match step {
                Ok((back, result)) => {
                    reader = back;
                    result
                }
                Err(error) => Err(format!("indexing did not run to its end: {error}")),
            };
            match result {
                Ok(Step { cursor, more }) => {
                    self.indexed.send_if_modified(|known| std::mem::replace(known, cursor) != cursor);
                    if !more {
                        let _ = timeout(LOOK, wake.notified()).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(error, "cannot index audit records");
                    reader = None;
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// In a restored state the log that came with the backup lies beside. The last of its records may be younger than the copy of the
    /// database: they are indexed before those of the log that goes on from there.
    async fn index_before_restore(&self) {
        let (store, archive) = (Arc::clone(&self.store), self.options.state.join("audit-archive"));
        let indexed = tokio::task::spawn_blocking(move || index_archive(&store, &archive)).await;
        match indexed {
            Ok(Ok(0)) => {}
            Ok(Ok(records)) => tracing::info!(records, "indexed audit records of before the restore"),
            Ok(Err(error)) => tracing::error!(error, "audit records of before the restore are not indexed"),
            Err(error) => tracing::error!(%error, "indexing did not run to its end"),
        }
    }

    /// The audit log's folder.
    pub(crate) fn audit_dir(&self) -> PathBuf {
        self.options.state.join("audit")
    }
}

struct Step {
    cursor: u64,
    more: bool,
}

fn step(store: &Store, reader: &mut Option<Reader>, dir: &Path) -> Result<Step, String> {
    let cursor = store.cursor().map_err(|error| error.to_string())?;
    if !dir.is_dir() {
        // The launcher has not made it yet.
        return Ok(Step { cursor, more: false });
    }
    let reader = match reader {
        Some(reader) => reader,
        none => none.insert(Reader::open(dir).map_err(|error| error.to_string())?),
    };
    let records = reader.read_after(cursor, STEP).map_err(|error| error.to_string())?;
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Ok(Step { cursor, more: false });
    };
    if first.seq > cursor.saturating_add(1) {
        tracing::warn!(from = cursor + 1, to = first.seq - 1, "audit records are not there to be indexed");
    }
    let (last, more) = (last.seq, records.len() == STEP);
    let rows: Vec<EventRow> = records.into_iter().map(row).collect();
    let mut batch = Batch::bookkeeping();
    batch.index_events(&rows);
    store.commit(batch, Durability::Process).map_err(|error| error.to_string())?;
    Ok(Step { cursor: last, more })
}

/// Logs of earlier states, in order; gives how many records were new.
fn index_archive(store: &Store, archive: &Path) -> Result<u64, String> {
    let Ok(entries) = std::fs::read_dir(archive) else { return Ok(0) };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.sort();
    let before = store.cursor().map_err(|error| error.to_string())?;
    for log in logs {
        let mut reader = None;
        while step(store, &mut reader, &log)?.more {}
    }
    Ok(store.cursor().map_err(|error| error.to_string())?.saturating_sub(before))
}

pub(crate) fn row(record: Record) -> EventRow {
    EventRow {
        seq: record.seq,
        time_ns: record.time_ns,
        tenant: record.tenant,
        agent: record.agent,
        task: record.task,
        trace: record.trace,
        kind: record.kind,
        verdict: record.verdict,
        rule: record.rule,
        detail_json: record.detail_json,
    }
}
