//! Further commands in a running agent, under the same layers.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_launcher_proto::v1::{self, notice::Kind};
use aion_sandbox::{ExecFds, ExecPlan, Executing, WindowSize};
use aion_types::{AgentId, ErrorCode, Exit, ExitReason};
use rustix::fs::FileType;
use serde_json::json;

use crate::agent::Agent;
use crate::audit::Entry;
use crate::launcher::Launcher;
use crate::lock::lock;
use crate::request::{Exec, Launch};
use crate::{Failure, clock, denials, limits, plan};

/// How long the set-up of a command may take.
const SETUP: Duration = Duration::from_secs(10);

/// Major numbers of the slave ends of pseudoterminals.
const PSEUDOTERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
/// `/dev/null`.
const NULL: (u32, u32) = (1, 3);

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Command {
    agent: Arc<Agent>,
    exec_id: AgentId,
    executing: Mutex<Executing>,
    /// Copies of descriptors that are watched: they must stay open as long as they are.
    kept: Mutex<Vec<OwnedFd>>,
}

impl Launcher {
    /// Runs a command in an agent.
    pub(crate) fn exec(self: &Arc<Self>, exec: Exec, fds: Vec<OwnedFd>) -> Result<v1::ExecOk, Failure> {
        let agent = self.agent(&exec.id)?;
        let run = agent.running().ok_or_else(|| Failure::not_running(&exec.id))?;
        let spec = {
            let inner = agent.lock();
            if inner.record.paused {
                return Err(Failure::new(ErrorCode::AgentPaused, format!("agent {} is frozen", exec.id)));
            }
            inner
                .spec
                .clone()
                .ok_or_else(|| Failure::internal("what the agent was launched with is not known"))?
        };
        self.audit.check()?;
        let seccomp = self.profiles.get(&spec.seccomp_profile)?;
        let fds = stdio(fds, exec.tty)?;
        let tty = exec.tty.then(|| window(&fds)).transpose()?;
        let plan = ExecPlan { plan: plan::of(&as_launch(&spec, &exec), &seccomp, &[], run.probed), tty };
        let group = &run.held.group;
        let dir = group
            .dir()
            .map(|dir| dir.try_clone_to_owned())
            .transpose()
            .map_err(|e| Failure::internal(format!("cannot copy a descriptor: {e}")))?;
        let slot = self.slots.spawner().spawn_exec(dir, SETUP)?;
        group.join_v1(slot.helper_pid())?;
        let target = run.pidfd().ok_or_else(|| Failure::not_running(&exec.id))?;
        let executing = slot.run(std::os::fd::AsFd::as_fd(&target), &plan, &fds)?;
        let pid = executing.pid;
        let detail = json!({ "exec": exec.exec_id.as_str(), "pid": pid,
            "command": String::from_utf8_lossy(&exec.argv.join(&b' ')).chars().take(4096).collect::<String>() });
        limits::tell(self, &agent, vec![Entry::new("agent.exec", "allowed", &detail)]);
        let command = Arc::new(Command {
            agent,
            exec_id: exec.exec_id,
            executing: Mutex::new(executing),
            kept: Mutex::default(),
        });
        self.exits.watch_command(&command);
        Ok(v1::ExecOk { pid })
    }
}

/// The agent's launch, with the command's words.
fn as_launch(spec: &Launch, exec: &Exec) -> Launch {
    let mut launch = spec.clone();
    launch.argv.clone_from(&exec.argv);
    let name = |e: &[u8]| e.split(|&b| b == b'=').next().map(<[u8]>::to_vec);
    launch.env.retain(|old| !exec.env.iter().any(|new| name(new) == name(old)));
    launch.env.extend(exec.env.iter().cloned());
    if let Some(cwd) = &exec.cwd {
        launch.cwd.clone_from(cwd);
    }
    launch.tty = None;
    // What is about mounts is not used, and secrets are where they are.
    launch.binds.clear();
    launch.devices.clear();
    launch.secrets.clear();
    launch
}

