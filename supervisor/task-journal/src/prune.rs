//! Retention: ended tasks go with everything that is theirs, the oldest first, a few at a time.
//!
//! What is contiguous goes as a range, the rest record by record: range marks are cheap to write and dear to read past.

use std::sync::PoisonError;

use rocksdb::WriteBatch;

use crate::batch::Drop;
use crate::commit::drop_checkpoints;
use crate::db;
use crate::error::Error;
use crate::events::event_seq;
use crate::format;
use crate::journal::Journal;
use crate::keys::{self, BODIES, ENDED, EVENTS, META, RESULTS};

/// From so many numbers in a row on a range is written.
const RANGE: u64 = 32;

/// What is kept of ended tasks.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Now, in ms since 1970.
    pub now_ms: u64,
    /// No longer than this.
    pub max_age_ms: u64,
    /// No more than this.
    pub max_tasks: u64,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Tasks.
    pub tasks: u64,
    /// Events.
    pub events: u64,
    /// There are more that are due.
    pub more: bool,
}

struct Due {
    until: Option<[u8; 17]>,
    rows: Vec<Vec<u8>>,
    tasks: Vec<u64>,
    last_events: Vec<u64>,
    more: bool,
}

impl Journal {
    /// Drops ended tasks that are too old or too many, at most `limit` in this call.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn prune(&self, retention: &Retention, limit: usize) -> Result<Pruned, Error> {
        let _alone = self.pruning.lock().unwrap_or_else(PoisonError::into_inner);
        let Due { until: Some(until), rows, mut tasks, last_events, more } = self.due(retention, limit)?
        else {
            self.sweep()?;
            return Ok(Pruned::default());
        };
        let old_floor = self.number(keys::META_PRUNED)?.unwrap_or(0);
        let mut events = Vec::new();
        for last in last_events {
            let page = self.history(last, usize::MAX)?;
            events.extend(page.events.iter().map(|event| event.seq));
        }
        let floor = events.iter().copied().fold(old_floor, u64::max);
        self.events_of_no_task(old_floor, floor, &mut events)?;
        events.sort_unstable();
        tasks.sort_unstable();
        self.room.check(false)?;
        let mut head = self.lock_head();
        if head.failed || self.is_read_only() {
            return Err(Error::Failed);
        }
        let ended = head.ended.saturating_sub(tasks.len() as u64);
        let stamp = head.next(head.last_event);
        let mut doomed = Vec::new();
        self.with_db(|db| {
            let mut write = WriteBatch::default();
            stamp.put(db, &mut write)?;
            let family = db::handle(db, ENDED)?;
            for key in &rows {
                write.delete_cf(family, keys::ended_row(key));
            }
            let mut after = until.to_vec();
            after.push(0);
            write.delete_range_cf(family, keys::ended_at(0, 0).to_vec(), after);
            for (name, numbers) in [(EVENTS, &events), (BODIES, &tasks), (RESULTS, &tasks)] {
                let family = db::handle(db, name)?;
                for (first, last) in runs(numbers) {
                    match last.checked_add(1).filter(|_| last - first >= RANGE) {
                        Some(end) => write.delete_range_cf(family, first.to_be_bytes(), end.to_be_bytes()),
                        None => (first..=last).for_each(|n| write.delete_cf(family, n.to_be_bytes())),
                    }
                }
            }
            for &task in &tasks {
                drop_checkpoints(db, Drop { task, below: u32::MAX, keep: 0 }, &mut write, &mut doomed)?;
            }
            let meta = db::handle(db, META)?;
            write.put_cf(meta, keys::META_ENDED, ended.to_be_bytes());
            write.put_cf(meta, keys::META_PRUNED, floor.to_be_bytes());
            self.write(db, write, &mut head)
        })?;
        head.ended = ended;
        head.stamped(stamp);
        drop(head);
        self.doom(doomed);
        self.sweep()?;
        self.room.forget();
        Ok(Pruned { tasks: tasks.len() as u64, events: events.len() as u64, more })
    }

    fn due(&self, retention: &Retention, limit: usize) -> Result<Due, Error> {
        let ended = self.lock_head().ended;
        let mut surplus = ended.saturating_sub(retention.max_tasks);
        let oldest = retention.now_ms.saturating_sub(retention.max_age_ms);
        let mut due =
            Due { until: None, rows: Vec::new(), tasks: Vec::new(), last_events: Vec::new(), more: false };
        self.scan(ENDED, &keys::ended_at(0, 0), |key, value| {
            let Some((ended_ms, task)) = keys::ended_at_parts(key) else { return Ok(false) };
            if surplus == 0 && ended_ms >= oldest {
                return Ok(false);
            }
            if due.tasks.len() >= limit {
                due.more = true;
                return Ok(false);
            }
            surplus = surplus.saturating_sub(1);
            let entry = format::ended_entry(value)?;
            due.rows.extend(entry.keys.iter().map(|key| key.to_vec()));
            due.last_events.push(entry.last_event);
            due.tasks.push(task);
            due.until = Some(keys::ended_at(ended_ms, task));
            Ok::<_, Error>(true)
        })?;
        Ok(due)
    }

    /// Events about no task have no row that ends: they go with the events around them.
    fn events_of_no_task(&self, after: u64, until: u64, events: &mut Vec<u64>) -> Result<(), Error> {
        self.scan(EVENTS, &after.saturating_add(1).to_be_bytes(), |key, value| {
            let seq = event_seq(key)?;
            let (task, _, _) = format::event_parts(value)?;
            if seq <= until && task == 0 {
                events.push(seq);
            }
            Ok(seq < until)
        })
    }
}

/// Runs of consecutive numbers in a sorted list: first and last of each.
fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &n in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last == n || last.checked_add(1) == Some(n) => *last = n,
            _ => runs.push((n, n)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn runs_are_found() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[1, 2, 2, 3, 7, 9, 10, u64::MAX]), [(1, 3), (7, 7), (9, 10), (u64::MAX, u64::MAX)]);
    }
}
