//! The handle on everything: made once by the daemon, cheap to clone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use aion_manifest::SchedulerFile;
use aion_scheduler::{AgentMode, AgentSpec, Command, Config, Target};
use aion_task_journal::{Journal, Options as JournalOptions, Retention, Writer, WriterOptions};
use aion_telemetry::Spans;
use aion_types::{AgentName, TenantId};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::clock::now_ms;
use crate::config::{self, Settings};
use crate::effects::Effects;
use crate::engine::{Engine, EngineOutlets, Parts};
use crate::error::Error;
use crate::host::{Host, JobEnd, Place};
use crate::inbox::Inbox;
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::work::Work;

/// Groups of events that a slow watcher may be behind before it reads the journal.
const HEARD: usize = 256;
/// Bytes of the journal's log that are kept for an archive.
const KEEP_LOG: u64 = 64 << 20;
/// How often ended tasks are looked through.
const TIDY: Duration = Duration::from_secs(30);
/// How long reads that are under way may take when everything ends.
const LAST_READS: Duration = Duration::from_secs(3);
/// Ended tasks that go in one step.
const TIDY_STEP: usize = 1000;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// The journal's folder. An import is made beside it, so the folder above must be aiond's, too.
    pub journal: PathBuf,
    /// For checkpoints that jobs are given; on a disk, not in memory.
    pub tmp: PathBuf,
    /// How the journal is opened.
    pub journal_options: JournalOptions,
    /// Who gets spans.
    pub spans: Spans,
}

impl Options {
    /// The defaults for a state folder.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        let state = state.into();
        Self {
            journal: state.join("journal/db"),
            tmp: state.join("tmp"),
            journal_options: JournalOptions { keep_log_bytes: KEEP_LOG, ..JournalOptions::default() },
            spans: Spans::default(),
        }
    }
}

/// A registered agent that serves tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AgentName,
    /// It runs each task in a process of its own.
    pub job: bool,
    /// How many at once.
    pub concurrency: u32,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// What one process of it may use.
    pub memory_bytes: u64,
    /// It may be frozen in place.
    pub may_freeze: bool,
    /// Between two checkpoints of a running task; none: as the settings say.
    pub checkpoint_interval_ms: Option<u64>,
    /// How long it has for one when it must make room.
    pub grace_ms: u64,
    /// The largest that is taken from it; the settings may allow less.
    pub checkpoint_max: u64,
}

/// Agents that serve tasks, as they were told last.
#[derive(Default)]
pub(crate) struct Roster {
    known: Mutex<BTreeMap<(TenantId, AgentName), Known>>,
    settings: Mutex<Option<Settings>>,
}

impl Roster {
    /// The largest checkpoint of an agent; none: it is not known any more.
    pub(crate) fn checkpoint_max(&self, tenant: &TenantId, agent: &AgentName) -> Option<u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(tenant.clone(), agent.clone())).map(|one| one.checkpoint_max)
    }

    fn command(&self, known: &Known) -> Command {
        let every =
            self.settings.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |s| s.checkpoint_every_ms);
        // A job is not asked: it has its interval in its environment.
        let interval = if known.job { 0 } else { known.checkpoint_interval_ms.unwrap_or(every) };
        Command::AgentKnown {
            tenant: known.tenant.clone(),
            name: known.name.clone(),
            spec: AgentSpec {
                mode: if known.job { AgentMode::Job } else { AgentMode::Service },
                concurrency: known.concurrency,
                labels: known.labels.clone(),
                memory_bytes: known.memory_bytes,
                may_freeze: known.may_freeze,
                checkpoint_interval_ms: interval,
                grace_ms: known.grace_ms,
                ..AgentSpec::default()
            },
        }
    }

    /// What the core is told of those that a task asks for.
    pub(crate) fn agents_for(&self, tenant: &TenantId, target: &Target) -> Vec<Command> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match target {
            Target::Agent(name) => {
                known.get(&(tenant.clone(), name.clone())).map(|one| self.command(one)).into_iter().collect()
            }
            Target::Selector(labels) => known
                .values()
                .filter(|one| one.tenant == *tenant)
                .filter(|one| labels.iter().all(|(key, value)| one.labels.get(key) == Some(value)))
                .map(|one| self.command(one))
                .collect(),
        }
    }

    /// Tells the core of all of them.
    pub(crate) fn tell(&self, inbox: &Inbox) {
        for known in self.known.lock().unwrap_or_else(PoisonError::into_inner).values() {
            inbox.system(Work::Command(self.command(known)));
        }
    }
}

/// Reads `scheduler.yaml`, wherever the daemon has it.
pub(crate) type Reload = Box<dyn Fn() -> Result<SchedulerFile, Error> + Send + Sync>;

pub(crate) struct Inner {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) outlets: Arc<EngineOutlets>,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) settings: watch::Sender<Settings>,
    pub(crate) config: watch::Sender<Config>,
    pub(crate) end: CancellationToken,
    runtime: Handle,
    reload: Reload,
    hash_seed: u64,
    /// Held by an import.
    pub(crate) importing: tokio::sync::Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The tasks of this node.
