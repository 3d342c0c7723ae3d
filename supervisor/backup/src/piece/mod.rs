//! Pieces of the tasks' journal: what it committed after a backup, so that a restore can go on from there to a point in time.
//!
//! ```text
//! "AIONJPC1" | schema u32 | length u32, families | commit u64, line | begins u8 | check
//! 1 | commit u64 | event u64 | time u64 | length u32, batch | check          a commit, as the database wrote it
//! 2 | the same, with a line of 16 bytes before the length                    one that begins a line
//! 3, 4 | as 1 and 2, with what the clock said, u64, before the length        the clock had gone back behind the time
//! 255 | commit u64 | event u64 | time u64 | line | until u64 | hint u64 | check, and nothing after it
//! ```
//! Big endian. A check is half a SHA-256 over everything before it in the file. Commits have numbers without gaps. Each start of the journal
//! begins a line, a number that comes once: two journals that went apart, as a state and the one restored from its backup, differ in it from
//! there on. `aion-task-journal` writes pieces and applies them; `aionctl` keeps them. No database here.

mod clock;
mod folder;
mod gaps;
mod name;
mod reader;
mod route;
mod survey;
mod writer;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use clock::ClockStep;
pub use folder::Pieces;
pub use gaps::{Gap, gaps, is_after};
pub use name::Name;
pub use reader::PieceReader;
pub use route::{Point, Route, Twice};
pub use survey::{Run, survey};
pub use writer::PieceWriter;

const MAGIC: &[u8; 8] = b"AIONJPC1";
const COMMIT: u8 = 1;
const BEGINS_LINE: u8 = 2;
/// The same where the clock was behind.
const COMMIT_BEHIND: u8 = 3;
const BEGINS_LINE_BEHIND: u8 = 4;
const END: u8 = 0xff;
/// Bytes of a check.
const CHECK: usize = 16;
/// The most that one commit has.
const MAX_BATCH: u32 = 1 << 30;
/// And what says which families there are.
const MAX_FAMILIES: u32 = 64 << 10;

/// What tells one history of a journal from another: it changes with each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Line(pub [u8; 16]);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut line = [0; 16];
        match hex::decode_to_slice(text, &mut line) {
            Ok(()) if hex::encode(line) == text => Ok(Self(line)),
            _ => Err("it is not a line of a journal: 32 of 0-9 a-f".to_owned()),
        }
    }
}

impl TryFrom<String> for Line {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Line> for String {
    fn from(line: Line) -> Self {
        line.to_string()
    }
}

/// Where a journal stands: after this commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Its number.
    pub commit: u64,
    /// The newest event.
    pub event: u64,
    /// When it was made, in ms since 1970; never less than that of one before.
    pub time_ms: u64,
    /// Which history it is of.
    pub line: Line,
}

/// Where an archive stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The last commit in it.
    pub commit: u64,
    /// Its line.
    pub line: Line,
    /// Where the database looks for the next one.
    pub hint: u64,
}

/// How a piece begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The version of the journal's rows.
    pub schema: u32,
    /// Families of the database with their numbers, in its own form: batches name numbers.
    pub families: Vec<u8>,
    /// The commit before the first one.
    pub from: u64,
    /// Its line.
    pub line: Line,
    /// Nothing in the archive leads here.
    pub begins: bool,
}

/// What is said of a commit besides its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Its number.
    pub commit: u64,
    /// The newest event after it.
    pub event: u64,
    /// When, in ms since 1970; never less than that of one before.
    pub time_ms: u64,
    /// What the clock said, where it had gone back behind that.
    pub clock_ms: Option<u64>,
    /// It begins this line.
    pub line: Option<Line>,
}

/// How a piece ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// After the last commit. Event and time are 0 where there was none.
    pub to: Position,
    /// No commit up to this moment is missing, in ms since 1970.
    pub until_ms: u64,
    /// Where the database looks for the next one.
    pub hint: u64,
}

impl End {
    /// What the next piece goes on from.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark { commit: self.to.commit, line: self.to.line, hint: self.hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_form() {
        let line = Line([0xab; 16]);
        assert_eq!(line.to_string().parse(), Ok(line));
        for wrong in ["", "ab", &"AB".repeat(16), &"ab".repeat(17)] {
            assert!(wrong.parse::<Line>().is_err(), "{wrong}");
        }
        let position = Position { commit: 1, event: 2, time_ms: 3, line };
        let text = serde_json::to_string(&position).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);
    }
}
