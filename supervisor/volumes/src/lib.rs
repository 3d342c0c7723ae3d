//! Managed workspaces: each an ext4 image of its own, so that an agent's disk limit is the end of its file system.
//!
//! An image is a sparse copy of a template that was formatted once; it is attached to a loop device and mounted detached, so
//! that no path of the host shows it and nothing is left mounted when the agent's mount namespace ends: the kernel drops mount and
//! device with their last user. A few volumes of the usual size are kept ready, and a volume with little in it is wiped
//! and used again, which is far less work than a new one. On disk the agent is user 1000; the mount is
//! idmapped to the user namespace of the agent's slot, so that the same volume serves the next incarnation in another slot.
//! Neighbours: `aion-launcher` hands the mount to `aion-sandbox`.

mod error;
mod image;
mod mount;
mod pool;
mod volume;
mod wipe;

pub use error::Error;
pub use pool::{Options, Volumes};
pub use volume::Volume;

/// The agent's user and group on the volume's own file system.
pub const OWNER: u32 = 1000;

/// What a call of this crate gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;
