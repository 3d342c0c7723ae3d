//! The audit log: append-only segments of JSON lines, chained by SHA-256 and signed with Ed25519.
//!
//! [`Writer`] is held by one process (aion-launcher), [`Reader`] tails from any process that may read the
//! folder, [`verify`] finds what was changed, removed, added or moved. The format is in `docs/audit.md`.
//! Neighbours: below it only the file system; above it the launcher (writer) and aiond (reader).

mod error;
mod hash;
mod key;
mod line;
mod origin;
mod prune;
mod reader;
mod record;
mod recover;
mod segment;
mod statement;
mod verify;
mod writer;

pub use error::Error;
pub use hash::Hash;
pub use key::PublicKey;
pub use origin::Origin;
pub use prune::Pruned;
pub use reader::Reader;
pub use record::{Detail, MAX_DETAIL, MAX_FIELD, NewRecord, Record};
pub use segment::written;
pub use verify::{Anchor, Fault, Report, verify, verify_against};
pub use writer::{Options, Writer};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
