//! What is to be done outside, after the batch is on disk. Each may be done twice without harm: attempts are fenced.

use crate::{AgentMode, Attempt, Name, TaskNumber};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Give the attempt to the agent, or start its process. What cannot be delivered is answered with `AttemptLost`.
    Assign {
        /// Its token.
        attempt: Attempt,
        /// The task's number, of its body and checkpoints.
        task: TaskNumber,
        /// The task's tenant.
        tenant: Name,
        /// The task's id.
        id: Name,
        /// Who runs it.
        agent: Name,
        /// How.
        mode: AgentMode,
        /// Which attempt of the task it is, from 1.
        number: u32,
        /// The checkpoint to resume from, and its size.
        resume: Option<(u32, u64)>,
        /// Since when it waited: its submission, or the end of what it had to wait for before.
        since: u64,
        /// The task's deadline.
        deadline: Option<u64>,
        /// How long the attempt may run.
        timeout_ms: Option<u64>,
    },
    /// Ask the attempt to make room within the grace.
    Preempt {
        /// Which.
        attempt: Attempt,
        /// Its tenant.
        tenant: Name,
        /// Its agent.
        agent: Name,
        /// How long it has.
        grace_ms: u64,
    },
    /// Ask for a checkpoint; the attempt goes on.
    TakeCheckpoint {
        /// Which.
        attempt: Attempt,
        /// Its tenant.
        tenant: Name,
        /// Its agent.
        agent: Name,
    },
    /// Freeze the attempt's agent; answered with `Frozen` or `FreezeFailed`.
    Freeze {
        /// Which.
        attempt: Attempt,
        /// Its tenant.
        tenant: Name,
        /// Its agent.
        agent: Name,
    },
    /// Let the attempt's agent go on; when it cannot: `AttemptLost`.
    Thaw {
        /// Which.
        attempt: Attempt,
        /// Its tenant.
        tenant: Name,
        /// Its agent.
        agent: Name,
    },
    /// End the attempt: a job's process, or the service agent that works on it. Answered with `AttemptLost` when it is gone. Sent
    /// again every `stop_retry_ms` until then.
    Stop {
        /// Which.
        attempt: Attempt,
        /// Its tenant.
        tenant: Name,
        /// Its agent.
        agent: Name,
    },
    /// Tell the agent that the attempt no longer counts. It answers with any end of it; else `Stop` follows after the grace.
    CancelAttempt {
        /// Which.
        attempt: Attempt,
        /// Its tenant.
        tenant: Name,
        /// Its agent.
        agent: Name,
        /// In words.
        reason: Name,
    },
    /// A service agent that is wanted and not attached. Said once until it attaches, and again every `wake_retry_ms` while tasks wait.
    Wake {
        /// Whose.
        tenant: Name,
        /// Which.
        agent: Name,
    },
    /// Checkpoints of the task with a number below this one are not needed any more.
    DropCheckpoints {
        /// Which task.
        task: TaskNumber,
        /// `u32::MAX`: all.
        below: u32,
    },
}
