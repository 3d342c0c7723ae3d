//! One-shot runs of tools: launched as an agent is, in a sandbox of their own, and forgotten when they have ended.
//!
//! They are on no record: a run that a crash of the daemon cuts off is killed and removed when the launcher is met again, because
//! nobody waits for its answer any more. Its name holds its id, which no agent's can.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_agent_journal::{Item, Kind as RecordKind, Reader};
use aion_kernel::{Sandbox, ToolEnd, ToolRun};
use aion_launcher_proto::v1 as launcher;
use aion_launcher_proto::v1::workspace::Kind;
use aion_manifest::Network;
use aion_syscall::{Reason, Refusal};
use aion_types::{AgentId, ErrorCode, Exit};
use tokio::sync::oneshot;

use crate::core::Core;
use crate::problem::{Outcome, Problem};
use crate::{convert, jobs, register};

/// What standard error shows of a failure.
const STDERR: usize = 16 << 10;
/// The journal of a run: its output, with room for what records take.
const LOG: u64 = 8 << 20;
/// A run's end is told this much after its time at the latest.
const LATE: Duration = Duration::from_secs(10);
/// The rest of a run is taken away this much later.
const AFTER_ANSWER: Duration = Duration::from_millis(10);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Waiting {
    /// None once the end was told; the run is known until its output was read.
    end: Option<oneshot::Sender<Exit>>,
    launched: bool,
}

/// The runs that somebody waits for, or whose output is being read.
#[derive(Default)]
pub(crate) struct ToolRuns(Mutex<HashMap<String, Waiting>>);

impl ToolRuns {
    pub(crate) fn expect(&self, id: &AgentId) -> oneshot::Receiver<Exit> {
        let (end, wait) = oneshot::channel();
        let waiting = Waiting { end: Some(end), launched: false };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string(), waiting);
        wait
    }

    pub(crate) fn launched(&self, id: &AgentId) {
        if let Some(waiting) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id.as_str()) {
            waiting.launched = true;
        }
    }

    pub(crate) fn forget(&self, id: &AgentId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id.as_str());
    }

    pub(crate) fn knows(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Takes a notice in; false: it is about something else.
    pub(crate) fn noticed(&self, state: &launcher::AgentState) -> bool {
        if !is_tool_run(state) {
            return false;
        }
        if let (Some(exit), "exited") = (&state.exit, state.state.as_str()) {
            let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(end) = runs.get_mut(&state.id).and_then(|waiting| waiting.end.take()) {
                let _ = end.send(convert::exit_of(exit));
            }
        }
        true
    }

    /// The launcher was met again: what is not in its table is gone.
    pub(crate) fn synced(&self, table: &[launcher::AgentState]) {
        for state in table {
            self.noticed(state);
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|id, waiting| {
            waiting.end.is_none() || !waiting.launched || table.iter().any(|state| state.id == *id)
        });
    }
}

/// Whether an entry of the launcher's table is a run of a tool.
pub(crate) fn is_tool_run(state: &launcher::AgentState) -> bool {
    state.name.strip_prefix("tool-").is_some_and(|id| id.eq_ignore_ascii_case(&state.id))
}

impl Core {
    /// Runs a tool to its end, or its time's. It is ended when nobody waits any more.
    pub(crate) async fn run_tool(self: Arc<Self>, run: ToolRun) -> Result<ToolEnd, Refusal> {
        let core = Arc::clone(&self);
        // Dropped with this future; what is left of the run is taken away all the same.
        let (_waits, gone) = oneshot::channel();
        let done = tokio::spawn(async move {
            let id = register::new_id()?;
            let ended = core.run_tool_as(&id, run, gone).await;
            core.tool_runs.forget(&id);
            // What has ended by itself is in nobody's way: the answer goes first.
            let after = if ended.is_ok() { AFTER_ANSWER } else { Duration::ZERO };
            core.end_tool_run(id.as_str(), after);
            ended
        });
        match done.await {
            Ok(ended) => ended.map_err(Refusal::from),
            Err(error) => Err(Refusal::new(
                Reason::Internal,
                ErrorCode::Internal,
                format!("the run did not end: {error}"),
            )),
        }
    }

