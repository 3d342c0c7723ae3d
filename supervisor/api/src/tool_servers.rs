//! Servers of tools: launched as a run is, spoken to through pipes, and ended when nobody holds them any more.
//!
//! The pipes are ours alone: a crash of the daemon closes them, and what still runs then is removed when the launcher is met
//! again.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use aion_kernel::{BoxFuture, Running, Sandbox, ToolServer};
use aion_launcher_proto::v1::{Empty, workspace::Kind};
use aion_types::{AgentId, ErrorCode};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;

use crate::core::Core;
use crate::problem::{Outcome, Problem};
use crate::register;
use crate::tool_runs::{output, plan};

/// What is kept of standard error.
const LOG: u64 = 1 << 20;

/// A server; dropping it ends the process.
struct Server {
    core: Arc<Core>,
    id: AgentId,
}

impl Running for Server {
    fn said(&self, since_ns: u64) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let Ok(file) = self.core.launcher.open_log(self.id.as_str()).await else { return String::new() };
            let read = tokio::task::spawn_blocking(move || output(File::from(file), 0, since_ns)).await;
            let said = read.ok().and_then(Result::ok).map(|(_, _, stderr)| stderr).unwrap_or_default();
            String::from_utf8_lossy(&said).trim().to_owned()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.core.tool_runs.forget(&self.id);
        self.core.end_tool_run(self.id.as_str(), Duration::ZERO);
    }
}

impl Core {
    /// Starts a server.
    pub(crate) async fn serve_tool(self: Arc<Self>, sandbox: Sandbox) -> Outcome<ToolServer> {
        let made = |error: std::io::Error| Problem::internal("no pipe for a tool's server", &error);
        let new = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| made(errno.into()));
        let ((its_stdin, stdin), (stdout, its_stdout)): ((OwnedFd, OwnedFd), (OwnedFd, OwnedFd)) =
            (new()?, new()?);
        let writer = pipe::Sender::from_owned_fd(stdin).map_err(made)?;
        let reader = pipe::Receiver::from_owned_fd(stdout).map_err(made)?;
        let id = register::new_id()?;
        let mut launch = plan(&id, sandbox, Kind::Managed(Empty {}));
        (launch.stdio, launch.log_max_bytes) = (true, LOG);
        // From here on dropping it removes whatever there is.
        drop(self.tool_runs.expect(&id));
        let running = Server { core: Arc::clone(&self), id };
        let launched = self.launcher.launch_with(launch, vec![its_stdin, its_stdout]).await;
        let (state, _) = launched.map_err(Problem::from)?;
        self.tool_runs.launched(&running.id);
        if state.state == "exited" {
            let said = running.said(0).await;
            return Err(Problem::new(ErrorCode::ToolFailed, format!("it ended at once: {said}")));
        }
        Ok(ToolServer { reader: Box::new(reader), writer: Box::new(writer), running: Box::new(running) })
    }
}
