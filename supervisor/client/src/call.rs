//! The unary calls, and what happens to them when the daemon goes away in the middle.
//!
//! Reads are repeated until the client's patience ends. Mutations carry a request id, made once, so that a repeat
//! is answered with what the first attempt did; they are repeated a few times only, because a daemon that dies of
//! a request would die of it again.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aion_api_proto::v1 as api;
use tonic::{Response, Status, Streaming};

use crate::client::probe;
use crate::{Client, Error, Result};

/// How often a mutation is sent at most.
const MUTATION_ATTEMPTS: u32 = 3;

impl Client {
    async fn call<T, F>(&self, attempts: u32, mut send: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let mut sent = 0;
        loop {
            sent += 1;
            let error = match send().await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => self.error(status),
            };
            if !error.is_disconnect() || sent >= attempts {
                return Err(error);
            }
            self.await_daemon(started, error).await?;
        }
    }

    /// Waits until somebody listens again; gives `cause` back when patience, counted from `since`, ends first.
    pub(crate) async fn await_daemon(&self, since: Instant, cause: Error) -> Result<()> {
        let _waiting = Waiting::begin(&self.waiting);
        let mut pause = Duration::from_millis(10);
        loop {
            if since.elapsed() >= self.options.patience {
                return Err(cause);
            }
            tokio::time::sleep(pause).await;
            match probe(&self.options.socket).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_disconnect() => pause = (pause * 2).min(Duration::from_millis(250)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Counts a call as waiting for as long as this lives: the call may be dropped at any moment.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A fresh request id: 128 random bits.
pub(crate) fn request_id() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Answer { what: format!("no randomness for a request id: {error}") })?;
    Ok(hex::encode(bytes))
}

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident: $service:ident.$method:ident($request:ident) -> $answer:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the daemon answered, or that it stayed away.
            pub async fn $name(&self, request: api::$request) -> Result<api::$answer> {
                self.call(u32::MAX, || {
                    let (mut service, request) = (self.$service(), request.clone());
                    async move { service.$method(request).await }
                })
                .await
            }
        )*}
    };
}

reads! {
    /// One agent, with its manifest.
    get: agents.get(GetRequest) -> Agent;
    /// One page of agents.
    list_page: agents.list(ListRequest) -> ListResponse;
    /// Waits for an agent's end, across restarts of the daemon.
    wait: agents.wait(WaitRequest) -> Agent;
    /// Checks a manifest with the daemon's eyes.
    validate: agents.validate(ValidateRequest) -> ValidateResponse;
    /// Says that an agent is alive.
    heartbeat: agents.heartbeat(HeartbeatRequest) -> HeartbeatResponse;
    /// One page of the audit log.
    query: audit.query(QueryRequest) -> QueryResponse;
    /// Verifies the audit log.
    verify: audit.verify(VerifyRequest) -> VerifyResponse;
    /// What this host gives each layer.
    doctor: host.doctor(DoctorRequest) -> DoctorResponse;
    /// The daemons' versions.
    version: host.version(VersionRequest) -> VersionResponse;
    /// One task.
    task: tasks.get(GetTaskRequest) -> Task;
    /// One page of tasks.
    tasks_page: tasks.list(ListTasksRequest) -> ListTasksResponse;
    /// One page of a task's history.
    task_history_page: tasks.history(TaskHistoryRequest) -> TaskHistoryResponse;
    /// How the queues are.
    queues: tasks.queues(QueuesRequest) -> QueuesResponse;
    /// Has scheduler.yaml read again.
    reload_queues: tasks.reload(ReloadRequest) -> ReloadResponse;
    /// Counters and gauges.
    metrics: tasks.metrics(MetricsRequest) -> MetricsResponse;
    /// The detections that are loaded.
    detections: detection.list(ListDetectionsRequest) -> ListDetectionsResponse;
    /// Has the detections' rules read again.
    reload_detections: detection.reload(ReloadDetectionsRequest) -> ReloadDetectionsResponse;
    /// Gives an agent back what was taken from it.
    clear_restraints: detection.clear(ClearRestraintsRequest) -> Agent;
    /// Compares the journal of the tasks with its checksums.
    check_journal: task_journal.check(JournalCheckRequest) -> JournalReport;
    /// Removes from the journal what is no longer kept.
    compact_journal: task_journal.compact(JournalCompactRequest) -> JournalReport;
}

reads! {
    /// The tenants.
    tenants: kernel.list_tenants(ListTenantsRequest) -> ListTenantsResponse;
    /// The tools that the tenant sees.
    tools: kernel.list_tools(ListToolsRequest) -> ListToolsResponse;
    /// The secrets of the tenant, without their values.
    secrets: kernel.list_secrets(ListSecretsRequest) -> ListSecretsResponse;
    /// The models.
    models: kernel.list_models(ListModelsRequest) -> ListModelsResponse;
    /// System calls that wait for a person.
    approvals: kernel.list_approvals(ListApprovalsRequest) -> ListApprovalsResponse;
    /// Reads the operator's rules anew, and holds running agents to them.
    reload_policy: policy.reload(ReloadPolicyRequest) -> ReloadPolicyResponse;
    /// How a system call was decided.
    explain: kernel.explain(ExplainRequest) -> ExplainResponse;
    /// What accounts have used.
    usage: kernel.usage(KernelUsageRequest) -> KernelUsageResponse;
}

