//! The record of one agent, as stored. Who may move it from state to state is not decided here.

use std::collections::BTreeMap;

use aion_types::{AgentId, AgentName, Exit, TenantId};
use serde::{Deserialize, Serialize};

/// Where an agent is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// Registered, never started.
    Created,
    /// A launch is under way or due.
    Starting,
    /// It runs.
    Running,
    /// Frozen.
    Paused,
    /// Asked to stop, not gone yet.
    Stopping,
    /// Its first process ended.
    Exited,
    /// It could not be launched.
    Failed,
}

impl AgentState {
    /// All of them, in order of life.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Exited,
        Self::Failed,
    ];

    /// The word that the API shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
            Self::Failed => "failed",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether a process of it exists, or is about to.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }
}

/// When an agent that ended is launched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartMode {
    /// Not at all.
    #[default]
    Never,
    /// When it ended with a code other than 0, or by a signal.
    OnFailure,
    /// Always, unless it was stopped.
    Always,
}

impl RestartMode {
    /// The word that the API shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        }
    }
}

/// The restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestartRule {
    /// When.
    pub mode: RestartMode,
    /// How often at most; 0: without limit.
    pub max_restarts: u32,
    /// The first delay; each restart doubles it.
    pub backoff_ms: u64,
    /// The longest delay.
    pub max_backoff_ms: u64,
}

/// One layer as the launcher reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRow {
    /// Its name.
    pub name: String,
    /// active, degraded, unavailable or off.
    pub state: String,
    /// For people.
    pub detail: String,
}

/// What was taken from an agent while it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestraintRow {
    /// frozen, throttled or isolated.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// Wall clock.
    pub since_ns: u64,
    /// Of throttled: what is left.
    pub cpu_millis: u32,
}

/// How the last incarnation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Code, signal and reason.
    pub exit: Exit,
    /// Wall clock.
    pub time_ns: u64,
    /// Which incarnation.
    pub incarnation: u32,
}

/// One agent. Fields that a later version adds must have a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Identity.
    pub id: AgentId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Unique within the tenant.
    pub name: AgentName,
    /// `metadata.version` of the manifest.
    pub version: String,
    /// Where it is in its life.
    pub state: AgentState,
    /// The incarnation that runs, is due, or ran last; counts from 0.
    pub incarnation: u32,
    /// Restarts since the last explicit start.
    pub restarts: u32,
    /// Of these, how many followed each other without a long run in between.
    pub restarts_in_row: u32,
    /// Policy for restarts.
    pub restart: RestartRule,
    /// When the next launch is due, while `state` is starting; 0: now.
    pub restart_at_ns: u64,
    /// Somebody asked it to stop: no restart follows.
    pub stop_requested: bool,
    /// It was handed to the launcher at least once, so that the launcher may hold files of it.
    pub launched: bool,
    /// Of the first process, in the host's pid namespace; 0 when it does not run.
    pub pid: u32,
    /// Below the cgroup root.
    pub cgroup: String,
    /// Layers as set up.
    pub layers: Vec<LayerRow>,
    /// The last exit.
    pub exit: Option<ExitRecord>,
    /// Kernel events of it that could not be recorded.
    pub dropped_events: u64,
    /// Wall clocks, ns since 1970; 0 when it did not happen yet.
    pub created_ns: u64,
    /// Of the current or last incarnation.
    pub started_ns: u64,
    /// Of the last incarnation that ended.
    pub finished_ns: u64,
    /// The launcher's own part of the last start.
    pub launch_ns: u64,
    /// argv, as text for people.
    pub command: Vec<String>,
    /// Why it failed, when it did.
    pub message: String,
    /// The code of that failure, empty when there is none.
    pub failure_code: String,
    /// Last heartbeat and what it said.
    pub heartbeat_ns: u64,
    /// Its status.
    pub status: BTreeMap<String, String>,
    /// Host folder or `managed`.
    pub workspace: String,
    /// Audit mode, for people.
    pub audit: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Runs on a pty.
    pub tty: bool,
    /// Removed once it has ended and been read.
    pub auto_remove: bool,
    /// What was taken from it.
    #[serde(default)]
    pub restraints: Vec<RestraintRow>,
    /// Fingerprint of the key that signed its manifest; empty when nobody did.
    #[serde(default)]
    pub signed_by: String,
}

impl AgentRecord {
    /// An agent that was never started, about which nothing else is known.
    #[must_use]
    pub fn new(id: AgentId, tenant: TenantId, name: AgentName) -> Self {
        Self {
            id,
            tenant,
            name,
            version: String::new(),
            state: AgentState::Created,
            incarnation: 0,
            restarts: 0,
            restarts_in_row: 0,
            restart: RestartRule::default(),
            restart_at_ns: 0,
            stop_requested: false,
            launched: false,
            pid: 0,
            cgroup: String::new(),
            layers: Vec::new(),
            exit: None,
            dropped_events: 0,
            created_ns: 0,
            started_ns: 0,
            finished_ns: 0,
            launch_ns: 0,
            command: Vec::new(),
            message: String::new(),
            failure_code: String::new(),
            heartbeat_ns: 0,
            status: BTreeMap::new(),
            workspace: String::new(),
            audit: String::new(),
            labels: BTreeMap::new(),
            tty: false,
            auto_remove: false,
            restraints: Vec::new(),
            signed_by: String::new(),
        }
    }
}