#[derive(Clone)]
pub struct Tasks {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

impl Tasks {
    /// Opens the journal, restores the core, and starts the engine. Blocks; must be called within a runtime. `agents` are all that
    /// serve tasks; `reload` reads the settings.
    ///
    /// # Errors
    /// The journal cannot be opened, or the settings are not valid.
    pub fn start(
        options: Options,
        host: Arc<dyn Host>,
        agents: Vec<Known>,
        reload: impl Fn() -> Result<SchedulerFile, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let file = reload()?;
        let settings = Settings::of(&file);
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| {
            Error::new(aion_types::ErrorCode::Internal, format!("no randomness: {error}"))
        })?;
        let hash_seed = u64::from_le_bytes(seed);
        std::fs::create_dir_all(&options.tmp)
            .map_err(|error| Error::internal("cannot make the folder tmp", &error))?;
        let journal_options =
            JournalOptions { max_checkpoint_bytes: settings.checkpoint_max, ..options.journal_options };
        if let Some(above) = options.journal.parent() {
            std::fs::create_dir_all(above)
                .map_err(|error| Error::internal("cannot make the journal's folder", &error))?;
        }
        crate::admin::adopt_import(&options.journal)
            .map_err(|error| Error::internal("cannot adopt an imported journal", &error))?;
        let journal = Arc::new(Journal::open(&options.journal, journal_options)?);
        let writer = Writer::start(Arc::clone(&journal), WriterOptions::default())?;
        let (inbox, sessions, metrics) =
            (Arc::<Inbox>::default(), Arc::<Sessions>::default(), Arc::<Metrics>::default());
        let (deeds, to_do) = mpsc::channel();
        let audit = Arc::<Audit>::default();
        let outlets = Arc::new(EngineOutlets {
            metrics: Arc::clone(&metrics),
            audit: Arc::clone(&audit),
            events: broadcast::Sender::new(HEARD),
            newest: watch::Sender::new(journal.last_event()),
            deeds,
        });
        let jobs =
            Arc::new(Jobs::new(Arc::clone(&journal), Arc::clone(&inbox), Arc::clone(&host), options.tmp));
        let roster = Arc::new(Roster::default());
        *roster.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        let by_name = agents.into_iter().map(|known| ((known.tenant.clone(), known.name.clone()), known));
        *roster.known.lock().unwrap_or_else(PoisonError::into_inner) = by_name.collect();
        let runtime = Handle::current();
        let config = config::core(&file, hash_seed);
        let engine = Engine::begin(Parts {
            config: config.clone(),
            settings,
            journal: Arc::clone(&journal),
            writer,
            inbox: Arc::clone(&inbox),
            sessions: Arc::clone(&sessions),
            metrics: Arc::clone(&metrics),
            outlets: Arc::clone(&outlets),
            roster: Arc::clone(&roster),
        })?;
        // Before anybody can attach.
        roster.tell(&inbox);
        let effects = Effects {
            journal: Arc::clone(&journal),
            inbox: Arc::clone(&inbox),
            sessions: Arc::clone(&sessions),
            host: Arc::clone(&host),
            jobs: Arc::clone(&jobs),
            runtime: runtime.clone(),
            spans: options.spans,
            last: Mutex::default(),
        };
        let started = |error: std::io::Error| Error::internal("cannot start a thread", &error);
        std::thread::Builder::new()
            .name("effects".to_owned())
            .spawn(move || effects.run(&to_do))
            .map_err(started)?;
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || engine.run())
            .map_err(started)?;
        let tasks = Self {
            inner: Arc::new(Inner {
                inbox,
                journal,
                sessions,
                metrics,
                outlets,
                jobs,
                host: Arc::clone(&host),
                roster,
                settings: watch::Sender::new(settings),
                config: watch::Sender::new(config),
                end: CancellationToken::new(),
                runtime: runtime.clone(),
                reload: Box::new(reload),
                hash_seed,
                importing: tokio::sync::Mutex::default(),
                thread: Mutex::new(Some(thread)),
            }),
        };
        let end = tasks.inner.end.clone();
        runtime.spawn(async move { end.run_until_cancelled(audit.tell(host)).await });
        let tidier = tasks.clone();
        runtime.spawn(async move {
            let end = tidier.inner.end.clone();
            end.run_until_cancelled(tidier.tidy()).await
        });
        Ok(tasks)
    }

    /// Drops what is no longer kept, again and again.
    async fn tidy(self) {
        loop {
            tokio::time::sleep(TIDY).await;
            if let Err(error) = self.prune().await {
                tracing::warn!(%error, "old tasks stay for now");
            }
        }
    }

    pub(crate) async fn prune(&self) -> Result<u64, Error> {
        let mut tasks = 0;
        loop {
            let settings = *self.inner.settings.borrow();
            let journal = Arc::clone(&self.inner.journal);
            let pruned = crate::read::blocking(move || {
                let retention = Retention {
                    now_ms: now_ms(),
                    max_age_ms: settings.keep_ended_ms,
                    max_tasks: settings.max_ended,
                };
                Ok(journal.prune(&retention, TIDY_STEP)?)
            })
            .await?;
            tasks += pruned.tasks;
            if !pruned.more {
                return Ok(tasks);
            }
        }
    }

    /// An agent was registered or changed.
    pub fn agent_known(&self, known: Known) {
        let command = self.inner.roster.command(&known);
        let key = (known.tenant.clone(), known.name.clone());
        self.inner.roster.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known);
        self.inner.inbox.system(Work::Command(command));
    }

    /// An agent was removed, or serves no tasks any more.
    pub fn agent_gone(&self, tenant: &TenantId, name: &AgentName) {
        let key = (tenant.clone(), name.clone());
        if self.inner.roster.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&key).is_none() {
            return;
        }
        let (tenant, name) = key;
        self.inner.inbox.system(Work::Command(Command::AgentGone { tenant, name }));
    }

    /// A service agent's process has ended, whatever becomes of it next.
    pub fn service_ended(&self, tenant: &TenantId, name: &AgentName) {
        if let Some(session) = self.inner.sessions.get(tenant.as_str(), name.as_str()) {
            self.inner.sessions.close(&session);
            session.end.cancel();
        }
        let (tenant, name) = (tenant.clone(), name.clone());
        self.inner.inbox.system(Work::Command(Command::Detached { tenant, name, process_gone: true }));
    }

    /// The process of an attempt has ended.
    pub fn job_ended(&self, place: &Place, end: JobEnd) {
        if let Some(attempt) = place.attempt {
            self.inner.runtime.spawn(Arc::clone(&self.inner.jobs).ended(attempt, end));
        }
    }

    /// Reads the settings again. Those that are not valid change nothing.
    ///
    /// # Errors
    /// Every problem of the file.
    pub async fn reload(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let file = crate::read::blocking(move || (inner.reload)()).await?;
        let settings = Settings::of(&file);
        let config = config::core(&file, self.inner.hash_seed);
        let (answer, answered) = oneshot::channel();
        self.inner.inbox.system(Work::Configure { config: Box::new(config.clone()), settings, answer });
        answered.await.map_err(|_| Error::away())??;
        self.inner.settings.send_replace(settings);
        self.inner.config.send_replace(config);
        *self.inner.roster.settings.lock().unwrap_or_else(PoisonError::into_inner) = Some(settings);
        self.inner.roster.tell(&self.inner.inbox);
        tracing::info!("scheduler.yaml was read again");
        Ok(())
    }

    /// A client was told of this.
    pub fn refused(&self, error: &Error) {
        self.inner.metrics.refused(error.code);
    }

    /// Comes back when the engine has taken its turn: it is alive. Also when it will take none, because everything ends or the disk is
    /// full; what never comes back is an engine that hangs.
    pub async fn heartbeat(&self) {
        let (beat, has_beaten) = oneshot::channel();
        self.inner.inbox.system(Work::Look(Box::new(move |_core| {
            Box::new(move || {
                let _ = beat.send(());
            })
        })));
        let _ = has_beaten.await;
    }

    /// Counters and gauges, as Prometheus reads them.
    pub async fn metrics(&self) -> String {
        let inner = &self.inner;
        let (seen, is_seen) = oneshot::channel();
        let metrics = Arc::clone(&inner.metrics);
        inner.inbox.system(Work::Look(Box::new(move |core| {
            metrics.looked(core);
            Box::new(move || {
                // Whoever asked may be gone.
                let _ = seen.send(());
            })
        })));
        // Without an answer, because everything ends or the disk is full, they are as they were last.
        let _ = is_seen.await;
        let mut text = inner.metrics.text(inner.inbox.waiting(), inner.sessions.count(), inner.jobs.count());
        if let Ok(stats) = inner.journal.stats() {
            use std::fmt::Write as _;
            for (name, kind, help, value) in [
                ("aion_kernel_journal_bytes", "gauge", "Bytes of the journal on disk", stats.disk_bytes),
                ("aion_kernel_journal_ended_tasks", "gauge", "Ended tasks that are kept", stats.ended),
                ("aion_kernel_journal_commits_total", "counter", "Synced writes", stats.commits),
                ("aion_kernel_journal_records_total", "counter", "Records in them", stats.records),
                ("aion_kernel_journal_failures_total", "counter", "Writes that failed", stats.failures),
            ] {
                let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name} {value}");
            }
        }
        text
    }

    /// Streams and waits end, what was handed in is written, and the engine stops. Agents run on.
    pub async fn shut_down(&self) {
        self.inner.end.cancel();
        self.inner.sessions.end_all();
        self.inner.inbox.close();
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the engine did not run to its end");
            }
        }
        // Streams and reads may hold the handle for a while: what is in the folder from here on is not theirs.
        let journal = Arc::clone(&self.inner.journal);
        let closed = tokio::task::spawn_blocking(move || journal.close());
        if tokio::time::timeout(LAST_READS, closed).await.is_err() {
            tracing::warn!("somebody still reads the journal of the tasks");
        }
    }
}
