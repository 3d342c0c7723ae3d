//! What the launcher keeps on disk, and where: the agent table that a new launcher adopts from.

mod files;
mod folder;
mod instance;
mod record;
mod table;
mod uid_ranges;

pub use folder::{Folder, Group};
pub use instance::{AlreadyRuns, Instance};
pub use record::{GivenDevice, Phase, Record};
pub use table::{Stored, StoredAgents};
pub use uid_ranges::UidRanges;

pub(crate) use files::replace;
pub(crate) use folder::{give, make};
pub(crate) use table::remove_tree;
