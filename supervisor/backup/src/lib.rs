//! Backups of the state: the archive's format, its check, and a state folder made from one.
//!
//! ```text
//! aiond ── Writer ──▶ manifest, files, checksums, end ──▶ aionctl ── read ──▶ every byte judged
//!                                                                  └ restore ─▶ a folder beside, then in place
//! ```
//! An archive is a tar file in one byte form (docs/operate/backup.md); whoever reads it takes it for hostile. No database and no
//! encryption here: `aion-api` says what is in a backup, `aionctl` encrypts.

mod end;
mod entry;
mod error;
mod header;
mod manifest;
mod piece;
mod read;
mod restore;
mod write;

pub use entry::{Entry, Part};
pub use error::Error;
pub use manifest::{FORMAT, Manifest, SUPPORTED, Versions};
pub use piece::{
    ClockStep, Commit, End, Gap, Header, Line, Mark, Name, PieceReader, PieceWriter, Pieces, Point, Position,
    Route, Run, Twice, gaps, is_after, survey,
};
pub use read::{Check, Counted, Summary, Taker, read};
pub use restore::{AuditFound, Owners, Restored, Target, restore, restore_with};
pub use write::Writer;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
