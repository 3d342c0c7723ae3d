//! Writing a piece.

use std::io::Write;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::piece::{
    BEGINS_LINE, BEGINS_LINE_BEHIND, CHECK, COMMIT, COMMIT_BEHIND, Commit, END, Header, Line, MAGIC,
    MAX_BATCH, Position,
};
use crate::{Error, Result};

/// A piece that is being written. Without [`PieceWriter::finish`] it is none.
pub struct PieceWriter<W> {
    out: W,
    hash: Sha256,
    at: Position,
}

impl<W> std::fmt::Debug for PieceWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PieceWriter").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<W: Write> PieceWriter<W> {
    /// Begins one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(out: W, header: &Header) -> Result<Self> {
        let at = Position { commit: header.from, line: header.line, ..Position::default() };
        let mut this = Self { out, hash: Sha256::new(), at };
        this.put(MAGIC)?;
        this.put(&header.schema.to_be_bytes())?;
        this.put(&length(&header.families)?.to_be_bytes())?;
        this.put(&header.families)?;
        this.put(&header.from.to_be_bytes())?;
        this.put(&header.line.0)?;
        this.put(&[u8::from(header.begins)])?;
        this.check()?;
        Ok(this)
    }

    /// The next commit.
    ///
    /// # Errors
    /// It is not the next one, or it cannot be written.
    pub fn commit(&mut self, commit: &Commit, batch: &[u8]) -> Result<()> {
        if !follows(&self.at, commit) {
            let what = format!("commit {} does not follow {}", commit.commit, self.at.commit);
            return Err(Error::Gap { what });
        }
        self.put(&[match (commit.line, commit.clock_ms) {
            (None, None) => COMMIT,
            (Some(_), None) => BEGINS_LINE,
            (None, Some(_)) => COMMIT_BEHIND,
            (Some(_), Some(_)) => BEGINS_LINE_BEHIND,
        }])?;
        for number in [commit.commit, commit.event, commit.time_ms] {
            self.put(&number.to_be_bytes())?;
        }
        if let Some(Line(line)) = &commit.line {
            self.put(line)?;
        }
        if let Some(clock_ms) = commit.clock_ms {
            self.put(&clock_ms.to_be_bytes())?;
        }
        self.put(&length(batch)?.to_be_bytes())?;
        self.put(batch)?;
        self.check()?;
        self.at = after(&self.at, commit);
        Ok(())
    }

    /// After the last commit that was written.
    #[must_use]
    pub const fn at(&self) -> Position {
        self.at
    }

    /// Ends it, and gives back where it went.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self, until_ms: u64, hint: u64) -> Result<W> {
        let Position { commit, event, time_ms, line } = self.at;
        self.put(&[END])?;
        for number in [commit, event, time_ms] {
            self.put(&number.to_be_bytes())?;
        }
        self.put(&line.0)?;
        self.put(&until_ms.to_be_bytes())?;
        self.put(&hint.to_be_bytes())?;
        self.check()?;
        self.out.flush().map_err(unwritten())?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(unwritten())
    }

    fn check(&mut self) -> Result<()> {
        let sum = self.hash.clone().finalize();
        self.put(&sum[..CHECK])
    }
}

/// Whether a commit can come next.
pub(super) fn follows(at: &Position, commit: &Commit) -> bool {
    at.commit.checked_add(1) == Some(commit.commit)
        && commit.event >= at.event
        && commit.time_ms >= at.time_ms
        && commit.clock_ms.is_none_or(|clock_ms| clock_ms < commit.time_ms)
}

pub(super) fn after(at: &Position, commit: &Commit) -> Position {
    let Commit { commit, event, time_ms, line, .. } = *commit;
    Position { commit, event, time_ms, line: line.unwrap_or(at.line) }
}

fn length(bytes: &[u8]) -> Result<u32> {
    let length = u32::try_from(bytes.len()).ok().filter(|&length| length <= MAX_BATCH);
    length.ok_or_else(|| Error::Gap { what: format!("a commit of {} bytes has no place in it", bytes.len()) })
}

fn unwritten() -> impl FnOnce(std::io::Error) -> Error {
    Error::io("write", Path::new("the archive"))
}
