//! Making inits: the image is executed once, and each further process is a copy of it.
//!
//! The forker runs outside of every sandbox with the launcher's privileges, in a mount namespace that holds the
//! template and nothing of the host. It listens to the launcher alone and keeps nothing of what it hands
//! over.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use aion_sandbox::{ForkOrder, Outcome};
use aion_sys::clone::{Child, Fork, flags, fork_sibling};
use aion_sys::frame;
use aion_types::LayerName;
use rustix::io::Errno;
use rustix::process::Uid;
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits, set_thread_res_uid,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Carries an order out. In the new process the answer is its control socket.
pub(crate) fn carry_out(order: ForkOrder, fds: Vec<OwnedFd>, control: &UnixStream) -> Option<UnixStream> {
    let mut fds = fds.into_iter();
    let Some(theirs) = fds.next() else {
        answer(control, &failed(order, Errno::INVAL), None);
        return None;
    };
    let cgroup = if order.cgroup { fds.next() } else { None };
    let doors: Vec<OwnedFd> = fds.collect();
    match fork(order, cgroup.as_ref(), &doors) {
        Ok(Fork::Child) => {
            // A failure can only mean that it leads a session already.
            let _ = rustix::process::setsid();
            Some(UnixStream::from(theirs))
        }
        Ok(Fork::Parent(child)) => {
            answer(control, &Outcome::Forked { pid: child.pid }, Some(&child));
            None
        }
        Err(errno) => {
            answer(control, &failed(order, errno), None);
            None
        }
    }
}

/// Forks from within the v1 groups. The stay there ends before anything else: a process that stayed would keep the
/// group from being removed. The copy stays, of course.
fn fork(order: ForkOrder, cgroup: Option<&OwnedFd>, doors: &[OwnedFd]) -> Result<Fork, Errno> {
    let entered = doors.iter().step_by(2).try_for_each(|enter| rustix::io::write(enter, b"0").map(drop));
    let forked = entered.and_then(|()| fork_as_owner(order, cgroup));
    if !matches!(forked, Ok(Fork::Child)) {
        for leave in doors.iter().skip(1).step_by(2) {
            // The launcher's own group is never full and never removed.
            let _ = rustix::io::write(leave, b"0");
        }
    }
    forked
}

/// Forks as the user who is to own the new user namespace. The kernel charges what its processes use of the limits
/// for each user (inotify instances, namespaces, pending signals) to its maker too; were that root, one agent could use up
/// what all others and the host's services have. Capabilities stay while the user changes, and the copy
/// has those of its own namespace only.
fn fork_as_owner(order: ForkOrder, cgroup: Option<&OwnedFd>) -> Result<Fork, Errno> {
    let cgroup = cgroup.map(AsFd::as_fd);
    if order.namespaces & flags::NEWUSER == 0 || order.owner == 0 {
        return fork_sibling(order.namespaces, cgroup);
    }
    let bits = capabilities_secure_bits()?;
    if !bits.contains(CapabilitiesSecureBits::NO_SETUID_FIXUP) {
        set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    }
    set_thread_res_uid(Uid::ROOT, Uid::from_raw(order.owner), Uid::ROOT)?;
    let forked = fork_sibling(order.namespaces, cgroup);
    if !matches!(forked, Ok(Fork::Child)) {
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    }
    forked
}

fn failed(order: ForkOrder, errno: Errno) -> Outcome {
    let layer = if order.cgroup { LayerName::Cgroup } else { LayerName::Namespaces };
    Outcome::LayerFailed { layer, errno: errno.raw_os_error(), message: "cannot clone init".to_owned() }
}

/// A launcher that does not take the answer is gone; the next thing that is heard from it is the end.
fn answer(control: &UnixStream, outcome: &Outcome, child: Option<&Child>) {
    let fds: Vec<_> = child.iter().map(|c| c.pidfd.as_fd()).collect();
    let _ = frame::send(control.as_fd(), &outcome.encode(), &fds, None, Some(Instant::now() + PATIENCE));
}
