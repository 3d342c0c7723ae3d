//! Signed statements beside the segments: `HEAD` says how far the log reached, `BASE` where it begins.
//!
//! HEAD makes a cut tail and a removed last segment show; BASE lets old segments be pruned without the
//! log looking as if somebody had removed them. Each file is one line with exactly one byte form.

use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use crate::key::{Key, PublicKey};
use crate::{Error, Hash, Result, segment};

/// `HEAD` or `BASE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement {
    /// HEAD: the newest segment. BASE: the oldest that is kept.
    pub(crate) segment: u64,
    /// HEAD: the last record. BASE: the first that is kept.
    pub(crate) seq: u64,
    /// The chain there. HEAD: after the last line that it knows. BASE: before the oldest segment's header.
    pub(crate) hash: Hash,
    pub(crate) time: u64,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Head,
    Base,
}

/// What was found in the place of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Valid(Statement),
    Missing,
    /// Not in its one form, or not signed by this key.
    Forged,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementLine<'a> {
    statement: &'a str,
    segment: u64,
    seq: u64,
    hash: &'a str,
    time: u64,
    sig: &'a str,
}

impl Which {
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Head => "HEAD",
            Self::Base => "BASE",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Base => "base",
        }
    }
}

impl Statement {
    fn message(&self, which: Which) -> Vec<u8> {
        let mut message = format!("aion-audit/1 {}\0", which.word()).into_bytes();
        for number in [self.segment, self.seq, self.time] {
            message.extend_from_slice(&number.to_le_bytes());
        }
        message.extend_from_slice(self.hash.as_bytes());
        message
    }

    fn text(&self, which: Which, signature: &str) -> String {
        let Self { segment, seq, hash, time } = self;
        let word = which.word();
        format!(
            "{{\"statement\":\"{word}\",\"segment\":{segment},\"seq\":{seq},\"hash\":\"{hash}\",\"time\":{time},\"sig\":\"{signature}\"}}\n"
        )
    }

    /// Signs it and puts it in its place.
    pub(crate) fn write(&self, which: Which, dir: &Path, key: &Key, gid: Option<u32>) -> Result<()> {
        let text = self.text(which, &key.sign(&self.message(which)));
        segment::install(dir, &dir.join(which.file()), text.as_bytes(), gid)
    }

    /// Reads what is there.
    pub(crate) fn read(which: Which, dir: &Path, key: &PublicKey) -> Result<Found> {
        let path = dir.join(which.file());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        Ok(Self::parse(which, &bytes, key).map_or(Found::Forged, Found::Valid))
    }

    fn parse(which: Which, bytes: &[u8], key: &PublicKey) -> Option<Self> {
        let read: StatementLine<'_> = serde_json::from_slice(bytes).ok()?;
        let found =
            Self { segment: read.segment, seq: read.seq, hash: Hash::parse(read.hash)?, time: read.time };
        let canonical = read.statement == which.word() && found.text(which, read.sig).as_bytes() == bytes;
        (canonical && key.verifies(&found.message(which), read.sig)).then_some(found)
    }
}
