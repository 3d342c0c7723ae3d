//! Tasks' side of agents' lives: which agents serve tasks, their doors, and what the engine asks for.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use aion_launcher_proto::v1::Launch;
use aion_manifest::{AgentSpec, Mode, Overrides, Quota, SchedulerFile};
use aion_store::{AgentRecord, AgentState, Batch};
use aion_tasks::{
    AuditRecord, BoxFuture, Doors, Host, JobEnd, JobFound, JobLaunch, Known, LaunchError,
    Options as TaskOptions, Place, Tasks, Visitor,
};
use aion_types::{AgentId, AgentName, ErrorCode, ExitReason, TenantId};
use prost::Message as _;

use crate::core::Core;
use crate::lifecycle::{self, Command};
use crate::problem::{Outcome, Problem};
use crate::requests::Claim;

/// The attempt's token, on the agent that is its process.
pub(crate) const ATTEMPT: &str = "aion.attempt";
/// The task, on the same.
pub(crate) const TASK: &str = "aion.task";
/// The registered agent that it is made from.
pub(crate) const AGENT: &str = "aion.agent";
const SIGTERM: i32 = 15;

/// The engine, and the doors of those who speak with it.
pub(crate) struct Serving {
    pub(crate) tasks: Tasks,
    pub(crate) doors: Doors,
}

impl Core {
    /// Starts the engine. Blocks; on the runtime that serves.
    pub(crate) fn start_tasks(
        self: &Arc<Self>,
        options: TaskOptions,
        reload: impl Fn() -> Result<SchedulerFile, aion_tasks::Error> + Send + Sync + 'static,
    ) -> Result<(), String> {
        let (mut known, mut doors) = (Vec::new(), Vec::new());
        let mut records = Vec::new();
        self.store.each_agent(|record| records.push(record)).map_err(|error| error.to_string())?;
        for record in &records {
            if record.state.is_live() && self.launches_with_door(record) {
                doors.push(record);
            }
            let Some(spec) = self.spec_of(record) else { continue };
            known.extend(serves(record, &spec));
        }
        let host: Arc<dyn Host> = Arc::new(Lives(Arc::clone(self)));
        let tasks = Tasks::start(options, host, known, reload).map_err(|error| error.to_string())?;
        let serving = Doors::start(self.options.state.join("doors"), &tasks, self.door_routes())
            .map(|doors| Serving { tasks, doors })
            .map_err(|error| format!("cannot open doors: {error}"))?;
        for record in doors {
            if let Err(error) = open(&serving.doors, record) {
                tracing::error!(agent = %record.id, %error, "an agent's door cannot be opened");
            }
        }
        // It is set once: the daemon starts the engine once.
        let _ = self.serving.set(serving);
        Ok(())
    }

    /// The engine.
    pub(crate) fn tasks(&self) -> Outcome<&Tasks> {
        let away = || Problem::new(ErrorCode::DaemonUnavailable, "tasks are not served by this daemon");
        self.serving.get().map(|serving| &serving.tasks).ok_or_else(away)
    }

    /// An agent's manifest; none: it is the process of an attempt, or cannot be read.
    pub(crate) fn spec_of(&self, record: &AgentRecord) -> Option<AgentSpec> {
        if record.labels.contains_key(ATTEMPT) {
            return None;
        }
        let yaml = self.store.manifest_of(&record.tenant, &record.id).ok().flatten()?;
        AgentSpec::parse(yaml.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests).ok()
    }

    /// An agent was registered.
    pub(crate) fn registered(&self, record: &AgentRecord, spec: &AgentSpec) {
        let Some(serving) = self.serving.get() else { return };
        match serves(record, spec) {
            Some(known) => serving.tasks.agent_known(known),
            None => serving.tasks.agent_gone(&record.tenant, &record.name),
        }
    }

    /// An agent was removed, for good or to be replaced.
    pub(crate) fn unregistered(&self, record: &AgentRecord, replaced: bool) {
        self.permitted.forget(&record.id);
        let Some(serving) = self.serving.get() else { return };
        serving.doors.close(&record.id);
        if !replaced && !record.labels.contains_key(ATTEMPT) {
            serving.tasks.agent_gone(&record.tenant, &record.name);
        }
    }

    fn launches_with_door(&self, record: &AgentRecord) -> bool {
        let plan = self.store.launch_of(&record.tenant, &record.id).ok().flatten();
        plan.and_then(|bytes| Launch::decode(bytes.as_slice()).ok()).is_some_and(|plan| plan.door)
    }

    /// Opens the door of an agent that is about to be launched.
    pub(crate) fn open_door(&self, record: &AgentRecord) -> Outcome<()> {
        let missing = || Problem::new(ErrorCode::Internal, "tasks are not served by this daemon");
        let serving = self.serving.get().ok_or_else(missing)?;
        open(&serving.doors, record)
            .map_err(|error| Problem::internal("the agent's door cannot be opened", &error))
    }

