//! The command line, as clap sees it. Completion, man pages and docs/cli.md are made from these types, so every
//! word a user reads about the commands stands here. Neighbours: `commands` does what is asked here.

mod agents;
mod backup;
mod detections;
mod host;
mod kernel;
mod observe;
mod run;
mod signing;
mod support;
mod tasks;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use agents::{ApplyArgs, Kill, Names, PsArgs, Rm, Stop, ValidateArgs, WaitArgs};
pub(crate) use backup::{BackupArchive, BackupCommand, BackupCreate, BackupRestore, BackupVerify, Keys};
pub(crate) use detections::{ClearArgs, DetectionsCommand, HistoryArgs, TestArgs};
pub(crate) use host::{
    AuditCommand, CompletionArgs, ManArgs, QueryArgs, RecordFilter, TailArgs, VerifyArgs, VersionArgs,
};
pub(crate) use kernel::{
    AnswerArgs, ExplainArgs, LearnArgs, ModelAdd, ModelCommand, PolicyCommand, ProfileApplyArgs,
    ProfileCommand, ReviewArgs, SecretAdd, SecretCommand, TenantCommand, TenantSettings, ToolCommand,
    ToolInvoke,
};
pub(crate) use observe::{EventsArgs, ExecArgs, InspectArgs, LogsArgs, OutputStream, StatsArgs, TopArgs};
pub(crate) use run::{NetworkMode, RunArgs};
pub(crate) use signing::{SignArgs, TrustArgs};
pub(crate) use support::SupportBundle;
pub(crate) use tasks::{
    CancelArgs, CheckpointArgs, JournalCommand, QueueArgs, QueueCommand, SubmitArgs, TaskCommand, TaskPsArgs,
    TaskWatchArgs,
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  an error, named on stderr
  2  the command line or a manifest is not valid
  3  the agent does not run, or the task has ended
  4  no such agent or task
  5  denied
  6  aiond cannot be reached
With several agents or tasks the highest of theirs. `task submit --wait` ends with 1 when the task
did not succeed. `run` has its own: 125 an error of AION's, 126 the
command cannot be executed, 127 it was not found, else what the agent ended with (128 + n for
signal n). `exec` ends with the program's code, 126 and 127 as `run`, else as above. A signal ends
`exec` (with -t those of the keys reach the program instead); the program inside then has lost its
terminal or its pipes.";

/// Run and watch agents that cannot be trusted.
#[derive(Debug, Parser)]
#[command(name = "aionctl", version, styles = STYLES, max_term_width = 100, after_help = EXIT_STATUS, args_override_self = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// aiond's socket
    #[arg(
        long,
        global = true,
        env = "AION_SOCKET",
        value_name = "PATH",
        default_value = "/run/aion/aion.sock",
        hide_env_values = true
    )]
    pub(crate) socket: PathBuf,
    /// The tenant to work in; `default` is that of local operators
    #[arg(long, global = true, env = "AION_TENANT", value_name = "TENANT", hide_env_values = true)]
    pub(crate) tenant: Option<String>,
    /// How to print what the command gives
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
    /// Names alone, one a line
    Name,
    /// One JSON object a line
    Jsonl,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program as a new agent and stay with it until it ends
    Run(Box<RunArgs>),
    /// List agents
    Ps(PsArgs),
    /// Show all there is to know of agents
    Inspect(InspectArgs),
    /// Print an agent's output
    Logs(LogsArgs),
    /// Watch what agents use
    Top(TopArgs),
    /// Run one more program inside an agent
    Exec(ExecArgs),
    /// Print what the probes and the daemons saw
    Events(EventsArgs),
    /// Print what agents use
    Stats(StatsArgs),
    /// End agents: SIGTERM, then after a while all of the agent is killed
    Stop(Stop),
    /// Send agents a signal; SIGKILL ends all of the agent
    Kill(Kill),
    /// Freeze agents
    Pause(Names),
    /// Thaw agents
    Resume(Names),
    /// Wait for agents to end and print their exit codes
    Wait(WaitArgs),
    /// Forget agents that have ended; with -a all of those, and none that never ran
    Rm(Rm),
    /// Start registered agents
    Start(Names),
    /// Register the agents of manifests and start them, anew where they changed
    Apply(ApplyArgs),
    /// Check manifests without the daemon
    Validate(ValidateArgs),
    /// Submit tasks and look at them
    #[command(subcommand)]
    Task(TaskCommand),
    /// Show the queues: depth, rates, waits, shares
    Queue(QueueArgs),
    /// Look after detections: what is looked for in agents' events, and what was found
    #[command(subcommand)]
    Detections(DetectionsCommand),
    /// Look after tenants: who may sign requests of the kernel API
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Install tools that agents invoke, and try them
    #[command(subcommand)]
    Tool(ToolCommand),
    /// Look after the models that agents may ask
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look after secrets that the kernel uses for agents, which never see them
    #[command(subcommand)]
    Secret(SecretCommand),
    /// List the system calls that wait for a person
    Approvals,
    /// Let system calls that wait be made
    Approve(AnswerArgs),
    /// Refuse system calls that wait
    Deny(AnswerArgs),
    /// Look after the rules that bound what agents have
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Learn the least that an agent needs
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Show why a call was denied, or how it was decided: the layer, the rule, and what would allow it
    Explain(ExplainArgs),
    /// Show what agents and tenants have used
    Usage,
    /// Sign manifests, tools and policies
    Sign(SignArgs),
    /// Check the signatures of manifests, tools and policies
    Verify(TrustArgs),
    /// Look after the journal of the tasks
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Write the state to a file while everything runs, check such a file, make a state from it
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Say what this host's kernel gives each layer of isolation
    Doctor,
    /// Collect what somebody who helps needs into one file, without secrets
    SupportBundle(SupportBundle),
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the versions of the client and the daemons
    Version(VersionArgs),
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Write the man pages into a folder
    Man(ManArgs),
}
