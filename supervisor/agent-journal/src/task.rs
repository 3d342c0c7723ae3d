//! What a job leaves behind: payloads of the records about checkpoints and results.
//!
//! Only init writes them, after the bytes they speak of are in a file of the agent's folder (or in the record itself), so a
//! reader that finds one finds the bytes, or other bytes whose SHA-256 says so. Decoding never trusts a length.

use crate::format::MAX_PAYLOAD;

/// The longest result.
pub const MAX_RESULT: usize = 1 << 20;
/// The longest text of a [`TaskNote`].
pub const MAX_NOTE: usize = 512;
const CHECKPOINT_LEN: usize = 56;
const RESULT_HEADER_LEN: usize = 48;

/// Payload of [`crate::Kind::Checkpoint`]: a checkpoint is complete. The same one can be told again, when output is about to push the
/// record out of a journal with a limit: the number is the same then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// 1 for the first of an incarnation, then one more each.
    pub number: u32,
    /// Which of the two files: `checkpoint.0` or `checkpoint.1`. It is written over by the checkpoint after the next.
    pub file: u8,
    /// Packed when the process had ended, without its `.commit`: whole only if it ended in order.
    pub at_end: bool,
    /// How many files and folders are in it.
    pub entries: u32,
    /// Bytes of the file.
    pub len: u64,
    /// Of these bytes.
    pub sha256: [u8; 32],
}

impl Checkpoint {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; CHECKPOINT_LEN] {
        let mut out = [0; CHECKPOINT_LEN];
        out[0] = self.file;
        out[1] = u8::from(self.at_end);
        out[4..8].copy_from_slice(&self.number.to_le_bytes());
        out[8..12].copy_from_slice(&self.entries.to_le_bytes());
        out[16..24].copy_from_slice(&self.len.to_le_bytes());
        out[24..].copy_from_slice(&self.sha256);
        out
    }

    /// Reads the bytes back.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != CHECKPOINT_LEN || bytes[0] > 1 || bytes[1] > 1 {
            return None;
        }
        Some(Self {
            file: bytes[0],
            at_end: bytes[1] == 1,
            number: u32::from_le_bytes(bytes[4..8].try_into().ok()?),
            entries: u32::from_le_bytes(bytes[8..12].try_into().ok()?),
            len: u64::from_le_bytes(bytes[16..24].try_into().ok()?),
            sha256: bytes[24..].try_into().ok()?,
        })
    }
}

/// Payload of [`crate::Kind::Result`]: UTF-8 of at most [`MAX_RESULT`] bytes; whether it is JSON is not known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskResult {
    /// Bytes of the result.
    pub len: u64,
    /// Of these bytes.
    pub sha256: [u8; 32],
    /// The result; none: it is in the file `result`.
    pub inline: Option<Vec<u8>>,
}

impl TaskResult {
    /// The longest that fits into a record.
    pub const MAX_INLINE: usize = MAX_PAYLOAD - RESULT_HEADER_LEN;

    /// The bytes on disk. A result over [`Self::MAX_INLINE`] must not be inline.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; RESULT_HEADER_LEN];
        out[0] = u8::from(self.inline.is_none());
        out[8..16].copy_from_slice(&self.len.to_le_bytes());
        out[16..48].copy_from_slice(&self.sha256);
        out.extend_from_slice(self.inline.as_deref().unwrap_or_default());
        out
    }

    /// Reads the bytes back.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(RESULT_HEADER_LEN)?;
        let len = u64::from_le_bytes(header[8..16].try_into().ok()?);
        let inline = match header[0] {
            0 if rest.len() as u64 == len => Some(rest.to_vec()),
            1 if rest.is_empty() && len <= MAX_RESULT as u64 => None,
            _ => return None,
        };
        Some(Self { len, sha256: header[16..48].try_into().ok()?, inline })
    }
}

/// What a [`TaskNote`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NoteAbout {
    /// A checkpoint was not taken; the one before still holds.
    CheckpointRefused = 1,
    /// There is a result that cannot be taken.
    ResultRefused = 2,
    /// A checkpoint was taken without some entries that are neither files nor folders.
    EntriesSkipped = 3,
}

/// Payload of [`crate::Kind::TaskNote`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskNote {
    /// About what.
    pub about: NoteAbout,
    /// For people; at most [`MAX_NOTE`] bytes, without control characters.
    pub text: String,
}

impl TaskNote {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut end = self.text.len().min(MAX_NOTE);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let mut out = vec![self.about as u8];
        out.extend_from_slice(&self.text.as_bytes()[..end]);
        out
    }

    /// Reads the bytes back.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&about, text) = bytes.split_first()?;
        let about = match about {
            1 => NoteAbout::CheckpointRefused,
            2 => NoteAbout::ResultRefused,
            3 => NoteAbout::EntriesSkipped,
            _ => return None,
        };
        let text = std::str::from_utf8(text).ok().filter(|t| t.len() <= MAX_NOTE)?;
        // Names of the agent's files are in it.
        let text = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(Self { about, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_round_trip() {
        let checkpoint =
            Checkpoint { number: 7, file: 1, at_end: true, entries: 3, len: 1 << 30, sha256: [9; 32] };
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Some(checkpoint));
        for inline in [Some(b"{}".to_vec()), Some(Vec::new()), None] {
            let len = inline.as_ref().map_or(1 << 20, |i| i.len() as u64);
            let result = TaskResult { len, sha256: [1; 32], inline };
            assert_eq!(TaskResult::decode(&result.encode()), Some(result));
        }
        let note = TaskNote { about: NoteAbout::EntriesSkipped, text: "a\u{1b}b".into() };
        assert_eq!(TaskNote::decode(&note.encode()).unwrap().text, "a?b");
        let long = TaskNote { about: NoteAbout::ResultRefused, text: "ä".repeat(1000) };
        assert_eq!(TaskNote::decode(&long.encode()).unwrap().text.len(), MAX_NOTE);
    }

    #[test]
    fn what_does_not_add_up_is_nothing() {
        assert_eq!(Checkpoint::decode(&[0; 55]), None);
        let mut bytes = [0; 56];
        bytes[0] = 2;
        assert_eq!(Checkpoint::decode(&bytes), None);
        let mut bytes = [0; 50];
        bytes[8] = 3;
        assert_eq!(TaskResult::decode(&bytes), None);
        assert_eq!(TaskResult::decode(&[]), None);
        assert_eq!(TaskNote::decode(&[9, 65]), None);
        assert_eq!(TaskNote::decode(&[1, 0xff]), None);
    }
}
