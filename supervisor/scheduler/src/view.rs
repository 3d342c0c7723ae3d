//! What Get, List and `queue` are answered from. A view is also the row of an ended task.

use crate::{AgentMode, Attempt, Class, Name, State, Target, TaskNumber};

/// A task as the core knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Its number.
    pub number: TaskNumber,
    /// Its tenant.
    pub tenant: Name,
    /// Its id.
    pub id: Name,
    /// The hash that it was submitted with.
    pub fingerprint: u64,
    /// Who may run it.
    pub target: Target,
    /// Its queue.
    pub class: Class,
    /// 0 to 9.
    pub priority: u8,
    /// Where it stands.
    pub state: State,
    /// Why it does not run, in words; empty: it runs or has ended well.
    pub why: String,
    /// The agent that runs or ran it.
    pub agent: Option<Name>,
    /// The token of the attempt that runs.
    pub attempt: Option<Attempt>,
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Preemptions so far.
    pub preemptions: u32,
    /// Checkpoints so far; the number of the newest.
    pub checkpoints: u32,
    /// The newest checkpoint's size.
    pub checkpoint_bytes: u64,
    /// 0 to 1000.
    pub progress_permille: u16,
    /// In words.
    pub progress_note: String,
    /// Used so far.
    pub tokens: u64,
    /// Used so far, in millionths of a dollar.
    pub usd_micros: u64,
    /// The last failure's code.
    pub error_code: String,
    /// The last failure in words.
    pub error_message: String,
    /// Whether the last failure was one that another attempt might mend.
    pub error_retryable: bool,
    /// When, in ms since 1970.
    pub submitted: u64,
    /// When the first attempt started.
    pub started: Option<u64>,
    /// When it ended.
    pub finished: Option<u64>,
    /// When it must have ended.
    pub deadline: Option<u64>,
    /// When the next attempt may start: a backoff or a quota.
    pub retry_at: Option<u64>,
    /// Slots that it takes.
    pub slots: u32,
    /// GPUs that it takes.
    pub gpu: u32,
    /// An attempt was lost in a crash and the task is not idempotent.
    pub may_repeat: bool,
    /// The number of its last event.
    pub last_event: u64,
}

/// An attempt that holds an agent: what a start reconciles with what really runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// Its token.
    pub attempt: Attempt,
    /// Its task.
    pub task: TaskNumber,
    /// The task's tenant.
    pub tenant: Name,
    /// The task's id.
    pub id: Name,
    /// Its agent.
    pub agent: Name,
    /// How the agent runs tasks.
    pub mode: AgentMode,
    /// The task's state; ended when only the process is left.
    pub state: State,
    /// Nothing was heard of it since the start.
    pub unconfirmed: bool,
    /// It is to be stopped.
    pub stopping: bool,
}

/// One queue of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Which.
    pub class: Class,
    /// Tasks that wait in it.
    pub depth: u64,
    /// Tasks of it that run.
    pub running: u64,
    /// Slots that they take.
    pub slots: u64,
    /// When the task that waits longest was submitted.
    pub oldest: Option<u64>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantView {
    /// Its name.
    pub tenant: Name,
    /// Its weight.
    pub weight: u32,
    /// Tasks that wait.
    pub queued: u64,
    /// Tasks that run.
    pub running: u64,
    /// Slots that they take.
    pub slots: u64,
    /// Its virtual time, relative to the tenant that is served next.
    pub lag: u64,
    /// Bytes of its checkpoints.
    pub checkpoint_bytes: u64,
    /// The quota that holds it back, and when it frees up (none: when a task of it ends).
    pub limited_by: Option<(&'static str, Option<u64>)>,
}
