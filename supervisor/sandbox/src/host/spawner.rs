//! Makes slots: has the forker make an init, and gives it its id maps.
//!
//! The forkers stand in mount namespaces of their own: the caller's threads keep their view of the host, and
//! wait only for their own slot.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use aion_sys::clone::{Child, flags};

use crate::Error;
use crate::host::exec::ExecSlot;
use crate::host::forker::{Forker, Order, gone};
use crate::host::image::InitImage;
use crate::host::init_process::InitProcess;
use crate::host::slot::{NetworkMode, Slot, SlotSpec, UID_COUNT};
use crate::host::template::Fingerprint;
use crate::message::{Prepare, SystemEntry};

/// How a spawner works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Processes that make slots; more than processors gain nothing.
    pub workers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 2 }
    }
}

/// Makes slots. Cheap to clone; its forkers end with the last clone.
#[derive(Debug, Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    image: InitImage,
    null: OwnedFd,
    forkers: Vec<Mutex<Forker>>,
    /// Whose turn it is when all are busy.
    turn: AtomicUsize,
}

/// A process that was made, our end of its control socket, and what its template holds.
type Made = (Child, UnixStream, Vec<SystemEntry>);

impl Spawner {
    /// Starts the forkers, each in a template of its own.
    ///
    /// # Errors
    /// A template cannot be made: layer `rootfs`.
    pub fn start(image: InitImage, options: Options) -> Result<Self, Error> {
        let null: OwnedFd = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| Error::Host {
                doing: "open /dev/null".to_owned(),
                errno: e.raw_os_error().unwrap_or(0),
            })?
            .into();
        let start = |_| Forker::start(&image, null.as_fd()).map(Mutex::new);
        let forkers = (0..options.workers.max(1)).map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared: Arc::new(Shared { image, null, forkers, turn: AtomicUsize::new(0) }) })
    }

    /// Makes a slot: an init in its cgroup and namespaces, building its root.
    ///
    /// # Errors
    /// Layer `namespaces` (or `cgroup`, when there is one), or `rootfs` when the template had to be made
    /// again and could not.
    pub fn spawn(&self, spec: SlotSpec) -> Result<Slot, Error> {
        if spec.uid_base < UID_COUNT || spec.uid_base.checked_add(UID_COUNT).is_none() {
            let reason = "the range must lie above the host's own ids and end before the last one";
            return Err(Error::InvalidPlan { field: "uid_base", reason: reason.to_owned() });
        }
        let mut wanted = spec.namespaces.0;
        // The cgroup namespace begins at the group that its maker is in. clone3 makes it before the child is in its
        // group, so init makes it itself, when it has the plan.
        wanted &= !flags::NEWCGROUP;
        if spec.network == NetworkMode::Host {
            wanted &= !flags::NEWNET;
        }
        let (child, control, system) =
            self.make(wanted, spec.uid_base, spec.cgroup.as_ref(), &spec.v1_doors)?;
        let init = InitProcess::new(child.pid, child.pidfd);
        let cgroup_namespace = spec.namespaces.has(flags::NEWCGROUP);
        let (mask_proc, empty_bounding_set) = (spec.mask_proc, spec.empty_bounding_set);
        Slot::new(init, control, spec, Prepare { system, cgroup_namespace, mask_proc, empty_bounding_set })
    }

    /// Makes a helper for a command in a running sandbox, in that sandbox's cgroup (v2).
    ///
    /// # Errors
    /// Layer `cgroup`, or the clone failed.
    pub fn spawn_exec(&self, cgroup: Option<OwnedFd>, timeout: Duration) -> Result<ExecSlot, Error> {
        let (child, control, _) = self.make(0, 0, cgroup.as_ref(), &[])?;
        Ok(ExecSlot::new(InitProcess::new(child.pid, child.pidfd), control, timeout))
    }

    fn make(
        &self,
        namespaces: u64,
        owner: u32,
        cgroup: Option<&OwnedFd>,
        v1_doors: &[(OwnedFd, OwnedFd)],
    ) -> Result<Made, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::Host {
            doing: "make a control socket".to_owned(),
            errno: e.raw_os_error().unwrap_or(0),
        })?;
        rustix::net::sockopt::set_socket_passcred(&ours, true)
            .map_err(Error::host("ask for credentials on the control socket"))?;
        let host = Fingerprint::now();
        let cgroup = cgroup.map(AsFd::as_fd);
        let order = Order { namespaces, owner, control: theirs.as_fd(), cgroup, v1_doors };
        let mut forker = self.free_forker();
        if forker.made_from != host {
            *forker = Forker::start(&self.shared.image, self.shared.null.as_fd())?;
        }
        let made = match forker.fork(&order) {
            Ok(made) => made,
            // It was killed, perhaps for want of memory. What it may have begun ends with its control socket.
            Err(_) => {
                *forker = Forker::start(&self.shared.image, self.shared.null.as_fd())?;
                forker.fork(&order).map_err(gone)?
            }
        };
        Ok((made?, ours, forker.entries.clone()))
    }

    /// A forker that does nothing now, else the next in turn.
    fn free_forker(&self) -> MutexGuard<'_, Forker> {
        let forkers = &self.shared.forkers;
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        for i in 0..forkers.len() {
            match forkers[(turn + i) % forkers.len()].try_lock() {
                Ok(free) => return free,
                Err(TryLockError::Poisoned(free)) => return free.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        forkers[turn % forkers.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
