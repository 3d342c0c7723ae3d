//! From a slot to a running agent: the plan goes out with its descriptors, one answer comes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use aion_types::{LayerName, LayerReport, LayerState};

use crate::Error;
use crate::host::init_process::InitProcess;
use crate::host::slot::{NetworkMode, Slot};
use crate::host::{memory_files, mounts};
use crate::message::{Message, Outcome};
use crate::plan::{BindTarget, Plan, RootfsKind};
use crate::plan_check::check;
use crate::plan_codec::decode_outcome;

/// Init's answer is a list of layers and short texts.
const MAX_ANSWER: usize = 64 * 1024;

/// The descriptors that go with a plan.
#[derive(Debug)]
pub struct LaunchFds {
    /// The agent's journal, open for reading and writing.
    pub journal: OwnedFd,
    /// From [`Slot::workspace_mount`].
    pub workspace: OwnedFd,
    /// From [`mounts::rootfs`], for a plan with a root folder.
    pub rootfs: Option<OwnedFd>,
    /// From [`Slot::bind_mount`], one for each of `Plan::binds`.
    pub binds: Vec<OwnedFd>,
    /// From [`Slot::device_mount`], for a plan with a `/dev` of the agent's own.
    pub devices: Option<OwnedFd>,
    /// Standard input instead of nothing; not with a terminal.
    pub stdin: Option<OwnedFd>,
    /// Standard output instead of the journal; only with `stdin`.
    pub stdout: Option<OwnedFd>,
    /// From [`mounts::door`], for a plan with a door.
    pub door: Option<OwnedFd>,
    /// For a plan with a job.
    pub job: Option<JobFds>,
    /// A mount of what becomes `/etc/resolv.conf`, with network mode `egress` on the host's system.
    pub resolv_conf: Option<OwnedFd>,
}

/// The descriptors of a job. The files are empty and open for reading and writing.
#[derive(Debug)]
pub struct JobFds {
    /// Where checkpoints go, in turn.
    pub checkpoints: [OwnedFd; 2],
    /// Where a result goes that is too long for the journal.
    pub result: OwnedFd,
    /// The checkpoint to start from, as init packed it.
    pub restore: Option<OwnedFd>,
}

impl LaunchFds {
    /// Only what every launch needs.
    #[must_use]
    pub fn new(journal: OwnedFd, workspace: OwnedFd) -> Self {
        Self {
            journal,
            workspace,
            rootfs: None,
            binds: Vec::new(),
            devices: None,
            stdin: None,
            stdout: None,
            door: None,
            job: None,
            resolv_conf: None,
        }
    }
}

/// Where the time went, from the call of [`Slot::launch`] on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Init has the plan.
    pub received: Duration,
    /// The mounts are done, the filters ready; the first process is made now.
    pub prepared: Duration,
    /// The first process executes its program.
    pub executed: Duration,
    /// The answer is here.
    pub answered: Duration,
}

/// A running agent.
#[derive(Debug)]
pub struct Launched {
    /// Its PID 1. Ends with the agent, with its exit code (or 128 + signal); the exact exit is in the journal.
    pub init: InitProcess,
    /// The first process, in our pid namespace.
    pub agent_pid: u32,
    /// Its pidfd.
    pub agent_pidfd: OwnedFd,
    /// What was set up, in order; the layers of the launcher itself are not among them.
    pub layers: Vec<LayerReport>,
    /// Input and window size of the terminal. Output is in the journal: reading from it would steal it.
    pub tty: Option<OwnedFd>,
    /// Where the time went.
    pub timings: Timings,
}

impl Slot {
    /// Sends the plan and waits until the agent's first process executes.
    ///
    /// # Errors
    /// Nothing of it runs any more; the cgroup is the caller's to remove.
    pub fn launch(mut self, plan: &Plan, fds: LaunchFds) -> Result<Launched, Error> {
        let began = Instant::now();
        check(plan)?;
        check_fds(plan, &fds)?;
        let mut plan = plan.clone();
        let mut fds = fds;
        if self.spec.network == NetworkMode::Host && plan.rootfs == RootfsKind::HostSystem {
            add_resolver(&mut plan, &mut fds)?;
        }
        if let Some(file) = fds.resolv_conf.take().filter(|_| plan.rootfs == RootfsKind::HostSystem) {
            fds.binds.push(file);
            let path = b"/etc/resolv.conf".to_vec();
            plan.binds.push(BindTarget { path, writable: false, directory: false });
        }
        if let Some(domain) = plan.landlock.as_mut() {
            domain.deny_tcp &= self.spec.network == NetworkMode::None;
        }
        let programs_in_memory = memory_files::forbid(&mut plan, self.pidfd())?;
        let mut order: Vec<BorrowedFd<'_>> = vec![fds.journal.as_fd(), fds.workspace.as_fd()];
        order.extend(fds.rootfs.as_ref().map(AsFd::as_fd));
        order.extend(fds.binds.iter().map(AsFd::as_fd));
        order.extend(fds.devices.as_ref().map(AsFd::as_fd));
        order.extend(fds.door.as_ref().map(AsFd::as_fd));
        if let Some(job) = &fds.job {
            order.extend(job.checkpoints.iter().chain([&job.result]).chain(&job.restore).map(AsFd::as_fd));
        }
        order.extend(fds.stdin.iter().chain(&fds.stdout).map(AsFd::as_fd));
        let tty = plan.tty.is_some();
        let program = program_text(&plan);
        self.send(&Message::Launch(Box::new(plan)), &order)?;
        let answer = self.answer()?;
        let answered = began.elapsed();
        let mut handed = answer.fds.into_iter();
        match decode_outcome(&answer.bytes)? {
            Outcome::Running { layers, marks, .. } => {
                let agent_pid = answer.pid.ok_or(Error::Protocol { reason: "no process" })?;
                let agent_pidfd = handed.next().ok_or(Error::Protocol { reason: "no pidfd" })?;
                let terminal = handed.next();
                if terminal.is_some() != tty {
                    return Err(Error::Protocol { reason: "a terminal too many or too few" });
                }
                let mut all = self.own_layers();
                all.extend(layers);
                memory_files::report(&mut all, programs_in_memory);
                all.sort_by_key(|l| l.name);
                let init = self.init.take().ok_or(Error::Protocol { reason: "no init" })?;
                let timings = timings(marks, began, answered);
                Ok(Launched { init, agent_pid, agent_pidfd, layers: all, tty: terminal, timings })
            }
            Outcome::LayerFailed { layer, errno, message } => Err(Error::Layer { layer, errno, message }),
            Outcome::ExecFailed { errno } => Err(Error::Exec { errno, program }),
            Outcome::Forked { .. } => Err(Error::Protocol { reason: "not an answer to a plan" }),
        }
    }

