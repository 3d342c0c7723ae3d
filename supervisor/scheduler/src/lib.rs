//! The scheduler's core: a deterministic state machine of tasks, agents and tenants.
//!
//! Commands and the time go in; events, rows and effects come out (docs/scheduler.md). It has no clock, does no
//! I/O and holds no lock: the engine (`aion-tasks`) writes what comes out and only then acts on it. The same
//! commands give the same bytes, and [`Scheduler::restore`] gives the same state from the rows alone.

mod agents;
mod attempt;
mod booked;
mod check;
mod codec;
mod codec_rows;
mod command;
mod config;
mod dispatch;
mod effect;
mod ending;
mod entity;
mod event;
mod id;
mod inspect;
mod preempt;
mod profile;
mod promises;
mod ready;
mod refusal;
mod restore;
mod row;
mod scheduler;
mod slots;
mod store;
mod submit;
mod task;
mod timers;
mod view;
mod window;

pub use codec::DecodeError;
pub use command::{AgentMode, AgentSpec, Command, Dependency, Ended, Reply, RetryPolicy, Submit, Target};
pub use config::{Config, ConfigError, Limits, Preemption, QueueWeights, Quotas, TenantConfig};
pub use effect::Effect;
pub use event::{Event, EventKind, Rung};
pub use id::{Attempt, Class, Name, State, TaskId, TaskIdError, TaskNumber};
pub use refusal::Refusal;
pub use restore::{Restore, RestoreError};
pub use row::{Row, keys};
pub use scheduler::{Applied, Scheduler};
pub use view::{AttemptView, QueueView, TaskView, TenantView};
