//! The scheduler's journal: rows, events, bodies, results and checkpoints of tasks in a RocksDB of its own.
//!
//! What belongs together is one [`Batch`] and one synced write; when [`Journal::commit`] has returned, it survives a power
//! cut. The core's rows and events are bytes here: this crate decides nothing. Calls block. Large checkpoints are
//! written beside the log, so that the writer of rows never waits for them. Neighbours: `aion-scheduler` makes the
//! rows and events, `aion-tasks` is the only user.

mod archive;
mod batch;
mod check;
mod checkpoint;
mod commit;
mod copy;
mod db;
mod ended;
mod error;
mod events;
mod format;
mod journal;
mod kept;
mod keys;
mod options;
mod place;
mod prune;
mod replace;
mod replay;
mod schema;
mod space;
mod stats;
mod torn;
mod transfer;
mod writer;

pub use aion_backup::{Line, Mark, Position};
pub use archive::Archived;
pub use batch::{Batch, EndedTask};
pub use check::{Checked, RowRefs};
pub use checkpoint::{Checkpoint, CheckpointWriter};
pub use ended::EndedPage;
pub use error::Error;
pub use events::{EventsPage, HistoryPage};
pub use format::{CheckpointInfo, Event};
pub use journal::Journal;
pub use options::Options;
pub use prune::{Pruned, Retention};
pub use replay::Replayed;
pub use schema::SCHEMA_VERSION;
pub use space::Space;
pub use stats::Stats;
pub use transfer::Transferred;
pub use writer::{Writer, WriterOptions};
