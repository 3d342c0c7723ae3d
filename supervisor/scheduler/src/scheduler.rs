//! The state machine's outside.

use crate::codec::DecodeError;
use crate::{
    AttemptView, Command, Config, ConfigError, Effect, Event, QueueView, Refusal, Reply, Row, TaskNumber,
    TaskView, TenantView,
};

/// What came of commands that were accepted. Events and rows are to be on disk before the effects run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What the last command answers.
    pub reply: Reply,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What changed.
    pub rows: Vec<Row>,
    /// What is to be done.
    pub effects: Vec<Effect>,
}

/// The state of everything.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
}

impl Scheduler {
    /// An empty one.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config })
    }

    /// The state that rows describe, in any order; rows of ended tasks are skipped. `Boot` must follow when the daemon has started anew.
    ///
    /// # Errors
    /// A row does not read.
    pub fn restore<'a>(
        config: Config,
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, DecodeError> {
        let _ = rows.into_iter();
        Ok(Self { config })
    }

    /// Applies one command and gives what came of it, rows included.
    ///
    /// # Errors
    /// The command was refused, and nothing changed.
    pub fn apply(&mut self, now: u64, command: Command) -> Result<Applied, Refusal> {
        let mut applied = Applied::default();
        applied.reply = self.apply_into(now, command, &mut applied)?;
        self.flush(&mut applied);
        Ok(applied)
    }

    /// Like [`Scheduler::apply`], but adds events and effects to `out` and leaves the rows for [`Scheduler::flush`]: for a group of
    /// commands that is written as one batch, a row that changes many times is written once.
    ///
    /// # Errors
    /// The command was refused, and nothing changed.
    pub fn apply_into(&mut self, _now: u64, _command: Command, _out: &mut Applied) -> Result<Reply, Refusal> {
        Ok(Reply::Done)
    }

    /// Adds the rows of everything that changed since the last flush.
    pub fn flush(&mut self, _out: &mut Applied) {}

    /// The current epoch; 0 before the first `Boot`.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        0
    }

    /// When [`Command::Tick`] is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<u64> {
        None
    }

    /// The settings in use.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A task in memory; none: unknown or ended.
    #[must_use]
    pub fn task(&self, _tenant: &str, _id: &str) -> Option<TaskView> {
        None
    }

    /// A task in memory by its number.
    #[must_use]
    pub fn task_by_number(&self, _number: TaskNumber) -> Option<TaskView> {
        None
    }

    /// Tasks in memory from a number on, in order of submission.
    pub fn tasks_from(&self, _number: TaskNumber) -> impl Iterator<Item = TaskView> + '_ {
        std::iter::empty()
    }

    /// Every attempt that holds an agent.
    #[must_use]
    pub fn attempts(&self) -> Vec<AttemptView> {
        Vec::new()
    }

    /// The queues of one tenant, or of the node.
    #[must_use]
    pub fn queues(&self, _tenant: Option<&str>) -> Vec<QueueView> {
        Vec::new()
    }

    /// Every tenant.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantView> {
        Vec::new()
    }
}