    /// An incarnation has ended, as it was just written down.
    pub(crate) fn incarnation_ended(&self, record: &AgentRecord) {
        let (Some(serving), Some(ended)) = (self.serving.get(), record.exit) else { return };
        match place_of(record) {
            Some(place) => serving.tasks.job_ended(&place, job_end(record, ended.exit)),
            None if record.labels.contains_key(ATTEMPT) => {}
            None => serving.tasks.service_ended(&record.tenant, &record.name),
        }
    }
}

fn job_end(record: &AgentRecord, exit: aion_types::Exit) -> JobEnd {
    JobEnd {
        code: exit.shell_code(),
        lost: matches!(exit.reason, ExitReason::Lost | ExitReason::Killed),
        oom: exit.reason == ExitReason::Oom,
        stopped: record.stop_requested,
    }
}

/// The attempt that an agent is the process of.
fn place_of(record: &AgentRecord) -> Option<Place> {
    let attempt = record.labels.get(ATTEMPT)?.parse().ok()?;
    let agent = AgentName::parse(record.labels.get(AGENT)?).ok()?;
    Some(Place { tenant: record.tenant.clone(), agent, attempt: Some(attempt) })
}

/// Tasks at once, within the agent's quota.
fn quota_of(quota: Quota, concurrency: u32) -> u32 {
    let most = quota.max_concurrency.and_then(|most| u32::try_from(most).ok());
    most.map_or(concurrency, |most| most.min(concurrency))
}

/// What the engine is told of an agent; none: it serves no tasks.
fn serves(record: &AgentRecord, spec: &AgentSpec) -> Option<Known> {
    let tasks = spec.tasks?;
    Some(Known {
        tenant: record.tenant.clone(),
        name: record.name.clone(),
        job: spec.mode == Mode::Job,
        concurrency: quota_of(spec.quota, tasks.concurrency),
        labels: record.labels.clone(),
        memory_bytes: spec.resources.mem.0,
        may_freeze: tasks.checkpoint.freeze,
        checkpoint_interval_ms: tasks.checkpoint.interval_ms,
        grace_ms: tasks.checkpoint.grace_ms,
        checkpoint_max: tasks.checkpoint.max_bytes.0,
    })
}

/// Agents' lives, as the engine sees them.
struct Lives(Arc<Core>);

impl Lives {
    fn calling<F, T>(&self, call: impl FnOnce(Arc<Core>) -> F) -> BoxFuture<Result<T, String>>
    where
        F: Future<Output = Outcome<T>> + Send + 'static,
    {
        let outcome = call(Arc::clone(&self.0));
        Box::pin(async move { outcome.await.map_err(|problem| problem.to_string()) })
    }
}

impl Core {
    /// The agent's record, or the record of the process of an attempt.
    fn record_at(&self, place: &Place) -> Outcome<Option<AgentRecord>> {
        match crate::jobs::id_of(place) {
            Some(id) => self.agents.get(&place.tenant, &id),
            None => {
                let Some(id) = self.store.agent_by_name(&place.tenant, &place.agent)? else {
                    return Ok(None);
                };
                self.agents.get(&place.tenant, &id)
            }
        }
    }

    async fn wake(self: Arc<Self>, tenant: TenantId, agent: AgentName) -> Outcome<()> {
        let Some(found) = self.record_at(&Place { tenant: tenant.clone(), agent, attempt: None })? else {
            return Ok(());
        };
        let _op = self.agents.lock(&found.id).await;
        let record = self.agents.find(&tenant, found.id.as_str())?;
        if record.state.is_live() {
            return Ok(());
        }
        lifecycle::check(&record, Command::Start)?;
        let record = self.agents.update(&tenant, &found.id, Batch::new(), |record, _| {
            lifecycle::begin_start(record);
            Ok(())
        })?;
        self.launch(&record).await?;
        let detail = serde_json::json!({"name": record.name.as_str(), "subject": "aiond"});
        self.trail.own(tenant.as_str(), record.id.as_str(), "api.agent.start", "tasks", detail).await;
        Ok(())
    }

    async fn signal_at(self: Arc<Self>, place: Place) -> Outcome<()> {
        let Some(record) = self.record_at(&place)? else { return Ok(()) };
        self.gone_is_fine(self.launcher.signal(record.id.as_str(), SIGTERM).await.map(|_| ()))
    }

