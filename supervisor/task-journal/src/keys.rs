//! Families and their keys. Numbers are big endian, so that keys sort as numbers do.

/// `schema`, `epoch`, `events`, `pruned`, `ended`, `stamp`, `lines`.
pub(crate) const META: &str = "meta";
/// Entities of the core that live.
pub(crate) const ROWS: &str = "rows";
/// Rows of tasks that have ended, and their order in time: what a start need not read.
pub(crate) const ENDED: &str = "ended";
/// What the core does not need of a task.
pub(crate) const BODIES: &str = "bodies";
/// Events by sequence number.
pub(crate) const EVENTS: &str = "events";
/// What is known of each checkpoint.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// The data of small checkpoints, written with the batch.
pub(crate) const SMALL_BLOBS: &str = "small_blobs";
/// The data of large checkpoints, one table file each.
pub(crate) const BLOBS: &str = "blobs";
/// Results and errors.
pub(crate) const RESULTS: &str = "results";

/// All of them. The place in this list is the family's number in a batch and in an export.
pub(crate) const ALL: [&str; 9] =
    [META, ROWS, ENDED, BODIES, EVENTS, CHECKPOINTS, SMALL_BLOBS, BLOBS, RESULTS];

pub(crate) const META_SCHEMA: &[u8] = b"schema";
pub(crate) const META_EPOCH: &[u8] = b"epoch";
/// The newest event.
pub(crate) const META_EVENTS: &[u8] = b"events";
/// The newest event that retention has dropped; above it there are no gaps.
pub(crate) const META_PRUNED: &[u8] = b"pruned";
/// How many ended tasks there are.
pub(crate) const META_ENDED: &[u8] = b"ended";
/// Number, newest event and time of the last write; each write has it.
pub(crate) const META_STAMP: &[u8] = b"stamp";
/// What the clock said at a write whose time is later, because the clock had gone back. Only such writes have it.
pub(crate) const META_CLOCK: &[u8] = b"clock";
/// From which write on the journal is on which line.
pub(crate) const META_LINES: &[u8] = b"lines";
/// The epoch of the start that began the newest line.
pub(crate) const META_LINE_EPOCH: &[u8] = b"line-epoch";

/// A family that batches write, with its place in [`ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Family {
    Rows = 1,
    Ended = 2,
    Bodies = 3,
    Events = 4,
    Checkpoints = 5,
    SmallBlobs = 6,
    Results = 8,
}

impl Family {
    pub(crate) const fn name(self) -> &'static str {
        ALL[self as usize]
    }
}

/// In `ended`: a row, under the key it had in `rows`.
pub(crate) const ENDED_ROW: u8 = b'r';
/// In `ended`: time and task.
pub(crate) const ENDED_AT: u8 = b'a';

pub(crate) fn ended_row(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(ENDED_ROW);
    out.extend_from_slice(key);
    out
}

pub(crate) fn ended_at(ended_ms: u64, task: u64) -> [u8; 17] {
    let mut out = [ENDED_AT; 17];
    out[1..9].copy_from_slice(&ended_ms.to_be_bytes());
    out[9..].copy_from_slice(&task.to_be_bytes());
    out
}

/// Time and task of a key that [`ended_at`] made.
pub(crate) fn ended_at_parts(key: &[u8]) -> Option<(u64, u64)> {
    let rest = key.strip_prefix(&[ENDED_AT])?;
    let (ms, task) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*ms), number(task)?))
}

/// A number that is a whole key or value.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes)
}

pub(crate) fn checkpoint(task: u64, number: u32) -> [u8; 12] {
    let mut out = [0; 12];
    out[..8].copy_from_slice(&task.to_be_bytes());
    out[8..].copy_from_slice(&number.to_be_bytes());
    out
}

/// Task and number of a checkpoint's key, or of the key of one of its chunks.
pub(crate) fn checkpoint_parts(key: &[u8]) -> Option<(u64, u32)> {
    let (task, rest) = key.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<4>()?;
    Some((u64::from_be_bytes(*task), u32::from_be_bytes(*number)))
}

/// A chunk of a checkpoint's data. The nonce keeps a second try apart from a first one that was never committed.
pub(crate) fn chunk(task: u64, number: u32, nonce: u64, index: u32) -> [u8; 24] {
    let mut out = [0; 24];
    out[..12].copy_from_slice(&checkpoint(task, number));
    out[12..20].copy_from_slice(&nonce.to_be_bytes());
    out[20..].copy_from_slice(&index.to_be_bytes());
    out
}

/// The nonce of a chunk's key.
pub(crate) fn chunk_nonce(key: &[u8]) -> Option<u64> {
    key.get(12..20).and_then(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_where_the_list_has_them() {
        let expected = [
            (Family::Rows, ROWS),
            (Family::Ended, ENDED),
            (Family::Bodies, BODIES),
            (Family::Events, EVENTS),
            (Family::Checkpoints, CHECKPOINTS),
            (Family::SmallBlobs, SMALL_BLOBS),
            (Family::Results, RESULTS),
        ];
        for (family, name) in expected {
            assert_eq!(family.name(), name);
        }
    }

    #[test]
    fn keys_come_apart_again() {
        assert_eq!(ended_at_parts(&ended_at(5, 7)), Some((5, 7)));
        assert_eq!(ended_at_parts(&ended_row(b"x")), None);
        let key = chunk(1, 2, 3, 4);
        assert_eq!((checkpoint_parts(&key), chunk_nonce(&key)), (Some((1, 2)), Some(3)));
        assert!(checkpoint(1, u32::MAX) < checkpoint(2, 0));
    }
}
