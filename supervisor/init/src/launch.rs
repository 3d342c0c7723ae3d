//! Performing a plan: from the parked state to an agent that executes, or to the layer that failed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use aion_sandbox::{Outcome, Plan, Prepare, RootfsKind, SystemEntry};
use aion_sys::agent::{Start, Started};
use aion_types::LayerName;
use rustix::fs::Mode;

use crate::confine;
use crate::denials::Denials;
use crate::domain::{self, Domain};
use crate::failure::{Failure, Result, at};
use crate::journal::Journal;
use crate::output::{self, Source};
use crate::program;
use crate::report::{self, monotonic_ns};
use crate::root::Root;
use crate::task::{self, Task};
use crate::terminal;

/// An agent that executes.
pub(crate) struct Agent {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) journal: Journal,
    pub(crate) sources: Vec<Source>,
    pub(crate) slave: Option<OwnedFd>,
    pub(crate) denials: Denials,
    pub(crate) task: Option<Task>,
}

/// The descriptors of a plan, by what they are for.
struct Handed {
    journal: OwnedFd,
    workspace: OwnedFd,
    rootfs: Option<OwnedFd>,
    binds: Vec<OwnedFd>,
    devices: Option<OwnedFd>,
    door: Option<OwnedFd>,
    job: Option<task::Handed>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
}

fn sort_out(plan: &Plan, fds: Vec<OwnedFd>) -> Result<Handed> {
    let too_few = || Failure::because(LayerName::Rootfs, "the plan came with too few descriptors");
    let mut fds = fds.into_iter();
    let journal = fds.next().ok_or_else(too_few)?;
    let workspace = fds.next().ok_or_else(too_few)?;
    let rootfs = match plan.rootfs {
        RootfsKind::HostSystem => None,
        RootfsKind::Directory => Some(fds.next().ok_or_else(too_few)?),
    };
    let binds: Vec<_> = fds.by_ref().take(plan.binds.len()).collect();
    if binds.len() != plan.binds.len() {
        return Err(too_few());
    }
    let devices = if plan.devices { Some(fds.next().ok_or_else(too_few)?) } else { None };
    let door = if plan.door { Some(fds.next().ok_or_else(too_few)?) } else { None };
    let job = plan.job.map(|job| task::Handed::take(job, &mut fds).ok_or_else(too_few)).transpose()?;
    let (stdin, stdout) = (fds.next(), fds.next());
    if fds.next().is_some() {
        return Err(Failure::because(LayerName::Rootfs, "the plan came with too many descriptors"));
    }
    Ok(Handed { journal, workspace, rootfs, binds, devices, door, job, stdin, stdout })
}

/// Performs the plan and tells the launcher.
pub(crate) fn perform(
    plan: Plan,
    fds: Vec<OwnedFd>,
    root: Root,
    prepared: &Prepare,
    control: &UnixStream,
) -> Result<Agent> {
    let received = monotonic_ns();
    plan.check().map_err(|e| Failure::because(LayerName::Namespaces, &e.to_string()))?;
    let handed = sort_out(&plan, fds)?;
    namespaces(&plan, prepared)?;
    if let Some(devices) = &handed.devices {
        root.show_devices(devices)?;
    }
    root.enter(&plan, handed.rootfs, &handed.workspace, &handed.binds)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(door) = &handed.door {
        task::show_door(door.as_fd())?;
    }
    let task = handed.job.map(|fds| Task::prepare(&plan, fds)).transpose()?;
    let journal = Journal::open(handed.journal, plan.journal_limit, plan.incarnation)
        .map_err(|e| Failure::because(LayerName::Disk, &format!("cannot begin the agent's journal: {e}")))?;
    let stdio = match plan.tty {
        None => output::pipes(handed.stdin, handed.stdout)?,
        Some(size) => output::terminal(terminal::open(size, &plan)?)?,
    };
    let ready = Ready::new(&plan, &prepared.system)?;
    let prepared_at = monotonic_ns();
    let started = ready.start(&plan, [&stdio.agent[0], &stdio.agent[1], &stdio.agent[2]])?;
    let executed = monotonic_ns();
    let layers = report::of_launch(&plan, prepared.mask_proc, ready.domain.as_ref());
    let master = stdio.slave.is_some().then(|| stdio.sources[0].fd.as_fd());
    tell(control, &started, layers, [received, prepared_at, executed], Some(started.child.pid), master)?;
    Ok(Agent {
        pid: started.child.pid,
        pidfd: started.child.pidfd,
        journal,
        sources: stdio.sources,
        slave: stdio.slave,
        denials: Denials::new(started.listener, plan.seccomp.and_then(|s| s.notify)),
        task,
    })
}

