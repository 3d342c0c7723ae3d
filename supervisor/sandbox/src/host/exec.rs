//! A further command in a running sandbox, with the same layers.
//!
//! A helper (the init binary in another role, our child) enters the agent's cgroup and namespaces, makes the
//! command there and stays until it ends: it ends the same way. It is born in the agent's v2 cgroup; for v1
//! controllers the caller moves it before [`ExecSlot::run`], as with a slot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use aion_agent_journal::DeniedCall;
use aion_types::LayerReport;
use rustix::io::Errno;

use crate::Error;
use crate::host::init_process::InitProcess;
use crate::host::launch::program_text;
use crate::host::memory_files;
use crate::message::{ExecPlan, Message, Outcome};
use crate::plan_check::check;
use crate::plan_codec::{decode_outcome, encode};

const MAX_ANSWER: usize = 64 * 1024;

/// The command's standard descriptors. With a terminal all three are its slave end.
#[derive(Debug)]
pub struct ExecFds {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// A parked helper. Dropping it kills it.
#[derive(Debug)]
pub struct ExecSlot {
    helper: Option<InitProcess>,
    control: UnixStream,
    timeout: Duration,
    pid: u32,
}

/// A command that runs.
#[derive(Debug)]
pub struct Executing {
    /// The helper: it ends when the command has ended, with the same code or by the same signal.
    pub helper: InitProcess,
    /// The command's process, in our pid namespace.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// What was set up.
    pub layers: Vec<LayerReport>,
    control: UnixStream,
}

impl ExecSlot {
    pub(crate) fn new(helper: InitProcess, control: UnixStream, timeout: Duration) -> Self {
        let pid = helper.pid();
        Self { helper: Some(helper), control, timeout, pid }
    }

    /// The helper's number in our pid namespace.
    #[must_use]
    pub fn helper_pid(&self) -> u32 {
        self.pid
    }

    /// Enters the sandbox of the process at `target` (its init's, or any process's in it) and runs the command.
    ///
    /// # Errors
    /// Nothing of it runs any more.
    pub fn run(mut self, target: BorrowedFd<'_>, plan: &ExecPlan, fds: &ExecFds) -> Result<Executing, Error> {
        check(&plan.plan)?;
        let deadline = Some(Instant::now() + self.timeout);
        let ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let failed = |e: Errno| match e {
            Errno::TIMEDOUT => Error::Timeout { ms },
            Errno::PIPE => Error::InitDied { status: "the helper ended".to_owned() },
            e => Error::host("speak with the helper")(e),
        };
        let order = [target, fds.stdin.as_fd(), fds.stdout.as_fd(), fds.stderr.as_fd()];
        let mut plan = plan.clone();
        memory_files::forbid_for_command(&mut plan.plan);
        let program = program_text(&plan.plan);
        let message = encode(&Message::Exec(Box::new(plan)));
        aion_sys::frame::send(self.control.as_fd(), &message, &order, None, deadline).map_err(failed)?;
        let pidfd = self.helper.as_ref().map(InitProcess::pidfd);
        let answer =
            aion_sys::frame::recv(self.control.as_fd(), MAX_ANSWER, pidfd, deadline).map_err(failed)?;
        match decode_outcome(&answer.bytes)? {
            // The helper counts in our pid namespace.
            Outcome::Running { pid, layers, .. } => {
                let pidfd = answer.fds.into_iter().next().ok_or(Error::Protocol { reason: "no pidfd" })?;
                let helper = self.helper.take().ok_or(Error::Protocol { reason: "no helper" })?;
                let control = self.control.try_clone().map_err(|e| Error::Host {
                    doing: "keep the helper's socket".to_owned(),
                    errno: e.raw_os_error().unwrap_or(0),
                })?;
                Ok(Executing { helper, pid, pidfd, layers, control })
            }
            Outcome::LayerFailed { layer, errno, message } => Err(Error::Layer { layer, errno, message }),
            Outcome::ExecFailed { errno } => Err(Error::Exec { errno, program }),
            Outcome::Forked { .. } => Err(Error::Protocol { reason: "not an answer to a command" }),
        }
    }
}

impl Drop for ExecSlot {
    fn drop(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            helper.destroy();
        }
    }
}

impl Executing {
    /// Readable when the helper has denied calls to tell.
    #[must_use]
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// The next denied call of the command (the journal has only those of the agent itself), without waiting.
    ///
    /// # Errors
    /// As the socket says.
    pub fn next_denied(&mut self) -> Result<Option<DeniedCall>, Error> {
        match aion_sys::frame::recv(self.control.as_fd(), 64, None, Some(Instant::now())) {
            Ok(frame) => DeniedCall::decode(&frame.bytes)
                .map(Some)
                .ok_or(Error::Protocol { reason: "not a denied call" }),
            Err(Errno::TIMEDOUT | Errno::PIPE) => Ok(None),
            Err(e) => Err(Error::host("hear from the helper")(e)),
        }
    }
}
