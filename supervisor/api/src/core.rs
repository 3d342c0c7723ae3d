//! What all handlers share. One per daemon, behind an `Arc`.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aion_kernel::Kernel;
use aion_launcher_client::Client;
use aion_manifest::{CapabilityPolicy, Context};
use aion_resolver::Upstream;
use aion_signing::Guard;
use aion_store::Store;
use aion_telemetry::Spans;
use aion_types::ErrorCode;
use aion_webhook::Webhooks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::agents::Agents;
use crate::attach::Attached;
use crate::detections::Detections;
use crate::exec_exits::ExecExits;
use crate::figures::Figures;
use crate::journal_watch::JournalWatch;
use crate::permitted::Permitted;
use crate::policies::ReadPolicy;
use crate::problem::{Outcome, Problem};
use crate::requests::Requests;
use crate::resolvers::Resolvers;
use crate::tasks::Serving;
use crate::timers::Timers;
use crate::tool_runs::ToolRuns;
use crate::trail::Trail;

/// How the services are set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state folder as reached by this process; `.` once it is the working directory.
    pub state: PathBuf,
    /// The same, absolute: what the launcher is told of files in it.
    pub state_absolute: PathBuf,
    /// What manifests are checked against.
    pub manifests: Context,
    /// What agents may have; none: everything that a manifest asks for.
    pub policy: Option<Arc<CapabilityPolicy>>,
    /// Streams at once, over all connections.
    pub max_streams: usize,
    /// How long an agent that removes itself stays after its end, so that its output can still be read.
    pub linger: Duration,
    /// The program that runs WebAssembly tools.
    pub wasm_runner: PathBuf,
    /// Who gets spans.
    pub spans: Spans,
    /// Who is asked for the names of agents with network mode `egress`.
    pub dns: Upstream,
    /// Who is told of what detections find.
    pub webhooks: Webhooks,
    /// What must be signed.
    pub signatures: Arc<Guard>,
}

impl Options {
    /// The defaults for a state folder.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        let state = state.into();
        Self {
            state_absolute: state.clone(),
            state,
            manifests: Context::builtin(),
            policy: None,
            max_streams: 512,
            linger: Duration::from_secs(2),
            wasm_runner: "/usr/libexec/aion/aion-wasm".into(),
            spans: Spans::default(),
            dns: Upstream::File("/etc/resolv.conf".into()),
            webhooks: Webhooks::default(),
            signatures: Arc::default(),
        }
    }
}

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) store: Arc<Store>,
    pub(crate) launcher: Client,
    pub(crate) agents: Agents,
    pub(crate) requests: Arc<Requests>,
    pub(crate) trail: Trail,
    pub(crate) timers: Timers,
    pub(crate) exec_exits: ExecExits,
    pub(crate) attached: Attached,
    pub(crate) journals: JournalWatch,
    /// The newest indexed audit record.
    pub(crate) indexed: watch::Sender<u64>,
    /// Tasks, once they are served.
    pub(crate) serving: OnceLock<Serving>,
    /// The kernel API, once it is served.
    pub(crate) kernel: OnceLock<Kernel>,
    pub(crate) tool_runs: ToolRuns,
    pub(crate) resolvers: Resolvers,
    pub(crate) permitted: Permitted,
    /// Reads the operator's rules anew.
    pub(crate) read_policy: OnceLock<ReadPolicy>,
    /// Held while agents are held to their bounds: one change after the other.
    pub(crate) policy_turn: tokio::sync::Mutex<()>,
    pub(crate) detections: Detections,
    /// What agents use.
    pub(crate) figures: Figures,
    /// Held by the backup that is being made: one at a time.
    pub(crate) backup_turn: Arc<tokio::sync::Mutex<()>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) started: Instant,
    streams: Arc<Semaphore>,
}

impl Core {
    pub(crate) fn new(options: Options, store: Arc<Store>, launcher: Client) -> Outcome<Arc<Self>> {
        let indexed = watch::Sender::new(store.cursor()?);
        Ok(Arc::new(Self {
            agents: Agents::new(Arc::clone(&store)),
            requests: Arc::new(Requests::new(Arc::clone(&store))),
            trail: Trail::new(launcher.clone()),
            timers: Timers::default(),
            exec_exits: ExecExits::default(),
            attached: Attached::default(),
            journals: JournalWatch::start(),
            indexed,
            serving: OnceLock::new(),
            kernel: OnceLock::new(),
            tool_runs: ToolRuns::default(),
            resolvers: Resolvers::default(),
            permitted: Permitted::default(),
            read_policy: OnceLock::new(),
            policy_turn: tokio::sync::Mutex::default(),
            detections: Detections::default(),
            figures: Figures::default(),
            backup_turn: Arc::default(),
            shutdown: CancellationToken::new(),
            started: Instant::now(),
            streams: Arc::new(Semaphore::new(options.max_streams)),
            options,
            store,
            launcher,
        }))
    }

    /// A place for one more stream.
    pub(crate) fn stream_permit(&self) -> Outcome<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Problem::new(
                ErrorCode::ResourceExhausted,
                format!("{} streams are open, that is the limit", self.options.max_streams),
            )
            .hint("close some `logs -f`, `events -f`, `stats`, `exec` or `attach`")
        })
    }

    /// How a stream or a wait ends when the daemon goes: without ErrorInfo, so that clients connect again.
    pub(crate) fn going_down() -> Status {
        Status::unavailable("aiond is shutting down")
    }
}
