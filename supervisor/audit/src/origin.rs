//! `ORIGIN`: what a new log goes on from when its state was restored from a backup.
//!
//! The old log's private key does not travel, so the old log cannot be continued: it stays beside as it was, and a new one with a key of its
//! own begins after its last record. Numbers go on, so that none means two records to whoever indexed the old ones. The file is read
//! once, by the writer that begins the new log; from then on the signed `BASE` says the same.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Hash, Result, segment};

const FILE: &str = "ORIGIN";

/// The last record of the log before, and what is worth knowing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The record's number.
    pub seq: u64,
    /// Its hash, as `verify` prints it.
    pub hash: Hash,
    /// For the record `audit.continued` with which the new log begins.
    pub detail: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Text {
    seq: u64,
    hash: String,
    #[serde(default)]
    detail: Map<String, Value>,
}

impl Origin {
    /// Writes it into the folder of a log that has not begun yet, readable by this group.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path, gid: Option<u32>) -> Result<()> {
        let text = Text { seq: self.seq, hash: self.hash.to_string(), detail: self.detail.clone() };
        let text = serde_json::to_vec(&text).map_err(|e| Error::DetailInvalid { why: e.to_string() })?;
        segment::install(dir, &dir.join(FILE), &text, gid)
    }

    /// Gives it to the group that may read the log, where a restore did not.
    pub(crate) fn share(dir: &Path, gid: Option<u32>) -> Result<()> {
        let path = dir.join(FILE);
        match gid.map_or(Ok(()), |gid| std::os::unix::fs::lchown(&path, None, Some(gid))) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("give away", &path)(e)),
            _ => Ok(()),
        }
    }

    /// None: there is none. One that cannot be read is an error: to begin at 1 would use numbers twice.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let invalid = || Error::OriginInvalid { path: path.clone() };
        let text: Text = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let hash = Hash::parse(&text.hash).ok_or_else(invalid)?;
        if text.seq == u64::MAX {
            return Err(invalid());
        }
        Ok(Some(Self { seq: text.seq, hash, detail: text.detail }))
    }
}