/// What belongs to init and its children alike: the cgroup namespace, the keyring, the names.
fn namespaces(plan: &Plan, prepared: &Prepare) -> Result<()> {
    let failed = |what: &'static str| at(LayerName::Namespaces, what);
    if prepared.cgroup_namespace {
        aion_sys::ns::unshare(aion_sys::clone::flags::NEWCGROUP)
            .map_err(failed("cannot make a cgroup namespace"))?;
    }
    if plan.session {
        aion_sys::keyring::join_anonymous_session()
            .map_err(at(LayerName::Session, "cannot join a new session keyring"))?;
    }
    match rustix::system::sethostname(plan.hostname.as_bytes()) {
        // Without a uts namespace the name is the host's, which is not ours to set.
        Err(rustix::io::Errno::PERM) => Ok(()),
        other => other.map_err(failed("cannot set the host name")),
    }
}

/// Everything that the first process needs, before it is made.
pub(crate) struct Ready {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    rlimits: Vec<(u32, u64, u64)>,
    oom: String,
    pub(crate) domain: Option<Domain>,
}

impl Ready {
    pub(crate) fn new(plan: &Plan, system: &[SystemEntry]) -> Result<Self> {
        let text = |bytes: &Vec<u8>| {
            CString::new(bytes.as_slice()).map_err(|_| Failure::because(LayerName::Session, "a zero byte"))
        };
        let program = program::find(plan)?;
        let domain = plan.landlock.as_ref().map(|l| domain::build(l, plan, &program, system)).transpose()?;
        let limits = plan.rlimits.iter().flatten();
        Ok(Self {
            argv: plan.argv.iter().map(text).collect::<Result<_>>()?,
            env: plan.env.iter().map(text).collect::<Result<_>>()?,
            cwd: text(&plan.cwd)?,
            rlimits: limits.map(|r| (u32::from(r.resource as u8), r.soft, r.hard)).collect(),
            oom: plan.oom_score_adj.to_string(),
            program,
            domain,
        })
    }

    /// Makes the first process.
    pub(crate) fn start(&self, plan: &Plan, stdio: [&OwnedFd; 3]) -> Result<Started> {
        let argv: Vec<&CStr> = self.argv.iter().map(CString::as_c_str).collect();
        let env: Vec<&CStr> = self.env.iter().map(CString::as_c_str).collect();
        let started = aion_sys::agent::start(&Start {
            program: &self.program,
            argv: &argv,
            env: &env,
            cwd: &self.cwd,
            stdio: stdio.map(AsFd::as_fd),
            terminal: plan.tty.is_some(),
            close_others: plan.session,
            oom_score_adj: self.oom.as_bytes(),
            rlimits: &self.rlimits,
            user: (plan.uid, plan.gid),
            drop_capabilities: plan.drop_capabilities,
            bounding_set_is_empty: confine::bounding_set_is_empty(),
            no_new_privs: plan.no_new_privs,
            landlock: self.domain.as_ref().and_then(|d| d.ruleset.as_ref()).map(AsFd::as_fd),
            seccomp: plan.seccomp.as_ref().map(|s| (s.program.as_slice(), s.notify.is_some())),
        });
        // The process shared our descriptors while it became the agent: 0 to 2 are its own now.
        let restored = restore_stdio();
        let started = started?;
        restored?;
        Ok(started)
    }
}

fn restore_stdio() -> Result<()> {
    use rustix::fs::{CWD, OFlags, openat};
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    null.and_then(|null| dup2_stdin(&null).and(dup2_stdout(&null)).and(dup2_stderr(&null)))
        .map_err(at(LayerName::Session, "cannot let go of the agent's descriptors"))
}

/// Tells the launcher that the first process executes. `about` is its number, to go as credentials: the kernel
/// translates them, even if the process has ended by then.
pub(crate) fn tell(
    control: &UnixStream,
    started: &Started,
    layers: Vec<aion_types::LayerReport>,
    marks: [u64; 3],
    about: Option<u32>,
    master: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let pid = started.child.pid;
    let outcome = Outcome::Running { pid, layers, marks };
    let mut fds = vec![started.child.pidfd.as_fd()];
    fds.extend(master);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    aion_sys::frame::send(control.as_fd(), &outcome.encode(), &fds, about, Some(deadline))
        .map_err(at(LayerName::Session, "cannot tell the launcher"))
}
