//! What goes in: commands, and what the engine learns directly from one that was accepted.

use std::collections::BTreeMap;

use aion_types::{AgentName, TenantId};

use crate::{Attempt, Class, Config, Quotas, State, TaskId, TaskNumber};

/// One input of the state machine.
#[derive(Debug, Clone)]
pub enum Command {
    /// First after each start of the daemon, with an epoch above all before it (`Scheduler::epoch() + 1`). No agent counts as attached
    /// any more, and attempts wait for `Attached`, `Confirmed` or `AttemptLost`.
    Boot {
        /// The new epoch.
        epoch: u64,
    },
    /// The configuration changed.
    Configure(Box<Config>),
    /// A new task.
    Submit(Box<Submit>),
    /// Ends a task in any state. Its attempt is fenced at once; its slot is free when the attempt is over.
    Cancel {
        /// The task's tenant.
        tenant: TenantId,
        /// The task.
        task: TaskId,
        /// Why, for its history.
        reason: String,
    },
    /// An agent was registered or changed, or is known again after a start.
    AgentKnown {
        /// Whose agent.
        tenant: TenantId,
        /// Its name.
        name: AgentName,
        /// What it can do.
        spec: AgentSpec,
    },
    /// An agent was removed. Its attempts are lost; its tasks wait until it is known again.
    AgentGone {
        /// Whose agent.
        tenant: TenantId,
        /// Its name.
        name: AgentName,
    },
    /// A service agent opened its stream. What it does not name of its attempts is lost.
    Attached {
        /// Whose agent.
        tenant: TenantId,
        /// Its name.
        name: AgentName,
        /// How much it takes at once, at most the manifest's; 0: the manifest's.
        concurrency: u32,
        /// The attempts that it still works on.
        running: Vec<Attempt>,
    },
    /// A service agent's stream ended.
    Detached {
        /// Whose agent.
        tenant: TenantId,
        /// Its name.
        name: AgentName,
        /// Its process is gone, and its attempts with it. Else it has `reattach_ms` to come back.
        process_gone: bool,
    },
    /// After a start: the process of a job's attempt still runs.
    Confirmed {
        /// Which.
        attempt: Attempt,
    },
    /// The agent began to work on it.
    Started {
        /// Which.
        attempt: Attempt,
    },
    /// How far it is.
    Progress {
        /// Which.
        attempt: Attempt,
        /// 0 to 1000.
        permille: u16,
        /// In words.
        note: String,
    },
    /// A checkpoint is complete; [`Reply::Checkpoint`] says under which number it is to be stored, in the same batch.
    Checkpointed {
        /// Of which.
        attempt: Attempt,
        /// How large it is.
        bytes: u64,
        /// The attempt is over; the task goes on from here later.
        yields: bool,
    },
    /// Something of the attempt that whoever reads its history should know.
    Noted {
        /// Which.
        attempt: Attempt,
        /// In words.
        text: String,
    },
    /// The attempt succeeded; its result is stored in the same batch.
    Completed {
        /// Which.
        attempt: Attempt,
    },
    /// The attempt failed.
    Failed {
        /// Which.
        attempt: Attempt,
        /// The agent's code for it.
        code: String,
        /// In words.
        message: String,
        /// Whether another attempt may help.
        retryable: bool,
    },
    /// The attempt is over without a result and without a new checkpoint; the task goes on later from its last one.
    Yielded {
        /// Which.
        attempt: Attempt,
    },
    /// The attempt's process is gone, or it could not be assigned.
    AttemptLost {
        /// Which.
        attempt: Attempt,
        /// Why, for the history.
        reason: String,
    },
    /// The attempt's agent is frozen.
    Frozen {
        /// Which.
        attempt: Attempt,
    },
    /// The attempt's agent could not be frozen.
    FreezeFailed {
        /// Which.
        attempt: Attempt,
    },
    /// What an attempt used, on top of what was reported before.
    Usage {
        /// Which.
        attempt: Attempt,
        /// Tokens.
        tokens: u64,
        /// Millionths of a dollar.
        usd_micros: u64,
    },
    /// Time has passed; due when [`crate::Scheduler::next_wakeup`] says so.
    Tick,
}

