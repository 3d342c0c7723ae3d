//! What the two halves say to each other on the control socket, besides the plan.
//!
//! The host orders a process from the forker, sends it `Prepare` when the id maps are written, then one `Launch` or `Exec`; init answers with one
//! `Outcome` and closes. Frames are bounded and decoding trusts nothing: init is trusted, its decoder runs
//! before any layer is up all the same.

use aion_types::{LayerName, LayerReport};

use crate::plan::{Plan, WindowSize};

/// A message from the host to init, or to the forker that makes inits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To the forker: make a process.
    Fork(ForkOrder),
    /// Do what needs no plan: become root inside, build the root.
    Prepare(Prepare),
    /// Launch the agent.
    Launch(Box<Plan>),
    /// Run a command in a sandbox that is there already.
    Exec(Box<ExecPlan>),
}

/// A process that the forker makes. Descriptors: its control socket, its cgroup when it has one, then for each v1 controller
/// the `tasks` files of its group and of the forker's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkOrder {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// The user on the host that becomes the owner of a new user namespace: what its processes use of the kernel's limits
    /// for each user is charged to this user as well.
    pub owner: u32,
    /// Whether there is a v2 cgroup.
    pub cgroup: bool,
}

/// What can be set up before the plan is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepare {
    /// The entries of the system's root that the template holds.
    pub system: Vec<SystemEntry>,
    /// Whether init makes a cgroup namespace when it has its plan.
    pub cgroup_namespace: bool,
    /// Whether parts of `/proc` become read-only or hidden.
    pub mask_proc: bool,
    /// Whether the bounding set is emptied: init needs none, and what it makes inherits that.
    pub empty_bounding_set: bool,
}

/// One entry of the root folder of the host system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemEntry {
    /// Its name, such as `usr`.
    pub name: String,
    /// Target of the symbolic link; empty when it is a mount.
    pub link: String,
}

/// A command to run in a sandbox that is there already. The layers are those of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecPlan {
    /// The layers, command, environment and folder. Fields about mounts and the journal are not used.
    pub plan: Plan,
    /// The command's terminal is the one in `ExecFds`; its size is set.
    pub tty: Option<WindowSize>,
}

/// Init's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The forker has made a process; its pidfd comes with it.
    Forked {
        /// Its number.
        pid: u32,
    },
    /// The first process executes.
    Running {
        /// Its number inside.
        pid: u32,
        /// What was set up.
        layers: Vec<LayerReport>,
        /// Nanoseconds of the monotonic clock: plan received, mounts done, executed.
        marks: [u64; 3],
    },
    /// A layer failed.
    LayerFailed {
        /// Which.
        layer: LayerName,
        /// The kernel's reason, or 0.
        errno: i32,
        /// What was tried.
        message: String,
    },
    /// The program could not be executed.
    ExecFailed {
        /// The kernel's reason.
        errno: i32,
    },
}