/// Calls that are sent once: a second time they would find what the first has done.
macro_rules! once {
    ($($(#[$doc:meta])* $name:ident: $service:ident.$method:ident($request:ident) -> $answer:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the daemon answered, or that it went away; then it may have been done.
            pub async fn $name(&self, request: api::$request) -> Result<api::$answer> {
                self.call(1, || {
                    let (mut service, request) = (self.$service(), request.clone());
                    async move { service.$method(request).await }
                })
                .await
            }
        )*}
    };
}

once! {
    /// Adds a tenant.
    add_tenant: kernel.add_tenant(AddTenantRequest) -> Tenant;
    /// Changes a tenant's settings.
    set_tenant: kernel.set_tenant(SetTenantRequest) -> Tenant;
    /// Gives a tenant a new secret.
    rotate_tenant: kernel.rotate_tenant(RotateTenantRequest) -> Tenant;
    /// Forgets a tenant.
    revoke_tenant: kernel.revoke_tenant(RevokeTenantRequest) -> RevokeTenantResponse;
    /// Makes a bearer token that speaks for an agent.
    mint_token: kernel.mint_token(MintTokenRequest) -> MintTokenResponse;
    /// Installs a tool.
    install_tool: kernel.install_tool(InstallToolRequest) -> Tool;
    /// Removes a tool.
    remove_tool: kernel.remove_tool(RemoveToolRequest) -> RemoveToolResponse;
    /// Answers a system call that waits for a person.
    answer_approval: kernel.answer_approval(AnswerApprovalRequest) -> Approval;
    /// Stores a secret.
    add_secret: kernel.add_secret(AddSecretRequest) -> Secret;
    /// Forgets a secret.
    remove_secret: kernel.remove_secret(RemoveSecretRequest) -> RemoveSecretResponse;
    /// Adds a model.
    add_model: kernel.add_model(AddModelRequest) -> Model;
    /// Removes a model.
    remove_model: kernel.remove_model(RemoveModelRequest) -> RemoveModelResponse;
    /// Makes a system call.
    invoke: syscalls.invoke(SyscallRequest) -> SyscallAnswer;
}

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident: $service:ident.$method:ident($request:ident) -> $answer:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// An empty `request_id` is filled with a fresh one; the call is repeated under it when the daemon
            /// goes away before it has answered.
            ///
            /// # Errors
            /// What the daemon answered, or that it stayed away.
            pub async fn $name(&self, mut request: api::$request) -> Result<api::$answer> {
                if request.request_id.is_empty() {
                    request.request_id = request_id()?;
                }
                self.call(MUTATION_ATTEMPTS, || {
                    let (mut service, request) = (self.$service(), request.clone());
                    async move { service.$method(request).await }
                })
                .await
            }
        )*}
    };
}

mutations! {
    /// Stores an agent under its name, not started.
    register: agents.register(RegisterRequest) -> Agent;
    /// Starts it.
    start: agents.start(StartRequest) -> Agent;
    /// Ends it, gently first.
    stop: agents.stop(StopRequest) -> Agent;
    /// Sends it a signal.
    kill: agents.kill(KillRequest) -> Agent;
    /// Freezes it.
    pause: agents.pause(PauseRequest) -> Agent;
    /// Thaws it.
    resume: agents.resume(ResumeRequest) -> Agent;
    /// Forgets it.
    remove: agents.remove(RemoveRequest) -> RemoveResponse;
    /// Submits a task. With an id of its own, or under one request id, it is submitted once.
    submit_task: tasks.submit(SubmitRequest) -> Task;
    /// Ends a task.
    cancel_task: tasks.cancel(CancelTaskRequest) -> Task;
}

impl Client {
    /// All agents that match, page by page.
    ///
    /// # Errors
    /// What the daemon answered, or that it stayed away.
    pub async fn list(&self, mut request: api::ListRequest) -> Result<Vec<api::Agent>> {
        let mut agents = Vec::new();
        loop {
            let page = self.list_page(request.clone()).await?;
            agents.extend(page.agents);
            if page.next_page_token.is_empty() {
                return Ok(agents);
            }
            if page.next_page_token == request.page_token {
                return Err(Error::Answer { what: "the list's next page is the page before".to_owned() });
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Runs one more program in an agent. The session lives in the daemon and ends with it.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn exec(
        &self,
        input: impl tokio_stream::Stream<Item = api::ExecInput> + Send + 'static,
    ) -> Result<Streaming<api::ExecOutput>> {
        self.agents().exec(input).await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// Takes an agent's terminal.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn attach(
        &self,
        input: impl tokio_stream::Stream<Item = api::AttachInput> + Send + 'static,
    ) -> Result<Streaming<api::AttachOutput>> {
        self.agents().attach(input).await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// Samples of agents' use of resources.
    ///
    /// # Errors
    /// What the daemon answered.
    pub async fn stats(&self, request: api::StatsRequest) -> Result<Streaming<api::StatsSample>> {
        self.agents().stats(request).await.map(Response::into_inner).map_err(|status| self.error(status))
    }

    /// The next item of a stream that one of the calls above has opened.
    ///
    /// # Errors
    /// What the daemon answered, or that it went away.
    pub async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>> {
        stream.message().await.map_err(|status| self.error(status))
    }

    /// Waits until the daemon is back, as long as patience lasts.
    ///
    /// # Errors
    /// `cause` when it stayed away.
    pub async fn reconnected(&self, cause: Error) -> Result<()> {
        self.await_daemon(Instant::now(), cause).await
    }
}
