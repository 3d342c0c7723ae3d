//! What the kernel asks of whoever looks after agents' lives: `aion-api`.

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use aion_manifest::{Class, Network, Quota};
use aion_syscall::{Limits, Refusal};
use aion_types::{AgentName, TenantId};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future that can be stored.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// Its id: another registration has another.
    pub id: String,
    /// Its manifest, normalised.
    pub manifest: String,
}

/// An agent, as others of its tenant see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSeen {
    /// Its name.
    pub name: String,
    /// How it is, as `running`.
    pub state: String,
}

/// What runs for a tool, and in what.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Whose.
    pub tenant: TenantId,
    /// The command; a program of the tool's own is below `/workspace`.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// The tool's own files, shown read-only as its working directory.
    pub folder: Option<PathBuf>,
    /// A program of AION's that it sees where the host has it.
    pub runner: Option<PathBuf>,
    /// What it may use.
    pub class: Class,
    /// Its seccomp profile.
    pub seccomp_profile: String,
    /// The network that it sees.
    pub network: Network,
}

/// One run of a tool.
#[derive(Debug, Clone)]
pub struct ToolRun {
    /// What runs.
    pub sandbox: Sandbox,
    /// The call, for its name in records.
    pub audit_id: String,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// It is killed after that.
    pub timeout: Duration,
    /// Bytes of standard output that are read.
    pub max_output: usize,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolEnd {
    /// The exit code, or 128 + signal.
    pub code: u8,
    /// `exited`, `signaled`, `oom`, `timeout`, `killed` or `lost`.
    pub reason: String,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// There was more of it.
    pub cut: bool,
    /// The end of standard error.
    pub stderr: Vec<u8>,
}

/// A server that runs for a tool.
pub struct ToolServer {
    /// What it writes to standard output.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard input.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Dropping it ends the server.
    pub running: Box<dyn Running>,
}

/// A server that runs until this is dropped.
pub trait Running: Send + Sync {
    /// The end of what it wrote to standard error since then, nanoseconds since 1970; for people.
    fn said(&self, since_ns: u64) -> BoxFuture<'_, String>;
}

/// What accounts may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccountLimits {
    /// The agent, in an hour.
    pub agent: Limits,
    /// The tenant, in an hour.
    pub tenant: Limits,
}

/// What a task may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskLimits {
    /// For good.
    pub all: Limits,
    /// Millionths of a US dollar in an hour.
    pub usd_micros_per_hour: Option<u64>,
    /// Tokens in a minute.
    pub token_rate: Option<u64>,
}

/// Whose a task is that a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskFound {
    /// The agent's, or the tenant's whole when it is asked for.
    Own(TaskLimits),
    /// Another agent's of the tenant.
    Foreign,
    /// No task of the tenant.
    Unknown,
}

/// An agent that is to be registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AgentName,
    /// Its manifest, as it came.
    pub manifest: String,
    /// What it does not exceed besides.
    pub quota: Quota,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The agent's id.
    pub id: String,
    /// False: it was there, with the same manifest.
    pub created: bool,
}

/// What a file of an agent is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUse {
    /// Reading.
    Read,
    /// Writing; it is made when it is missing.
    Write,
    /// Writing at its end; it is made when it is missing.
    Append,
    /// Writing; it must be missing.
    New,
    /// Writing to a new file beside it, of this name (a ULID), which goes into its place later.
    Part(String),
}

/// What is asked about a file of an agent, at the path that the agent sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAsk {
    /// Opens a regular file.
    Open {
        /// What for.
        what_for: FileUse,
    },
    /// Puts a part into its place, or removes it.
    Put {
        /// The part's name.
        part: String,
        /// Not to remove it.
        keep: bool,
    },
    /// Looks at it.
    Stat,
    /// A page of a folder.
    List {
        /// Where the page before ended; 0 for the first.
        after: u64,
        /// Entries, at most 1000.
        limit: u32,
    },
}

/// A file, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name; in a page.
    pub name: Vec<u8>,
    /// `file`, `folder`, `link` or `other`.
    pub kind: String,
    /// Its size.
    pub size: u64,
    /// When it was changed, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Its permission bits.
    pub mode: u32,
    /// Where a link leads to.
    pub target: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub enum FileAnswer {
    /// It is open.
    Opened(FileInfo, File),
    /// It was put into its place, or removed.
    Done,
    /// How it is.
    Info(FileInfo),
    /// What is in it; with a place to go on from when there is more.
    Page(Vec<FileInfo>, Option<u64>),
}

/// A record for the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Whose.
    pub tenant: String,
    /// The agent's id; may be empty.
    pub agent: String,
    /// The task; may be empty.
    pub task: String,
    /// The trace; may be empty.
    pub trace: String,
    /// As `api.syscall`.
    pub kind: &'static str,
    /// `allowed`, `denied` or `error`.
    pub verdict: &'static str,
    /// The rule that decided.
    pub rule: String,
    /// Everything else: a JSON object.
    pub detail_json: String,
}

/// The supervisor, as the kernel sees it.
pub trait Host: Send + Sync + 'static {
    /// A registered agent.
    ///
    /// # Errors
    /// When it cannot be looked up.
    fn agent(&self, tenant: &TenantId, name: &AgentName) -> Result<Option<AgentInfo>, Refusal>;

    /// The id alone; also of what has no manifest of its own. Each call asks for it.
    ///
    /// # Errors
    /// As [`Host::agent`].
    fn agent_id(&self, tenant: &TenantId, name: &AgentName) -> Result<Option<String>, Refusal> {
        Ok(self.agent(tenant, name)?.map(|found| found.id))
    }
    /// A page of a tenant's registered agents, and where the next one begins, if there are more. `after` is empty for the first.
    ///
    /// # Errors
    /// When they cannot be looked up.
    fn agents(
        &self,
        tenant: &TenantId,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<AgentSeen>, Option<String>), Refusal>;
    /// What an agent and its tenant may spend.
    fn limits(&self, tenant: &TenantId, agent: &AgentName) -> AccountLimits;
    /// Whose a task is, and what it may spend.
    fn task<'a>(
        &'a self,
        tenant: &'a TenantId,
        agent: &'a AgentName,
        task: &'a str,
    ) -> BoxFuture<'a, Result<TaskFound, Refusal>>;
    /// Runs a tool in a sandbox of its own, once. Dropping the future does not end the run; its timeout does.
    fn run(&self, run: ToolRun) -> BoxFuture<'_, Result<ToolEnd, Refusal>>;
    /// Starts a server for a tool in a sandbox of its own.
    fn serve(&self, sandbox: Sandbox) -> BoxFuture<'_, Result<ToolServer, Refusal>>;
    /// Uses a file of a running agent with the agent's own rights. `id` is the agent's.
    fn file(&self, id: &str, path: &str, ask: FileAsk) -> BoxFuture<'_, Result<FileAnswer, Refusal>>;
    /// Appends to the audit log; comes back when it is there, or waits in line for it.
    fn audit(&self, entry: AuditEntry) -> BoxFuture<'_, ()>;
    /// Registers an agent that runs elsewhere, or starts nothing yet. One that is there with another manifest is `NAME_TAKEN`.
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refusal>>;
    /// A sign of life.
    fn heartbeat(&self, tenant: &TenantId, name: &AgentName) -> Result<(), Refusal>;
    /// Submits a task: the contract's {task_id, intent, priority, quota, params}, for an agent.
    fn submit(&self, tenant: TenantId, task: Value) -> BoxFuture<'_, Result<Value, Refusal>>;
}
