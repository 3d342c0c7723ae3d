//! A node without sandboxes: tasks, doors, and an agent that is a client in this process.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::runtime_service_client::RuntimeServiceClient;
use aion_manifest::SchedulerFile;
use aion_tasks::{
    AuditRecord, BoxFuture, Doors, Error, Host, JobFound, JobLaunch, Known, LaunchError, Options, Place,
    Tasks, Visitor,
};
use aion_types::{AgentId, AgentName, ErrorCode, TenantId};
use api::to_agent::Kind as Told;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn known(tenant_name: &str, name: &str, concurrency: u32) -> Known {
    Known {
        tenant: tenant(tenant_name),
        name: AgentName::parse(name).unwrap(),
        job: false,
        concurrency,
        labels: [("team".to_owned(), name.to_owned())].into(),
        memory_bytes: 1 << 20,
        may_freeze: false,
        checkpoint_interval_ms: Some(0),
        grace_ms: 2000,
        checkpoint_max: 16 << 20,
    }
}

/// What was asked of the host.
#[derive(Default)]
pub(crate) struct FakeHost {
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) records: Mutex<Vec<AuditRecord>>,
    /// Where the process of a job finds its folder; none: no job can be started.
    pub(crate) job_folder: Mutex<Option<std::path::PathBuf>>,
    /// What was started.
    pub(crate) launched: Mutex<Vec<Place>>,
}

impl FakeHost {
    fn ask(&self, what: &str, agent: &AgentName) -> BoxFuture<Result<(), String>> {
        self.asked.lock().unwrap().push(format!("{what} {agent}"));
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Host for FakeHost {
    fn wake(&self, _: TenantId, agent: AgentName) -> BoxFuture<Result<(), String>> {
        self.ask("wake", &agent)
    }
    fn launch(&self, job: JobLaunch) -> BoxFuture<Result<std::path::PathBuf, LaunchError>> {
        if let Some(folder) = self.job_folder.lock().unwrap().clone() {
            self.launched.lock().unwrap().push(job.place);
            return Box::pin(std::future::ready(Ok(folder)));
        }
        let error = LaunchError { code: ErrorCode::CommandNotFound, message: "none".into(), passing: false };
        Box::pin(std::future::ready(Err(error)))
    }
    fn find(&self, _: Place) -> BoxFuture<Result<Option<JobFound>, String>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn terminate(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.ask("terminate", &place.agent)
    }
    fn freeze(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.ask("freeze", &place.agent)
    }
    fn thaw(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.ask("thaw", &place.agent)
    }
    fn stop(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.ask("stop", &place.agent)
    }
    fn forget(&self, place: Place) -> BoxFuture<Result<(), String>> {
        self.ask("forget", &place.agent)
    }
    fn is_registered(&self, _: &TenantId, agent: &AgentName) -> bool {
        agent.as_str() == "idle"
    }
    fn audit(&self, records: Vec<AuditRecord>) -> BoxFuture<()> {
        self.records.lock().unwrap().extend(records);
        Box::pin(std::future::ready(()))
    }
}

/// A state folder: this test's own, or somebody else's.
pub(crate) enum State {
    Own(tempfile::TempDir),
    Given(std::path::PathBuf),
}

impl State {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(path) => path,
        }
    }
}

pub(crate) struct World {
    pub(crate) tasks: Tasks,
    pub(crate) doors: Doors,
    pub(crate) host: Arc<FakeHost>,
    pub(crate) state: Arc<State>,
    agents: Vec<Known>,
    settings: String,
}

pub(crate) fn settings(slots: u32) -> String {
    format!(
        "apiVersion: aion.os/v1\nkind: Scheduler\nnode: {{slots: {slots}}}\npreemption: {{min_run: 0, high_cap_percent: 100}}\n"
    )
}

impl World {
    pub(crate) fn new(slots: u32, agents: Vec<Known>) -> Self {
        Self::on(Arc::new(State::Own(tempfile::tempdir().unwrap())), settings(slots), agents)
    }

    pub(crate) fn at(state: &Path, text: String, agents: Vec<Known>) -> Self {
        Self::on(Arc::new(State::Given(state.to_owned())), text, agents)
    }

    fn on(state: Arc<State>, text: String, agents: Vec<Known>) -> Self {
        let host = Arc::new(FakeHost::default());
        let file = text.clone();
        let reload = move || {
            SchedulerFile::parse(file.as_bytes(), "scheduler.yaml").map_err(|error| panic!("{error}"))
        };
        let start = || Tasks::start(Options::new(state.path()), host.clone(), agents.clone(), reload.clone());
        // Whoever had it before may still be letting go of it.
        let tasks =
            (0..100).find_map(|_| start().map_err(|_| std::thread::sleep(Duration::from_millis(50))).ok());
        let tasks = tasks.unwrap_or_else(|| start().unwrap());
        let doors =
            Doors::start(state.path().join("doors"), &tasks, tonic::service::Routes::default()).unwrap();
        for (n, agent) in (1..).zip(&agents) {
            let visitor = Visitor { tenant: agent.tenant.clone(), agent: agent.name.clone(), task: None };
            doors.open(&AgentId::from_parts(n, 0), visitor).unwrap();
        }
        Self { tasks, doors, host, state, agents, settings: text }
    }

