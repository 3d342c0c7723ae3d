//! What the engine asks of whoever looks after agents' lives: `aion-api`.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use aion_scheduler::Attempt;
use aion_types::{AgentName, ErrorCode, TenantId};

use crate::audit::AuditRecord;

/// A future that can be stored.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// An agent, or the process of one attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose.
    pub tenant: TenantId,
    /// The registered agent.
    pub agent: AgentName,
    /// The attempt, of a job; none: the service itself.
    pub attempt: Option<Attempt>,
}

/// A process to be started for one attempt.
#[derive(Debug, Clone)]
pub struct JobLaunch {
    /// Which.
    pub place: Place,
    /// The task.
    pub task: String,
    /// Which attempt of the task it is, from 1.
    pub number: u32,
    /// Standard input: JSON.
    pub params: Vec<u8>,
    /// The checkpoint to start from, as AION packed it.
    pub checkpoint: Option<Arc<std::fs::File>>,
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    /// The stable code.
    pub code: ErrorCode,
    /// In words.
    pub message: String,
    /// It is nobody's fault and passes: the attempt does not count.
    pub passing: bool,
}

/// The process of an attempt, as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFound {
    /// Its folder, with its journal and what it leaves behind.
    pub folder: PathBuf,
    /// How it ended; none: it runs.
    pub end: Option<JobEnd>,
}

/// How the process of an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobEnd {
    /// As a shell shows it: the exit code, or 128 + signal.
    pub code: u8,
    /// Nobody saw it end, or it was killed for a reason that is not the job's: a crash of the host.
    pub lost: bool,
    /// It was killed for its memory.
    pub oom: bool,
    /// Somebody had it stopped: SIGTERM asked it to make room, as it is asked by whoever needs its slot.
    pub stopped: bool,
}

/// Looks after agents' lives. Every call may be repeated, also after a crash, without doing anything twice.
pub trait Host: Send + Sync + 'static {
    /// Starts a registered service that does not run.
    fn wake(&self, tenant: TenantId, agent: AgentName) -> BoxFuture<Result<(), String>>;
    /// Starts a process for an attempt, and says where its folder is. Its end is told with [`crate::Tasks::job_ended`].
    fn launch(&self, job: JobLaunch) -> BoxFuture<Result<PathBuf, LaunchError>>;
    /// The process of an attempt, when there is or was one; an error: that is not known yet.
    fn find(&self, place: Place) -> BoxFuture<Result<Option<JobFound>, String>>;
    /// Sends SIGTERM to an attempt's process, or to a service.
    fn terminate(&self, place: Place) -> BoxFuture<Result<(), String>>;
    /// Freezes it.
    fn freeze(&self, place: Place) -> BoxFuture<Result<(), String>>;
    /// Thaws it.
    fn thaw(&self, place: Place) -> BoxFuture<Result<(), String>>;
    /// Kills it, and answers when it is gone. What is not there is gone.
    fn stop(&self, place: Place) -> BoxFuture<Result<(), String>>;
    /// Forgets a job's process that has ended, and its files.
    fn forget(&self, place: Place) -> BoxFuture<Result<(), String>>;
    /// Whether an agent of this name is registered, whatever it serves.
    fn is_registered(&self, tenant: &TenantId, agent: &AgentName) -> bool;
    /// Appends to the audit log.
    fn audit(&self, records: Vec<AuditRecord>) -> BoxFuture<()>;
}
