//! A whole file system as a workspace: a volume that is mounted for one agent and for nobody else.

use std::os::fd::{AsFd, OwnedFd};

use aion_sys::mount::{attr, map_owners, restrict};
use aion_types::LayerName;

use crate::Error;
use crate::host::idmap::{self, Owner};
use crate::host::slot::Slot;

impl Slot {
    /// Makes a detached mount (from fsmount) the agent's workspace: what the root folder's owner owns, the
    /// agent (user 1000) owns. The mount itself is changed: kernels before 6.15 cannot clone a detached one.
    ///
    /// # Errors
    /// Layer `workspace`: the file system cannot map owners.
    pub fn own_detached(&self, mount: OwnedFd, read_only: bool) -> Result<OwnedFd, Error> {
        let layer = |message: &'static str| Error::layer(LayerName::Workspace, message);
        let stat = rustix::fs::fstat(&mount).map_err(layer("cannot see the volume's owner"))?;
        let owner = Owner { uid: 1000, gid: 1000, base: self.uid_base() };
        let namespace = idmap::namespace(stat.st_uid, stat.st_gid, owner)?;
        map_owners(mount.as_fd(), namespace.as_fd())
            .map_err(layer("the volume's file system cannot map owners (idmapped mounts)"))?;
        let mut set = attr::NOSUID | attr::NODEV;
        if read_only {
            set |= attr::RDONLY;
        }
        restrict(mount.as_fd(), set, false).map_err(layer("cannot restrict the volume's mount"))?;
        Ok(mount)
    }
}