/// A new task: what the core needs of it.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Whose.
    pub tenant: TenantId,
    /// Its id.
    pub id: TaskId,
    /// A hash of the whole request: the same id with the same hash is the same task.
    pub fingerprint: u64,
    /// What the journal holds of an ended task of this id. The engine looks it up before each submit with an id that a client chose.
    pub known: Option<Ended>,
    /// Who may run it.
    pub target: Target,
    /// Its queue.
    pub class: Class,
    /// 0 to 9, 9 first.
    pub priority: u8,
    /// When it must have ended, in ms since 1970.
    pub deadline: Option<u64>,
    /// How long an attempt may run; none: as long as the configuration says.
    pub timeout_ms: Option<u64>,
    /// How long it will run, as far as the client knows.
    pub estimate_ms: Option<u64>,
    /// What happens when an attempt fails.
    pub retry: RetryPolicy,
    /// Tokens that it may use in all; 0: no limit.
    pub tokens_max: u64,
    /// Millionths of a dollar that it may cost in all; 0: no limit.
    pub usd_micros_max: u64,
    /// Tasks of the tenant that must have succeeded first.
    pub after: Vec<Dependency>,
    /// Slots that it takes while it runs.
    pub slots: u32,
    /// GPUs that it takes while it runs.
    pub gpu: u32,
    /// Its effects may be repeated without harm.
    pub idempotent: bool,
}

impl Submit {
    /// A task with every default.
    #[must_use]
    pub fn new(tenant: TenantId, id: TaskId, target: Target) -> Self {
        Self {
            tenant,
            id,
            fingerprint: 0,
            known: None,
            target,
            class: Class::Normal,
            priority: 5,
            deadline: None,
            timeout_ms: None,
            estimate_ms: None,
            retry: RetryPolicy::default(),
            tokens_max: 0,
            usd_micros_max: 0,
            after: Vec::new(),
            slots: 1,
            gpu: 0,
            idempotent: false,
        }
    }
}

/// A task that another one waits for.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// Its id.
    pub id: TaskId,
    /// What the journal holds of it when it has ended.
    pub known: Option<Ended>,
}

/// What the journal knows of a task that has ended: the value of its row under [`crate::keys::ended_index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub number: TaskNumber,
    /// The hash that it was submitted with.
    pub fingerprint: u64,
    /// How it ended.
    pub state: State,
}

/// Who may run a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The agent of this name.
    Agent(AgentName),
    /// Any agent of the tenant that has all these labels.
    Selector(BTreeMap<String, String>),
}

/// What happens when an attempt fails. Preemptions and lost attempts do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Of attempts that failed.
    pub max_attempts: u32,
    /// Before the second.
    pub backoff_ms: u64,
    /// At most.
    pub max_backoff_ms: u64,
    /// By how much the pause grows each time, in hundredths.
    pub factor_percent: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 1, backoff_ms: 1000, max_backoff_ms: 300_000, factor_percent: 200 }
    }
}

/// How an agent runs tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentMode {
    /// One process for many tasks; takes tasks while it is attached.
    #[default]
    Service,
    /// One process per attempt; always ready.
    Job,
}

/// What the core must know of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// How it runs tasks.
    pub mode: AgentMode,
    /// How many at once.
    pub concurrency: u32,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// What one process of it may use, for the cap on frozen memory.
    pub memory_bytes: u64,
    /// It may be frozen in place.
    pub may_freeze: bool,
    /// It answers `Preempt` with a checkpoint. Else it is frozen or stopped without being asked.
    pub checkpoints: bool,
    /// How long it has to answer `Preempt`.
    pub grace_ms: u64,
    /// How often it is asked for a checkpoint while it runs; 0: never.
    pub checkpoint_interval_ms: u64,
    /// Quotas of its manifest; the tighter of these and the configuration's hold.
    pub quotas: Quotas,
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            mode: AgentMode::Service,
            concurrency: 1,
            labels: BTreeMap::new(),
            memory_bytes: 0,
            may_freeze: false,
            checkpoints: true,
            grace_ms: 5000,
            checkpoint_interval_ms: 0,
            quotas: Quotas::default(),
        }
    }
}

/// What the engine learns from an accepted command, besides events, rows and effects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reply {
    /// Nothing more.
    #[default]
    Done,
    /// The task is new.
    Submitted {
        /// Its number.
        task: TaskNumber,
    },
    /// The same task was submitted before; nothing changed.
    Existed {
        /// Its number.
        task: TaskNumber,
    },
    /// The agent is attached.
    Attached {
        /// How much it gets at once.
        concurrency: u32,
        /// The attempts of it that still count.
        keep: Vec<Attempt>,
    },
    /// A checkpoint was taken in.
    Checkpoint {
        /// Of which task.
        task: TaskNumber,
        /// Store it under this number; none: the tenant's quota of checkpoint bytes is used up, and only its yielding counted.
        number: Option<u32>,
    },
    /// The attempt's task: for a result or an error that is stored in the same batch.
    Attempt {
        /// Which task.
        task: TaskNumber,
        /// How the task stands now.
        state: State,
    },
    /// The attempt no longer counts (cancelled, timed out) and its result is not taken; that it is over was noted.
    TooLate {
        /// Which task.
        task: TaskNumber,
    },
}
