//! A batch: what is written together, or not at all. It copies what it is given into one buffer.

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::format::{self, CheckpointInfo};
use crate::keys::{self, Family};

#[derive(Debug, Clone, Copy)]
struct Op {
    family: Family,
    put: bool,
    key: u32,
    value: u32,
}

/// A checkpoint that goes when the batch is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drop {
    pub(crate) task: u64,
    /// Only numbers below this one.
    pub(crate) below: u32,
    /// How many of them stay, the newest.
    pub(crate) keep: usize,
}

/// The task that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedTask {
    /// Its number.
    pub task: u64,
    /// When, in ms since 1970. Retention goes by it.
    pub ended_ms: u64,
    /// Its last event; 0: it has none.
    pub last_event: u64,
}

/// Writes to be committed together. Later ones win over earlier ones of the same key.
#[derive(Debug, Default)]
pub struct Batch {
    buffer: Vec<u8>,
    ops: Vec<Op>,
    /// First and last of the events, to check that they continue the sequence.
    pub(crate) events: Option<(u64, u64)>,
    pub(crate) ended: u64,
    pub(crate) drops: Vec<Drop>,
    /// It has new work: refused when the disk is nearly full.
    pub(crate) admits: bool,
    /// Something that was handed in cannot be stored.
    pub(crate) refused: Option<Error>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks the batch as one that brings new work, which is refused while only the reserve is left.
    pub const fn admits_work(&mut self) {
        self.admits = true;
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.drops.is_empty()
    }

    /// Records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// An entity's new value.
    pub fn put_row(&mut self, key: &[u8], value: &[u8]) {
        self.push(Family::Rows, true, &[key], &[value]);
    }

    /// An entity is gone.
    pub fn delete_row(&mut self, key: &[u8]) {
        self.push(Family::Rows, false, &[key], &[]);
    }

    /// A task has ended: `rows` are its last ones. They leave the rows that a start reads, stay readable under the same
    /// keys with [`crate::Journal::ended_row`], and go with the task when retention drops it. Once per task.
    pub fn end_task(&mut self, ended: EndedTask, rows: &[(&[u8], &[u8])]) {
        self.end_task_again(ended, rows);
        self.ended += 1;
    }

    /// The same task once more, with the same time: something happened to it after its end, and its rows changed.
    pub fn end_task_again(&mut self, ended: EndedTask, rows: &[(&[u8], &[u8])]) {
        for (key, value) in rows {
            self.push(Family::Rows, false, &[key], &[]);
            self.push(Family::Ended, true, &[&[keys::ENDED_ROW], key], &[value]);
        }
        match format::ended(ended.last_event, rows.iter().map(|(key, _)| *key)) {
            Ok(entry) => {
                let at = keys::ended_at(ended.ended_ms, ended.task);
                self.push(Family::Ended, true, &[&at], &[&entry]);
            }
            Err(error) => self.refused = Some(error),
        }
    }

    /// The next event. `previous` is the event before it of the same task, 0 when it is the task's first; `task` 0 is for events that
    /// are about no task.
    pub fn event(&mut self, seq: u64, task: u64, previous: u64, bytes: &[u8]) {
        match &mut self.events {
            None => self.events = Some((seq, seq)),
            Some((_, last)) if last.checked_add(1) == Some(seq) => *last = seq,
            Some((_, last)) => self.refused = Some(Error::OutOfOrder { last: *last, found: seq }),
        }
        self.push(Family::Events, true, &[&seq.to_be_bytes()], &[&format::event_head(task, previous), bytes]);
    }

    /// What the core does not need of a task.
    pub fn body(&mut self, task: u64, bytes: &[u8]) {
        self.push(Family::Bodies, true, &[&task.to_be_bytes()], &[bytes]);
    }

    /// A task's result or error.
    pub fn result(&mut self, task: u64, bytes: &[u8]) {
        self.push(Family::Results, true, &[&task.to_be_bytes()], &[bytes]);
    }

    /// A checkpoint counts from this batch on. Of those before it only the newest stays.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let info: &CheckpointInfo = checkpoint.info();
        let key = keys::checkpoint(info.task, info.number);
        self.push(Family::Checkpoints, true, &[&key], &[&format::checkpoint(info)]);
        for (index, chunk) in (0..).zip(checkpoint.small()) {
            let key = keys::chunk(info.task, info.number, info.nonce, index);
            self.push(Family::SmallBlobs, true, &[&key], &[chunk]);
        }
        self.drops.push(Drop { task: info.task, below: info.number, keep: 1 });
    }

    /// Checkpoints with numbers below `below` go.
    pub fn drop_checkpoints(&mut self, task: u64, below: u32) {
        self.drops.push(Drop { task, below, keep: 0 });
    }

    /// Empties it and keeps its buffers.
    pub fn clear(&mut self) {
        let (mut buffer, mut ops) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.ops));
        buffer.clear();
        ops.clear();
        *self = Self { buffer, ops, ..Self::default() };
    }

    fn push(&mut self, family: Family, put: bool, key: &[&[u8]], value: &[&[u8]]) {
        let length = |parts: &[&[u8]]| u32::try_from(parts.iter().map(|part| part.len()).sum::<usize>());
        let (Ok(key_len), Ok(value_len)) = (length(key), length(value)) else {
            let detail = "more than 4 GiB".to_owned();
            self.refused = Some(Error::Corrupt { family: family.name(), detail });
            return;
        };
        for part in key.iter().chain(value) {
            self.buffer.extend_from_slice(part);
        }
        self.ops.push(Op { family, put, key: key_len, value: value_len });
    }

    /// Family, key and, for what is not a deletion, value of each record, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Family, &[u8], Option<&[u8]>)> {
        let mut rest = self.buffer.as_slice();
        self.ops.iter().map(move |op| {
            let (key, after) = rest.split_at(op.key as usize);
            let (value, after) = after.split_at(op.value as usize);
            rest = after;
            (op.family, key, op.put.then_some(value))
        })
    }
}
