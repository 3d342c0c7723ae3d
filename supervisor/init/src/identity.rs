//! Who init is inside: root of its user namespace, for as long as it sets up.

use aion_types::LayerName;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::failure::{Result, at};

/// Becomes user and group 0 of the namespace, without other groups. The id maps are written already.
pub(crate) fn become_root() -> Result<()> {
    let failed = || at(LayerName::Namespaces, "cannot become root inside");
    set_thread_groups(&[]).map_err(failed())?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(failed())?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(failed())
}