    async fn freeze_at(self: Arc<Self>, place: Place, command: Command) -> Outcome<()> {
        let missing = || Problem::not_found(place.agent.as_str());
        let record = self.record_at(&place)?.ok_or_else(missing)?;
        // Whoever made room for others may go on when there is room; whoever a detection stopped may not.
        let held = record.restraints.iter().find(|r| r.kind == "frozen" && !r.reason.is_empty());
        if let (Command::Resume, Some(held)) = (command, held) {
            let message = format!("{} was frozen by {}", record.name, held.reason);
            return Err(Problem::new(ErrorCode::AgentPaused, message));
        }
        self.freeze_or_thaw(&record, command, &Claim::none()).await.map(drop)
    }

    async fn stop_at(self: Arc<Self>, place: Place) -> Outcome<()> {
        let Some(record) = self.record_at(&place)? else { return Ok(()) };
        let _op = self.agents.lock(&record.id).await;
        let now = self.agents.update(&record.tenant, &record.id, Batch::bookkeeping(), |record, _| {
            if record.state.is_live() {
                lifecycle::begin_stop(record);
            }
            Ok(())
        })?;
        if now.state.is_live() {
            self.kill_all(&record.tenant, &record.id, "task").await?;
        }
        Ok(())
    }

    async fn forget_at(self: Arc<Self>, place: Place) -> Outcome<()> {
        // Only the process of an attempt is forgotten.
        let (Some(record), true) = (self.record_at(&place)?, place.attempt.is_some()) else { return Ok(()) };
        let _op = self.agents.lock(&record.id).await;
        self.remove_locked(&record, true, None).await.map(drop)
    }

    async fn find_job(self: Arc<Self>, place: Place) -> Outcome<Option<JobFound>> {
        let Some(record) = self.record_at(&place)? else { return Ok(None) };
        let end = match record.state {
            AgentState::Starting | AgentState::Stopping => {
                return Err(Problem::new(
                    ErrorCode::AgentNotRunning,
                    format!("{} is {}", record.name, record.state.as_str()),
                ));
            }
            AgentState::Created | AgentState::Failed => return Ok(None),
            AgentState::Running | AgentState::Paused => None,
            AgentState::Exited => record.exit.map(|ended| job_end(&record, ended.exit)),
        };
        Ok(Some(JobFound { folder: self.folder_of(&record.id), end }))
    }

    /// An agent's folder, with its journal.
    pub(crate) fn folder_of(&self, id: &AgentId) -> PathBuf {
        self.options.state.join("agents").join(id.as_str())
    }
}

/// Opens a door. The process of an attempt comes as the registered agent that it is made from.
fn open(doors: &Doors, record: &AgentRecord) -> std::io::Result<()> {
    let registered = record.labels.get(ATTEMPT).and_then(|_| record.labels.get(AGENT));
    let name = registered.and_then(|name| AgentName::parse(name).ok());
    let visitor = Visitor {
        tenant: record.tenant.clone(),
        agent: name.unwrap_or_else(|| record.name.clone()),
        task: record.labels.get(TASK).filter(|_| registered.is_some()).cloned(),
    };
    doors.open(&record.id, visitor)
}

impl Host for Lives {
    fn wake(&self, tenant: TenantId, agent: AgentName) -> BoxFuture<Result<(), String>> {
        self.calling(|core| core.wake(tenant, agent))
    }

    fn launch(&self, job: JobLaunch) -> BoxFuture<Result<PathBuf, LaunchError>> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            core.launch_job(job).await.map_err(|problem| LaunchError {
                code: problem.code(),
                // A name that somebody else's agent has: the next attempt has another.
                passing: problem.is_passing() || problem.code() == ErrorCode::NameTaken,
                message: match problem.meta("field") {
                    field if field.is_empty() || problem.message().starts_with(field) => {
                        problem.message().to_owned()
                    }
                    field => format!("{field}: {}", problem.message()),
                },
            })
        })
    }

    fn find(&self, place: Place) -> BoxFuture<Result<Option<JobFound>, String>> {
        self.calling(|core| core.find_job(place))
    }

    fn terminate(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.calling(|core| core.signal_at(place))
    }

    fn freeze(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.calling(|core| core.freeze_at(place, Command::Pause))
    }

    fn thaw(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.calling(|core| core.freeze_at(place, Command::Resume))
    }

    fn stop(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.calling(|core| core.stop_at(place))
    }

    fn forget(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.calling(|core| core.forget_at(place))
    }

    fn is_registered(&self, tenant: &TenantId, agent: &AgentName) -> bool {
        self.0.store.agent_by_name(tenant, agent).is_ok_and(|found| found.is_some())
    }

    fn audit(&self, records: Vec<AuditRecord>) -> BoxFuture<()> {
        let core = Arc::clone(&self.0);
        Box::pin(async move {
            for record in records {
                core.trail.task(record).await;
            }
        })
    }
}
