//! The launch path of a sandbox: what the launcher calls, and the plan that `aion-init` performs.
//!
//! [`Spawner`] parks an init in its own namespaces ([`Slot`]); [`Slot::launch`] sends it a [`Plan`] and
//! answers when the agent's first process has begun to execute. Everything that needs the host's privileges
//! ([`mounts`]) happens on this side, before; the rest happens inside. See `docs/sandbox.md`.
//!
//! ```no_run
//! # use aion_sandbox::*;
//! # fn demo(dir: std::os::fd::OwnedFd, journal: std::fs::File) -> Result<(), Error> {
//! let spawner = Spawner::start(InitImage::load("/usr/libexec/aion-init".as_ref())?, Options::default())?;
//! let slot = spawner.spawn(SlotSpec::new(0x1000_0000))?;
//! // The launcher writes slot.init_pid() into the v1 cgroups and the probes' maps here.
//! let workspace = slot.workspace_mount(&dir, false)?;
//! let plan = Plan::new(vec![b"/bin/true".to_vec()]);
//! let mut launched = slot.launch(&plan, LaunchFds::new(journal.into(), workspace))?;
//! let status = launched.init.wait(None)?;
//! # Ok(()) }
//! ```

mod codec;
mod error;
mod host;
mod message;
mod plan;
mod plan_check;
mod plan_codec;

pub use codec::Malformed;
pub use error::Error;
pub use host::devices::DeviceNode;
pub use host::exec::{ExecFds, ExecSlot, Executing};
pub use host::image::InitImage;
pub use host::init_process::{Ended, InitProcess};
pub use host::launch::{JobFds, LaunchFds, Launched, Timings};
pub use host::mounts;
pub use host::slot::{Namespaces, NetworkMode, Slot, SlotSpec};
pub use host::spawner::{Options, Spawner};
pub use message::{ExecPlan, ForkOrder, Message, Outcome, Prepare, SystemEntry};
pub use plan::{
    BindTarget, CHECKPOINT_FOLDER, DOOR, Job, Landlock, MAX_CHECKPOINT, NotifyRule, Plan, RESULT_FILE,
    Resource, Rlimit, RootfsKind, Seccomp, Secret, TASK_FOLDER, WindowSize,
};
pub use plan_codec::MAX_MESSAGE;