    async fn run_tool_as(&self, id: &AgentId, run: ToolRun, gone: oneshot::Receiver<()>) -> Outcome<ToolEnd> {
        let wait = self.tool_runs.expect(id);
        let ToolRun { sandbox, audit_id, stdin, timeout, max_output } = run;
        let stdin = jobs::sealed(&stdin)?;
        // It lives for one call, and making a volume takes longer than most calls.
        let mut launch = plan(id, sandbox, Kind::Memory(launcher::Empty {}));
        launch.env.push(format!("AION_AUDIT_ID={audit_id}").into_bytes());
        launch.limits.get_or_insert_default().wall_ms =
            u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        launch.stdin = true;
        let state = match self.launcher.launch_with(launch, vec![stdin]).await {
            Ok((state, _)) => state,
            Err(error) => return Err(Problem::from(error)),
        };
        self.tool_runs.launched(id);
        // It may have ended before anybody could say that it was launched.
        self.tool_runs.noticed(&state);
        // Opened while it runs: its end is waited for, the opening is not.
        let end = async {
            tokio::select! {
                end = tokio::time::timeout(timeout.saturating_add(LATE), wait) => Some(end),
                _ = gone => None,
            }
        };
        let (exit, log) = tokio::join!(end, self.launcher.open_log(id.as_str()));
        let exit = match exit {
            Some(Ok(Ok(exit))) => exit,
            Some(Ok(Err(_))) => {
                let message = "the tool's end was not seen: the launcher was restarted meanwhile";
                return Err(Problem::new(ErrorCode::ToolFailed, message));
            }
            Some(Err(_)) => {
                return Err(Problem::new(ErrorCode::DeadlineExceeded, "the tool did not end in its time"));
            }
            None => return Err(Problem::new(ErrorCode::ToolFailed, "nobody waits for the tool any more")),
        };
        let file = File::from(log?);
        let read = tokio::task::spawn_blocking(move || output(file, max_output, 0)).await;
        let (stdout, cut, stderr) = read
            .map_err(|error| Problem::internal("reading a tool's output did not run to its end", &error))?
            .map_err(|error| Problem::internal("a tool's output cannot be read", &error))?;
        Ok(ToolEnd { code: exit.shell_code(), reason: exit.reason.as_str().to_owned(), stdout, cut, stderr })
    }

    /// Kills what is left of a run after a while, and removes its traces; does not wait for that.
    pub(crate) fn end_tool_run(&self, id: &str, after: Duration) {
        let (client, id) = (self.launcher.clone(), id.to_owned());
        // Without a runtime the daemon is ending, and the next one does it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep(after).await;
            // What has ended cannot be killed; what was never launched is not there.
            let _ = client.kill(&id, "killed").await;
            if let Err(error) = client.remove(&id, false).await
                && error.code() != ErrorCode::AgentNotFound
            {
                tracing::warn!(run = id, %error, "a tool's run stays at the launcher until the next meeting");
            }
        });
    }
}

