//! What the process of an attempt leaves behind, read from its journal and its folder.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aion_agent_journal::{Checkpoint as Record, Item, NoteAbout, Reader, TaskNote};
use sha2::{Digest as _, Sha256};

/// The largest result.
const MAX_RESULT: u64 = 1 << 20;

/// What records say that a process left behind. The last of them may be read before it is known that the process has ended.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Counts at once.
    pub(crate) checkpoint: Option<Record>,
    /// Was made when the process ended, and counts only when it made room.
    pub(crate) at_end: Option<Record>,
    pub(crate) result: Option<Result<Vec<u8>, String>>,
    /// What is missing in a checkpoint, or why there is none.
    pub(crate) note: Option<String>,
    /// What it left is not there any more, or its result is not: nobody knows what it did. So it is in a state from a backup, when the
    /// original removed it between the moment of the backup and the copy of its folder.
    pub(crate) gone: bool,
}

impl Left {
    /// What was left later takes the place of what was before.
    pub(crate) fn add(&mut self, later: Self) {
        let Self { checkpoint, at_end, result, note, gone } = later;
        self.gone = gone;
        self.checkpoint = checkpoint.or(self.checkpoint.take());
        self.at_end = at_end.or(self.at_end.take());
        self.result = result.or(self.result.take());
        self.note = note.or(self.note.take());
    }
}

/// The newest checkpoint and the result among the records from a cursor on, and where to go on.
pub(crate) fn read(folder: &Path, cursor: u64) -> Result<(Left, u64), String> {
    let file = match File::open(folder.join("journal")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Left { gone: true, ..Left::default() }, cursor));
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut reader = match Reader::open(file, cursor) {
        Ok(reader) => reader,
        // It is still empty.
        Err(aion_agent_journal::Error::NotAJournal) => return Ok((Left::default(), cursor)),
        Err(error) => return Err(error.to_string()),
    };
    let mut left = Left::default();
    while let Some(item) = reader.next_event().map_err(|error| error.to_string())? {
        let Item::Record(record) = item else { continue };
        if let Some(checkpoint) = record.checkpoint() {
            *(if checkpoint.at_end { &mut left.at_end } else { &mut left.checkpoint }) = Some(checkpoint);
        }
        if let Some(result) = record.result() {
            left.gone = result.inline.is_none() && !folder.join("result").exists();
            left.result = Some(result_of(folder, result));
        }
        if let Some(TaskNote { about, text }) = record.task_note() {
            match about {
                // There is a result, and it cannot be taken: that is not the same as none.
                NoteAbout::ResultRefused => left.result = Some(Err(text)),
                NoteAbout::CheckpointRefused => left.note = Some(format!("a checkpoint was refused: {text}")),
                NoteAbout::EntriesSkipped => {
                    left.note = Some(format!("a checkpoint is not complete: {text}"));
                }
            }
        }
    }
    Ok((left, reader.cursor()))
}

fn result_of(folder: &Path, told: aion_agent_journal::TaskResult) -> Result<Vec<u8>, String> {
    let bytes = match told.inline {
        Some(bytes) => bytes,
        None => {
            let mut bytes = Vec::new();
            File::open(folder.join("result"))
                .and_then(|file| file.take(MAX_RESULT).read_to_end(&mut bytes))
                .map_err(|error| format!("the result cannot be read: {error}"))?;
            bytes
        }
    };
    if <[u8; 32]>::from(Sha256::digest(&bytes)) != told.sha256 {
        return Err("the result is not the one that was told".to_owned());
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
        .map_err(|error| format!("the result is not JSON: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_went_away_is_not_one_in_which_nothing_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let (left, cursor) = read(folder.path(), 7).unwrap();
        assert!(left.gone && left.result.is_none() && cursor == 7);
        std::fs::write(folder.path().join("journal"), b"").unwrap();
        let (later, _) = read(folder.path(), 7).unwrap();
        assert!(!later.gone, "it is still empty");
        let mut all = left;
        all.add(later);
        assert!(!all.gone, "what is seen last counts");
    }
}
