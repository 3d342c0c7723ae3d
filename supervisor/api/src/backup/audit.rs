//! The audit log, while its writer appends and prunes: a copy that verifies.
//!
//! HEAD is read first, so that the segments, read after it, reach what it states. All segments are open before the first is copied: one that
//! is pruned meanwhile is read to its end all the same.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::backup::staging::{entries, failed};
use crate::problem::Outcome;

/// How often it is looked again when something was pruned in the middle.
const TRIES: u32 = 5;

/// One file of the log.
pub(super) enum Log {
    /// Small, and read.
    Statement(String, Vec<u8>),
    /// Open; so many bytes of it count.
    Segment(String, File, u64),
}

/// The log in `dir`, as of one moment; nothing where there is none.
pub(super) fn open(dir: &Path) -> Outcome<Vec<Log>> {
    let mut found = Err(io::Error::from(io::ErrorKind::NotFound));
    for _ in 0..TRIES {
        let base = fs::read(dir.join("BASE")).ok();
        found = look(dir)?;
        if found.is_ok() && fs::read(dir.join("BASE")).ok() == base {
            break;
        }
    }
    found.map_err(|error| failed("read", dir, &error))
}

/// The inner error: something went away in the middle, perhaps.
fn look(dir: &Path) -> Outcome<io::Result<Vec<Log>>> {
    let mut log = Vec::new();
    for name in ["HEAD", "BASE", "ORIGIN", "key.pub"] {
        match fs::read(dir.join(name)) {
            Ok(bytes) => log.push(Log::Statement(name.to_owned(), bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    for name in entries(dir)? {
        let name = name.to_string_lossy().into_owned();
        if !name.ends_with(".seg") {
            continue;
        }
        let opened = File::open(dir.join(&name)).and_then(|file| Ok((aion_audit::written(&file)?, file)));
        match opened {
            Ok((length, file)) => log.push(Log::Segment(name, file, length)),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(log))
}

impl Log {
    /// Its name and length.
    pub(super) fn parts(&self) -> (&str, u64) {
        match self {
            Self::Statement(name, bytes) => (name, bytes.len() as u64),
            Self::Segment(name, _, length) => (name, *length),
        }
    }
}