/// `scratch` is the working directory of a tool without files of its own.
pub(crate) fn plan(id: &AgentId, run: Sandbox, scratch: Kind) -> launcher::Launch {
    let mut env = vec![format!("PATH={PATH}"), "LANG=C.UTF-8".to_owned(), "HOME=/tmp".to_owned()];
    env.extend(run.env.iter().map(|(name, value)| format!("{name}={value}")));
    let folder = run.folder.map(|folder| folder.to_string_lossy().into_owned());
    let (own_files, class) = (folder.is_some(), run.class);
    launcher::Launch {
        id: id.to_string(),
        tenant: run.tenant.to_string(),
        name: format!("tool-{}", id.as_str().to_lowercase()),
        argv: run.argv.into_iter().map(String::into_bytes).collect(),
        env: env.into_iter().map(String::into_bytes).collect(),
        cwd: b"/workspace".to_vec(),
        rootfs: Some(launcher::Rootfs { kind: Some(launcher::rootfs::Kind::HostSystem(launcher::Empty {})) }),
        workspace: Some(match folder {
            Some(path) => {
                launcher::Workspace { kind: Some(Kind::Directory(path.into_bytes())), read_only: true }
            }
            None => launcher::Workspace { kind: Some(scratch), read_only: false },
        }),
        network: match run.network {
            Network::None => launcher::Network::None.into(),
            Network::Host => launcher::Network::Host.into(),
            // A tool's manifest cannot ask for it.
            Network::Egress => launcher::Network::None.into(),
        },
        limits: Some(launcher::Limits {
            cpu_millis: class.cpu.0,
            mem_bytes: class.mem.0,
            pids: class.pids,
            // The limit is that of a workspace of its own.
            disk_bytes: if own_files { 0 } else { class.disk.0 },
            file_size_bytes: class.file_size.unwrap_or(class.disk).0,
            open_files: class.open_files,
            wall_ms: 0,
            cpu_weight: class.cpu_weight,
            io_weight: class.io_weight,
            io_read_bps: class.io_read_bps.map_or(0, |bps| bps.0),
            io_write_bps: class.io_write_bps.map_or(0, |bps| bps.0),
        }),
        seccomp_profile: run.seccomp_profile,
        log_max_bytes: LOG,
        binds: run.runner.into_iter().map(read_only).collect(),
        ..launcher::Launch::default()
    }
}

fn read_only(path: PathBuf) -> launcher::Bind {
    launcher::Bind { path: path.into_os_string().into_vec(), writable: false }
}

/// Standard output, whether there was more of it, and the end of standard error, both of what was written since then.
pub(crate) fn output(
    file: File,
    max: usize,
    since_ns: u64,
) -> Result<(Vec<u8>, bool, Vec<u8>), aion_agent_journal::Error> {
    let mut reader = Reader::open(file, 0)?;
    let (mut stdout, mut cut, mut stderr) = (Vec::new(), false, Vec::new());
    while let Some(item) = reader.next()? {
        let record = match item {
            Item::Record(record) if record.time_ns < since_ns => continue,
            Item::Record(record) => record,
            // The beginning was dropped for the size.
            _ => {
                cut = true;
                continue;
            }
        };
        match record.kind {
            RecordKind::Stdout => {
                let room = max.saturating_sub(stdout.len());
                cut |= record.payload.len() > room;
                stdout.extend_from_slice(record.payload.get(..room).unwrap_or(&record.payload));
            }
            RecordKind::Stderr => {
                stderr.extend_from_slice(&record.payload);
                let over = stderr.len().saturating_sub(STDERR);
                stderr.drain(..over);
            }
            _ => {}
        }
    }
    Ok((stdout, cut, stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &AgentId, word: &str) -> launcher::AgentState {
        launcher::AgentState {
            id: id.to_string(),
            name: format!("tool-{}", id.as_str().to_lowercase()),
            state: word.to_owned(),
            exit: (word == "exited")
                .then(|| launcher::Exit { reason: "exited".to_owned(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_run_is_known_until_its_output_was_read() {
        let runs = ToolRuns::default();
        let id = AgentId::from_parts(1, 2);
        let mut end = runs.expect(&id);
        runs.launched(&id);
        assert!(runs.noticed(&state(&id, "running")) && end.try_recv().is_err());
        assert!(runs.noticed(&state(&id, "exited")) && end.try_recv().is_ok());
        // The launcher is met again before the output was read: nobody else takes the run away.
        runs.synced(&[state(&id, "exited")]);
        assert!(runs.knows(id.as_str()));
        runs.forget(&id);
        assert!(!runs.knows(id.as_str()));
    }

    #[test]
    fn what_is_not_in_the_table_any_more_has_ended_unseen() {
        let runs = ToolRuns::default();
        let (gone, coming) = (AgentId::from_parts(1, 1), AgentId::from_parts(2, 2));
        let (mut end, mut other) = (runs.expect(&gone), runs.expect(&coming));
        runs.launched(&gone);
        runs.synced(&[]);
        assert_eq!(end.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        // Not launched yet: it could not be in the table.
        assert_eq!(other.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let agent = launcher::AgentState { name: "tool-x".to_owned(), ..state(&gone, "running") };
        assert!(!runs.noticed(&agent), "an agent of that name is an agent");
    }
}
