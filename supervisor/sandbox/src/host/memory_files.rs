//! Where only named programs may be executed, a memory file must not be a way around it: Landlock judges paths, and
//! it has none.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use aion_sys::memory_files::{Namespace, forbid_executable};
use aion_types::{LayerName, LayerReport};

use crate::Error;
use crate::plan::Plan;

/// Whether this kernel can forbid their execution and lets us: found out once, in a namespace made for it.
fn can_forbid() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| forbid_executable(Namespace::New).is_ok())
}

fn is_restricted(plan: &Plan) -> bool {
    plan.landlock.as_ref().is_some_and(|l| l.restrict_exec)
}

/// Forbids their execution in the sandbox of a parked init, or where the kernel cannot, has the filter refuse them. Answers
/// what to report; nothing for an agent that may execute anything.
pub(crate) fn forbid(plan: &mut Plan, init: Option<BorrowedFd<'_>>) -> Result<Option<&'static str>, Error> {
    if !is_restricted(plan) {
        return Ok(None);
    }
    if !can_forbid() {
        return Ok(Some(refuse(plan)));
    }
    let init = init.ok_or(Error::Protocol { reason: "no init" })?;
    forbid_executable(Namespace::Of(init))
        .map_err(Error::layer(LayerName::Landlock, "cannot set vm.memfd_noexec in the sandbox"))?;
    Ok(Some(", none from memory (vm.memfd_noexec)"))
}

/// The same for a further command: what was set for the sandbox holds for it too, a filter is its own.
pub(crate) fn forbid_for_command(plan: &mut Plan) {
    if is_restricted(plan) && !can_forbid() {
        refuse(plan);
    }
}

fn refuse(plan: &mut Plan) -> &'static str {
    match plan.seccomp.as_mut() {
        Some(filter) => {
            filter.refuse_memory_files();
            ", no memory files (this kernel has no vm.memfd_noexec, or it is read-only)"
        }
        None => ", and any from memory (no vm.memfd_noexec, no filter)",
    }
}

/// Says it in the report of the layer that it completes.
pub(crate) fn report(layers: &mut [LayerReport], text: Option<&str>) {
    if let (Some(text), Some(layer)) = (text, layers.iter_mut().find(|l| l.name == LayerName::Landlock)) {
        layer.detail.push_str(text);
    }
}