    pub(crate) fn answer(&mut self) -> Result<aion_sys::frame::Frame, Error> {
        let deadline = Instant::now() + self.spec.timeout;
        let received = aion_sys::frame::recv(self.control.as_fd(), MAX_ANSWER, self.pidfd(), Some(deadline));
        received.map_err(|e| match e {
            rustix::io::Errno::TIMEDOUT => {
                Error::Timeout { ms: u64::try_from(self.spec.timeout.as_millis()).unwrap_or(u64::MAX) }
            }
            rustix::io::Errno::PIPE => Error::InitDied { status: self.how_init_died() },
            e => Error::host("hear from init")(e),
        })
    }

    fn how_init_died(&mut self) -> String {
        match self.init.as_mut().map(|i| i.wait(Some(Duration::from_secs(1)))) {
            Some(Ok(Some(ended))) if ended.signal != 0 => format!("signal {}", ended.signal),
            Some(Ok(Some(ended))) => format!("exit code {}", ended.code),
            _ => "it does not answer".to_owned(),
        }
    }

    /// The layers that are set up from outside.
    fn own_layers(&self) -> Vec<LayerReport> {
        let spec = &self.spec;
        let (network, state) = match spec.network {
            NetworkMode::None if spec.namespaces.has(aion_sys::clone::flags::NEWNET) => {
                ("none: an empty network namespace", LayerState::Active)
            }
            NetworkMode::None => ("the host's, for lack of a namespace", LayerState::Off),
            NetworkMode::Egress => ("egress: a network namespace of its own", LayerState::Active),
            NetworkMode::Host => ("host: the host's network, as asked", LayerState::Off),
        };
        let complete = spec.namespaces.is_complete(spec.network);
        vec![
            LayerReport {
                name: LayerName::Namespaces,
                state: if complete { LayerState::Active } else { LayerState::Degraded },
                detail: format!("{}; ids from {}", spec.namespaces.text(), spec.uid_base),
            },
            LayerReport { name: LayerName::Network, state, detail: network.to_owned() },
        ]
    }
}

/// With the host's network come the host's names: its resolver's files over the empty ones.
fn add_resolver(plan: &mut Plan, fds: &mut LaunchFds) -> Result<(), Error> {
    for path in ["/etc/resolv.conf", "/etc/hosts"] {
        // Its place may be a symbolic link (systemd-resolved), and its target root's to decide: nobody
        // else can write there.
        let Ok(target) = std::fs::canonicalize(path) else { continue };
        let file = mounts::open_path(&target, LayerName::Network)?;
        fds.binds.push(mounts::read_only(file.as_fd())?);
        plan.binds.push(BindTarget { path: path.into(), writable: false, directory: false });
    }
    Ok(())
}

fn check_fds(plan: &Plan, fds: &LaunchFds) -> Result<(), Error> {
    let wrong = |field, reason: &str| Err(Error::InvalidPlan { field, reason: reason.to_owned() });
    if (plan.rootfs == RootfsKind::Directory) != fds.rootfs.is_some() {
        return wrong("rootfs", "a root folder and its mount go together");
    }
    if plan.binds.len() != fds.binds.len() {
        return wrong("binds", "each needs one mount");
    }
    if plan.devices != fds.devices.is_some() {
        return wrong("devices", "a /dev and its mount go together");
    }
    if plan.door != fds.door.is_some() {
        return wrong("door", "a door and its mount go together");
    }
    if plan.job.map(|j| j.restore) != fds.job.as_ref().map(|j| j.restore.is_some()) {
        return wrong("job", "a job and its files go together");
    }
    if plan.tty.is_some() && fds.stdin.is_some() {
        return wrong("tty", "a terminal is its own standard input");
    }
    if fds.stdout.is_some() && fds.stdin.is_none() {
        return wrong("stdout", "it comes with standard input");
    }
    Ok(())
}

pub(crate) fn program_text(plan: &Plan) -> String {
    plan.argv.first().map(|a| String::from_utf8_lossy(a).chars().take(200).collect()).unwrap_or_default()
}

/// Init's marks are on the monotonic clock, of which the time namespace keeps the host's value.
fn timings(marks: [u64; 3], began: Instant, answered: Duration) -> Timings {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now =
        u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    let start = now.saturating_sub(u64::try_from(began.elapsed().as_nanos()).unwrap_or(0));
    let [received, prepared, executed] = marks.map(|m| Duration::from_nanos(m.saturating_sub(start)));
    Timings { received, prepared, executed, answered }
}
