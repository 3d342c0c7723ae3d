//! A slot: an init parked in namespaces of its own, waiting for its plan.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use aion_sys::clone::flags;

use crate::Error;
use crate::host::devices::{self, DeviceNode};
use crate::host::idmap::{self, Owner};
use crate::host::init_process::InitProcess;
use crate::host::mounts;
use crate::message::{Message, Prepare};
use crate::plan_codec::encode;

/// Identifiers that each slot has to itself, at least.
pub(crate) const UID_COUNT: u32 = 65_536;

/// What the agent sees of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// A namespace with nothing in it.
    #[default]
    None,
    /// The host's.
    Host,
    /// A namespace of its own, into which the caller puts a way out before the launch.
    Egress,
}

/// The namespaces that a slot has of its own, as `CLONE_NEW*` flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(pub(crate) u64);

impl Namespaces {
    const KINDS: &'static [(u64, &'static str)] = &[
        (flags::NEWUSER, "user"),
        (flags::NEWNS, "mount"),
        (flags::NEWPID, "pid"),
        (flags::NEWNET, "net"),
        (flags::NEWIPC, "ipc"),
        (flags::NEWUTS, "uts"),
        (flags::NEWCGROUP, "cgroup"),
        (flags::NEWTIME, "time"),
    ];

    /// All eight.
    #[must_use]
    pub fn all() -> Self {
        Self(Self::KINDS.iter().fold(0, |all, (flag, _)| all | flag))
    }

    /// Without one, by name (`user`, `mount`, `pid`, `net`, `ipc`, `uts`, `cgroup`, `time`). For tests that show what it
    /// is there for; the user, mount and pid namespaces cannot be left out.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        let keep = flags::NEWUSER | flags::NEWNS | flags::NEWPID;
        let dropped = Self::KINDS.iter().find(|(_, n)| *n == name).map_or(0, |(flag, _)| *flag);
        Self(self.0 & !(dropped & !keep))
    }

    pub(crate) fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn text(self) -> String {
        let names: Vec<_> = Self::KINDS.iter().filter(|(f, _)| self.has(*f)).map(|(_, n)| *n).collect();
        names.join(", ")
    }

    pub(crate) fn is_complete(self, network: NetworkMode) -> bool {
        let all = Self::all().0;
        self.0 | if network == NetworkMode::Host { flags::NEWNET } else { 0 } == all
    }
}

/// What a slot is made of.
#[derive(Debug)]
pub struct SlotSpec {
    /// The folder of its cgroup (v2); init is born in it.
    pub cgroup: Option<OwnedFd>,
    /// v1 controllers: `tasks` of the agent's group, and of the one that our threads belong to. The cloning thread
    /// writes 0 to the first before and to the second after, which is far cheaper than moving init later.
    pub v1_doors: Vec<(OwnedFd, OwnedFd)>,
    /// The first of the 65,536 user and group ids on the host that are its own.
    pub uid_base: u32,
    /// The network.
    pub network: NetworkMode,
    /// The namespaces.
    pub namespaces: Namespaces,
    /// Whether parts of `/proc` are read-only or hidden; only a test leaves that out.
    pub mask_proc: bool,
    /// Whether init gives up the bounding set of capabilities while it is parked; only a test leaves that out.
    pub empty_bounding_set: bool,
    /// How long each step may take.
    pub timeout: Duration,
}

impl SlotSpec {
    /// All namespaces, no network, ids from `uid_base` on.
    #[must_use]
    pub fn new(uid_base: u32) -> Self {
        Self {
            cgroup: None,
            v1_doors: Vec::new(),
            uid_base,
            network: NetworkMode::None,
            namespaces: Namespaces::all(),
            mask_proc: true,
            empty_bounding_set: true,
            timeout: Duration::from_secs(10),
        }
    }
}

/// A parked init. Dropping it kills it.
#[derive(Debug)]
pub struct Slot {
    // `None` once the launch has taken it.
    pub(crate) init: Option<InitProcess>,
    pub(crate) control: UnixStream,
    pub(crate) spec: SlotSpec,
    pid: u32,
    start_time: u64,
}

impl Slot {
    /// Gives the parked init its id maps and lets it build its root.
    pub(crate) fn new(
        init: InitProcess,
        control: UnixStream,
        spec: SlotSpec,
        prepare: Prepare,
    ) -> Result<Self, Error> {
        let (pid, start_time) = (init.pid(), init.start_time());
        let slot = Self { init: Some(init), control, spec, pid, start_time };
        idmap::write_maps(pid, 0, slot.spec.uid_base, UID_COUNT)?;
        slot.send(&Message::Prepare(prepare), &[])?;
        Ok(slot)
    }

    pub(crate) fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let deadline = std::time::Instant::now() + self.spec.timeout;
        aion_sys::frame::send(self.control.as_fd(), &encode(message), fds, None, Some(deadline)).map_err(
            |e| match e {
                rustix::io::Errno::TIMEDOUT => {
                    Error::Timeout { ms: u64::try_from(self.spec.timeout.as_millis()).unwrap_or(u64::MAX) }
                }
                e => Error::host("send to init")(e),
            },
        )
    }

    /// Decides what the agent sees of the network, where that is not decided yet: of an empty namespace the caller may make one
    /// with a way out.
    pub fn will_have(&mut self, network: NetworkMode) {
        if self.spec.network == NetworkMode::None && network == NetworkMode::Egress {
            self.spec.network = network;
        }
    }

    /// Init's number in our pid namespace.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.pid
    }

    /// When init started, in clock ticks since boot.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Init's pidfd: readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.init.as_ref().map(InitProcess::pidfd)
    }

    /// The first of its ids on the host.
    #[must_use]
    pub fn uid_base(&self) -> u32 {
        self.spec.uid_base
    }

    /// A mount of the folder for `/workspace`: a file that the agent (user 1000) makes in it belongs to the
    /// folder's owner, and the agent owns what the owner owns. Neither setuid nor device files work in it.
    ///
    /// # Errors
    /// Layer `workspace`: no folder, or its file system cannot map owners.
    pub fn workspace_mount(&self, dir: &OwnedFd, read_only: bool) -> Result<OwnedFd, Error> {
        mounts::owned(dir.as_fd(), Owner { uid: 1000, gid: 1000, base: self.spec.uid_base }, read_only)
    }

    /// A mount for `LaunchFds::binds`: read-only, or with owners mapped as in the workspace.
    ///
    /// # Errors
    /// Layer `rootfs`.
    pub fn bind_mount(&self, dir: &OwnedFd, writable: bool) -> Result<OwnedFd, Error> {
        if writable {
            mounts::owned(dir.as_fd(), Owner { uid: 1000, gid: 1000, base: self.spec.uid_base }, false)
        } else {
            mounts::read_only(dir.as_fd())
        }
    }

    /// A `/dev` for `LaunchFds::devices`, with these nodes of the agent's (group 1000) beside those of every sandbox.
    ///
    /// # Errors
    /// Layer `devices`: a node cannot be made.
    pub fn device_mount(&self, nodes: &[DeviceNode]) -> Result<OwnedFd, Error> {
        devices::mount(nodes, self.spec.uid_base.saturating_add(1000))
    }

    /// Kills the parked init and waits for its end.
    pub fn discard(self) {
        drop(self);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(mut init) = self.init.take() {
            init.destroy();
        }
    }
}