    /// Everything ends in order and begins again.
    pub(crate) async fn restart(self) -> Self {
        let Self { tasks, doors, state, agents, settings, .. } = self;
        tasks.shut_down().await;
        drop((tasks, doors));
        Self::on(state, settings, agents)
    }

    /// The agent that was given as the `n`th opens its stream.
    pub(crate) async fn attach(&self, n: u64, concurrency: u32, running: Vec<api::Attempt>) -> Agent {
        attach(self.state.path(), n, concurrency, running).await
    }

    pub(crate) async fn submit(&self, spec: api::TaskSpec) -> Result<api::Task, Error> {
        self.tasks
            .submit(&tenant("default"), api::SubmitRequest { request_id: String::new(), task: Some(spec) })
            .await
    }

    pub(crate) async fn get(&self, id: &str) -> api::Task {
        self.tasks.get(&tenant("default"), id).await.unwrap()
    }

    /// Waits for a task's state.
    pub(crate) async fn until(&self, id: &str, state: &str) -> api::Task {
        for _ in 0..500 {
            let task = self.get(id).await;
            if task.state == state {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} never was {state}: {:?}", self.get(id).await);
    }

    pub(crate) async fn kinds(&self, id: &str) -> Vec<String> {
        let request = api::TaskHistoryRequest { task: id.into(), page_size: 1000, after_seq: 0 };
        let page = self.tasks.history(&tenant("default"), request).await.unwrap();
        page.events.into_iter().map(|event| event.kind).collect()
    }
}

pub(crate) fn spec(agent: &str, id: &str) -> api::TaskSpec {
    api::TaskSpec { agent: agent.into(), task_id: id.into(), ..api::TaskSpec::default() }
}

/// An agent's end of its stream.
pub(crate) struct Agent {
    say: mpsc::Sender<api::FromAgent>,
    hear: Streaming<api::ToAgent>,
    pub(crate) welcome: api::Welcome,
}

pub(crate) async fn attach(state: &Path, n: u64, concurrency: u32, running: Vec<api::Attempt>) -> Agent {
    let path = state.join("doors").join(AgentId::from_parts(n, 0).as_str()).join("kernel.sock");
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    let channel = Endpoint::from_static("http://aion").connect_with_connector(connect).await.unwrap();
    let (say, said) = mpsc::channel(64);
    let hello = api::RuntimeHello { protocol: 1, concurrency, running, sdk: "test".into() };
    say.send(api::FromAgent { kind: Some(api::from_agent::Kind::Hello(hello)) }).await.unwrap();
    let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let mut hear = client.attach(ReceiverStream::new(said)).await.unwrap().into_inner();
    let first = hear.message().await.unwrap();
    let Some(api::ToAgent { kind: Some(Told::Welcome(welcome)) }) = first else {
        panic!("{first:?} is no welcome")
    };
    Agent { say, hear, welcome }
}

impl Agent {
    pub(crate) async fn say(&self, kind: api::from_agent::Kind) {
        // The daemon may be gone.
        let _ = self.say.send(api::FromAgent { kind: Some(kind) }).await;
    }

    pub(crate) async fn hear(&mut self) -> Told {
        let message = tokio::time::timeout(Duration::from_secs(10), self.hear.message()).await;
        message.expect("it was told nothing").unwrap().expect("its stream ended").kind.unwrap()
    }

    /// None when the stream has ended.
    pub(crate) async fn try_hear(&mut self) -> Option<Told> {
        self.hear.message().await.ok().flatten()?.kind
    }

    /// The next assignments; nothing else may come.
    pub(crate) async fn assigned(&mut self) -> Vec<api::Assignment> {
        match self.hear().await {
            Told::Assignments(all) => all.assignments,
            other => panic!("{other:?} instead of assignments"),
        }
    }

    pub(crate) async fn complete(&self, attempt: api::Attempt, result: &str) {
        let outcome = Some(api::completion::Outcome::ResultJson(result.into()));
        let completions = vec![api::Completion { attempt: Some(attempt), outcome }];
        self.say(api::from_agent::Kind::Completions(api::Completions { completions })).await;
    }

    pub(crate) async fn checkpoint(&self, attempt: api::Attempt, data: &[u8], yields: bool) {
        let parts = data.len().div_ceil(1 << 20).max(1);
        for (n, part) in
            (0..).zip(data.chunks(1 << 20).chain(std::iter::repeat_n(&[][..], usize::from(data.is_empty()))))
        {
            self.say(api::from_agent::Kind::Checkpoint(api::CheckpointPart {
                attempt: Some(attempt),
                offset: (n as u64) << 20,
                data: part.to_vec(),
                last: n + 1 == parts,
                yields,
                sha256: Vec::new(),
            }))
            .await;
        }
    }
}
