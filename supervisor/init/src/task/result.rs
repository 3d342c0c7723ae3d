//! A job's result: a file of UTF-8 text that its process has left. Whether it is JSON, aiond decides.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use aion_agent_journal::{Kind, MAX_RESULT, NoteAbout, TaskNote, TaskResult};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::pack::open;
use crate::journal::Journal;

const NAME: &[u8] = b"result";

/// Records the result, if there is one; false when the disk does not take it now.
pub(super) fn take(root: BorrowedFd<'_>, out: &File, journal: &mut Journal) -> bool {
    let bytes = match read(root) {
        Ok(None) => return true,
        Ok(Some(bytes)) => bytes,
        Err(text) => {
            return journal
                .task(Kind::TaskNote, &TaskNote { about: NoteAbout::ResultRefused, text }.encode());
        }
    };
    let mut result =
        TaskResult { len: bytes.len() as u64, sha256: Sha256::digest(&bytes).into(), inline: None };
    if bytes.len() <= TaskResult::MAX_INLINE {
        result.inline = Some(bytes);
    } else if out.write_all_at(&bytes, 0).and_then(|()| out.sync_data()).is_err() {
        return false;
    }
    journal.task(Kind::Result, &result.encode())
}

fn read(root: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, String> {
    let file = match open(root, NAME) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|e| format!("the result cannot be read: {e}"))?,
    };
    let stat = fstat(&file).map_err(|e| format!("the result cannot be read: {e}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("the result is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::from(file)
        .take(MAX_RESULT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("the result cannot be read: {e}"))?;
    if bytes.len() > MAX_RESULT {
        return Err(format!("the result is larger than {MAX_RESULT} bytes"));
    }
    if std::str::from_utf8(&bytes).is_err() {
        return Err("the result is not UTF-8".to_owned());
    }
    Ok(Some(bytes))
}