/// The command's streams: pipes, or terminals. Anything else could be a way out: a folder of the host is one, a socket carries
/// further descriptors.
fn stdio(fds: Vec<OwnedFd>, tty: bool) -> Result<ExecFds, Failure> {
    for (at, fd) in fds.iter().enumerate() {
        check_stream(fd, tty).map_err(|why| Failure::field("fds", format!("descriptor {at} {why}")))?;
    }
    let failed = |e: std::io::Error| Failure::internal(format!("cannot copy a descriptor: {e}"));
    let mut fds = fds.into_iter();
    let stdin = fds.next().ok_or_else(|| Failure::field("fds", "no descriptor came"))?;
    match (fds.next(), fds.next()) {
        (Some(stdout), Some(stderr)) => Ok(ExecFds { stdin, stdout, stderr }),
        _ => {
            let (stdout, stderr) = (stdin.try_clone().map_err(failed)?, stdin.try_clone().map_err(failed)?);
            Ok(ExecFds { stdin, stdout, stderr })
        }
    }
}

fn check_stream(fd: &OwnedFd, tty: bool) -> Result<(), String> {
    let stat = rustix::fs::fstat(fd).map_err(|e| format!("cannot be looked at: {e}"))?;
    // One that only names a file has the file's type, and could be opened again as something else.
    let flags = rustix::fs::fcntl_getfl(fd).map_err(|e| format!("cannot be looked at: {e}"))?;
    let opened = !flags.contains(rustix::fs::OFlags::PATH);
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo if opened && !tty => Ok(()),
        FileType::CharacterDevice if opened && PSEUDOTERMINALS.contains(&device.0) => Ok(()),
        FileType::CharacterDevice if opened && !tty && device == NULL => Ok(()),
        _ if tty => Err("is not a terminal".to_owned()),
        _ => Err("is neither a pipe nor a terminal nor /dev/null".to_owned()),
    }
}

/// The size that the terminal has.
fn window(fds: &ExecFds) -> Result<WindowSize, Failure> {
    let size = rustix::termios::tcgetwinsize(&fds.stdin)
        .map_err(|e| Failure::field("fds", format!("the descriptor is not a terminal: {e}")))?;
    Ok(WindowSize { rows: size.ws_row, cols: size.ws_col })
}

impl Command {
    /// A copy of the helper's pidfd.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        lock(&self.executing).helper.pidfd().try_clone_to_owned().ok()
    }

    /// A copy of the socket on which the helper tells of denied calls.
    pub(crate) fn control(&self) -> Option<OwnedFd> {
        lock(&self.executing).control().try_clone_to_owned().ok()
    }

    pub(crate) fn keep(&self, fd: OwnedFd) {
        lock(&self.kept).push(fd);
    }

    /// Tells of calls that were denied to the command.
    pub(crate) fn tell_denied(&self, launcher: &Launcher) {
        let profile = self.agent.lock().spec.as_ref().map(|s| s.seccomp_profile.clone()).unwrap_or_default();
        let mut entries = Vec::new();
        while let Ok(Some(denied)) = lock(&self.executing).next_denied() {
            entries.push(denials::of_command(&denied, &profile, &self.exec_id));
        }
        limits::tell(launcher, &self.agent, entries);
    }

    /// The command has ended.
    pub(crate) fn finish(&self, launcher: &Launcher) {
        self.tell_denied(launcher);
        let ended = lock(&self.executing).helper.wait(Some(SETUP)).ok().flatten();
        let killed = !self.agent.lock().record.kill_reason.is_empty();
        let exit = match ended {
            Some(e) if e.signal == 9 && killed => Exit { code: 0, signal: 9, reason: ExitReason::Killed },
            Some(e) if e.signal != 0 => Exit { code: 0, signal: e.signal, reason: ExitReason::Signaled },
            Some(e) => Exit { code: e.code, signal: 0, reason: ExitReason::Exited },
            None => Exit { code: 0, signal: 9, reason: ExitReason::Lost },
        };
        lock(&self.kept).clear();
        launcher.hub.tell(Kind::ExecExited(v1::ExecExited {
            id: self.agent.id.as_str().to_owned(),
            exec_id: self.exec_id.as_str().to_owned(),
            exit: Some(v1::Exit {
                code: i32::from(exit.code),
                signal: i32::from(exit.signal),
                reason: exit.reason.as_str().to_owned(),
                time_ns: clock::wall_ns(),
            }),
        }));
    }
}
