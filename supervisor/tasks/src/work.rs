//! What the engine is asked for, and how it answers: always after the group is on disk.

use std::path::PathBuf;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_scheduler::{Attempt, Command, Config, Name, Scheduler, Submit, TaskView};
use aion_task_journal::Checkpoint;
use aion_types::TenantId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::Settings;
use crate::error::Error;
use crate::sessions::Session;

/// A task to be submitted.
pub(crate) struct NewTask {
    pub(crate) submit: Box<Submit>,
    /// What the core does not need: the request, encoded.
    pub(crate) body: Arc<[u8]>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    /// It was there before.
    pub(crate) existed: bool,
    /// The new task as it was written, when it was asked for.
    pub(crate) view: Option<Box<TaskView>>,
}

/// Runs on the engine and gives what is to be done once everything applied so far is on disk.
pub(crate) type Look = Box<dyn FnOnce(&Scheduler) -> After + Send>;
/// Runs after the sync.
pub(crate) type After = Box<dyn FnOnce() + Send>;

/// An answer to a request.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

pub(crate) enum Work {
    /// New tasks of one tenant: each with an answer of its own, and with a look at it when that is wanted.
    Submit { tasks: Vec<NewTask>, look: bool, answer: oneshot::Sender<Vec<Result<Submitted, Error>>> },
    /// The end of a task.
    Cancel { tenant: TenantId, task: aion_scheduler::TaskId, reason: String, answer: Answer<()> },
    /// A look at the core.
    Look(Look),
    /// New settings.
    Configure { config: Box<Config>, settings: Settings, answer: Answer<()> },
    /// Another journal, whole and checked, in the place of this one.
    Import { from: PathBuf, answer: Answer<()> },
    /// What the daemon itself says: nobody waits for it.
    Command(Command),
    /// A service agent opened its stream.
    Attach { session: Arc<Session>, concurrency: u32, running: Vec<Attempt> },
    /// What a service agent says of its attempts.
    Said { session: Arc<Session>, said: Said, permit: OwnedSemaphorePermit },
    /// A checkpoint is complete; the answer says whether it counts.
    Checkpointed {
        attempt: Attempt,
        checkpoint: Box<Checkpoint>,
        yields: bool,
        /// None: a job's, which nobody at a stream waits for.
        session: Option<(Arc<Session>, OwnedSemaphorePermit)>,
        answer: Option<oneshot::Sender<Result<u32, Error>>>,
    },
    /// How a job's attempt ended.
    JobEnded { attempt: Attempt, end: JobOutcome, answer: oneshot::Sender<Result<(), Error>> },
}

/// What a service agent says.
pub(crate) enum Said {
    Started(Vec<Attempt>),
    Progress { attempt: Attempt, permille: u16, note: String },
    Usage { attempt: Attempt, tokens: u64, usd_micros: u64 },
    Completions(Vec<(Attempt, api::completion::Outcome)>),
}

/// How a job's attempt ended.
pub(crate) enum JobOutcome {
    Completed { result: Vec<u8> },
    Failed { code: String, message: String, retryable: bool },
    Yielded,
    Lost { reason: String },
}

impl Work {
    /// How much of a group it takes.
    pub(crate) fn commands(&self) -> usize {
        match self {
            Self::Submit { tasks, .. } => tasks.len(),
            Self::Said { said: Said::Completions(all), .. } => all.len(),
            Self::Said { said: Said::Started(all), .. } => all.len(),
            _ => 1,
        }
    }
}

/// A tenant's or agent's name, shared.
pub(crate) fn name(text: &str) -> Name {
    text.into()
}
