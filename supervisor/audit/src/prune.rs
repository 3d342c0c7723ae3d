//! Retention: the oldest segments go, and a signed `BASE` says from where the log is kept.

use std::fs;

use serde_json::json;

use crate::statement::{Statement, Which};
use crate::writer::now;
use crate::{Detail, Error, NewRecord, Result, Writer, segment};

/// What pruning removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// How many segments went.
    pub segments: u64,
    /// The first record that is kept; 0 when nothing went.
    pub first_seq: u64,
}

impl Writer {
    /// Removes the oldest sealed segments until all segments together have at most `max_bytes`. The newest
    /// segment always stays. What went is told by a record `audit.pruned`, and written in `BASE`, before it goes.
    ///
    /// # Errors
    /// What the file system says. Segments that were to go and did not are removed when the log is next opened.
    pub fn prune_to(&mut self, max_bytes: u64) -> Result<Pruned> {
        let mut sizes = Vec::new();
        for number in segment::list(&self.dir)? {
            let path = segment::path(&self.dir, number);
            sizes.push((number, fs::metadata(&path).map_err(Error::io("read", &path))?.len()));
        }
        let mut total: u64 = sizes.iter().map(|&(_, bytes)| bytes).sum();
        let gone: Vec<u64> = sizes
            .iter()
            .filter(|&&(number, _)| number < self.segment)
            .take_while(|&&(_, bytes)| {
                let goes = total > max_bytes;
                total -= bytes;
                goes
            })
            .map(|&(number, _)| number)
            .collect();
        let kept = sizes.iter().map(|&(number, _)| number).find(|number| !gone.contains(number));
        let (Some(&last_gone), Some(kept)) = (gone.last(), kept) else { return Ok(Pruned::default()) };
        // A damaged header is evidence: nothing is pruned up to it.
        let Some((header, _)) = segment::header(&self.dir, kept)? else { return Ok(Pruned::default()) };
        self.append(&NewRecord {
            kind: "audit.pruned",
            verdict: "allowed",
            rule: "retention",
            detail: Detail::from_value(&json!({"segments_to": last_gone, "first_seq": header.first}))?,
            ..NewRecord::default()
        })?;
        self.checkpoint()?;
        let base = Statement { segment: kept, seq: header.first, hash: header.prev, time: now() };
        base.write(Which::Base, &self.dir, &self.key, self.options.gid)?;
        for &number in &gone {
            let path = segment::path(&self.dir, number);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(Pruned { segments: gone.len() as u64, first_seq: header.first })
    }
}
