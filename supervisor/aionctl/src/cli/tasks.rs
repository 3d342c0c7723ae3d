//! Commands on tasks, queues and the journal of the tasks.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::run::span;
use crate::when::Deadline;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Submit a task and print its id
    Submit(Box<SubmitArgs>),
    /// List tasks
    Ps(TaskPsArgs),
    /// Show all there is to know of tasks
    Inspect(TaskNames),
    /// Print tasks' transitions as they happen, until the task has ended
    Watch(TaskWatchArgs),
    /// End tasks
    Cancel(CancelArgs),
    /// Print a task's transitions
    History(TaskName),
    /// Write a task's newest checkpoint to stdout or a file
    Checkpoint(CheckpointArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The task as a file ('-': from stdin); flags win over it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The agent's name
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    /// Any agent with this label; can be repeated
    #[arg(long = "selector", value_name = "KEY=VALUE", conflicts_with = "agent")]
    pub(crate) selector: Vec<String>,
    /// An id of its own: the same task again is submitted once
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// What is wanted
    #[arg(long, value_name = "TEXT")]
    pub(crate) intent: Option<String>,
    /// The queue: high, normal or low
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// 0 to 9 within the queue; 9 is first
    #[arg(long, value_name = "N")]
    pub(crate) priority: Option<u32>,
    /// When it must be done: from now, as 10m, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = clap::value_parser!(Deadline))]
    pub(crate) deadline: Option<Deadline>,
    /// How long one attempt may run, as 5m
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// How long it is expected to run, as 30s
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) estimate: Option<Duration>,
    /// For the agent: JSON ('-': from stdin)
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) params: Option<String>,
    /// A task that must have succeeded first; can be repeated
    #[arg(long, value_name = "TASK")]
    pub(crate) after: Vec<String>,
    /// Attempts that may fail
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// What it may cost, in US dollars
    #[arg(long, value_name = "USD")]
    pub(crate) usd_max: Option<f64>,
    /// What it may use, in tokens
    #[arg(long, value_name = "N")]
    pub(crate) tokens_max: Option<u64>,
    /// Slots of the node that it takes
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<u32>,
    /// GPUs that it takes
    #[arg(long, value_name = "N")]
    pub(crate) gpu: Option<u32>,
    /// Set a label; can be repeated
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Its effects may be repeated without harm
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// Stay until it has ended; its end and its result are told on stderr
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TaskPsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those that match: state=STATE, queue=QUEUE, agent=AGENT, label=KEY=VALUE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub(crate) filters: Vec<String>,
    /// Print ids alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value = "1000")]
    pub(crate) limit: usize,
}

/// Tasks.
#[derive(Debug, Args)]
pub(crate) struct TaskNames {
    /// Ids
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
}

/// A task.
#[derive(Debug, Args)]
pub(crate) struct TaskName {
    /// Its id
    pub(crate) task: String,
}

#[derive(Debug, Args)]
pub(crate) struct TaskWatchArgs {
    /// Its id; all tasks when there is none
    pub(crate) task: Option<String>,
    /// Begin after this transition
    #[arg(long, value_name = "SEQ")]
    pub(crate) cursor: Option<u64>,
    /// Begin with the oldest that is kept
    #[arg(long, conflicts_with = "cursor")]
    pub(crate) from_start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) names: TaskNames,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Its id
    pub(crate) task: String,
    /// Into this file
    #[arg(short = 'O', long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(subcommand)]
    pub(crate) command: Option<QueueCommand>,
    /// Print counters and gauges as Prometheus reads them
    #[arg(long)]
    pub(crate) metrics: bool,
}

#[derive(Debug, Clone, Copy, Subcommand, ValueEnum)]
pub(crate) enum QueueCommand {
    /// Read scheduler.yaml again
    Reload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalCommand {
    /// Read everything and compare it with its checksums
    Check,
    /// Write everything into a file
    Export(JournalFile),
    /// Read an export into a journal without tasks
    Import(JournalFile),
    /// Remove what is no longer kept, and give its space back
    Compact,
}

#[derive(Debug, Args)]
pub(crate) struct JournalFile {
    /// The file ('-': stdout or stdin)
    pub(crate) file: PathBuf,
}
