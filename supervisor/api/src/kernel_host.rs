//! The supervisor as the kernel sees it: agents, tools' runs, tasks, the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_kernel::{
    AccountLimits, AgentInfo, AgentSeen, AuditEntry, BoxFuture, Caller, FileAnswer, FileAsk, Host, Kernel,
    Options, Registered, Registration, Sandbox, TaskFound, TaskLimits, ToolEnd, ToolRun, ToolServer,
};
use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, Overrides};
use aion_store::{Batch, ListQuery};
use aion_syscall::{Limits, Refusal};
use aion_types::{AgentId, AgentName, ErrorCode, TenantId};
use prost::Message as _;
use serde_json::{Value, json};

use crate::clock::now_ns;
use crate::contract_task;
use crate::core::Core;
use crate::launch::{self, Size};
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::register;

/// The tenant of local operators; it has no secret and is always there.
const DEFAULT: &str = "default";

struct ForKernel(Arc<Core>);

impl Core {
    /// Opens the kernel.
    pub(crate) fn start_kernel(self: &Arc<Self>, offline: bool) -> Result<Kernel, Refusal> {
        let options = Options {
            state: self.options.state.clone(),
            state_absolute: self.options.state_absolute.clone(),
            manifests: self.options.manifests.clone(),
            classes: Arc::clone(&self.options.manifests.classes),
            policy: self.options.policy.clone(),
            offline,
            wasm_runner: self.options.wasm_runner.clone(),
            spans: self.options.spans.clone(),
            signatures: Arc::clone(&self.options.signatures),
        };
        let host: Arc<dyn Host> = Arc::new(ForKernel(Arc::clone(self)));
        let kernel = Kernel::open(options, Arc::clone(&self.store), host)?;
        // It is set once: the daemon opens it once.
        let _ = self.kernel.set(kernel.clone());
        Ok(kernel)
    }

    /// The kernel.
    pub(crate) fn kernel(&self) -> Outcome<&Kernel> {
        let away =
            || Problem::new(ErrorCode::DaemonUnavailable, "the kernel API is not served by this daemon");
        self.kernel.get().ok_or_else(away)
    }

    /// A tenant that an operator wants to work in.
    pub(crate) fn tenant_named(&self, name: &str) -> Outcome<TenantId> {
        let tenant = TenantId::parse(name)
            .map_err(|error| Problem::field("tenant", format!("{name:?} is not a tenant's name: {error}")))?;
        if tenant.as_str() == DEFAULT || self.kernel()?.tenants().get(&tenant).is_some() {
            return Ok(tenant);
        }
        Err(Problem::new(ErrorCode::TenantNotFound, format!("there is no tenant {tenant}"))
            .hint("`aionctl tenant ls` shows all of them"))
    }

    /// An operator, as the kernel knows it.
    pub(crate) fn caller_of(principal: &Principal) -> Caller {
        Caller::Operator { tenant: principal.tenant().clone(), subject: principal.subject().to_owned() }
    }

    async fn register_for(&self, registration: Registration) -> Outcome<Registered> {
        let Registration { tenant, name, manifest, quota } = registration;
        let (tenant, name) = (&tenant, &name);
        let overrides = Overrides { name: Some(name.to_string()), quota, ..Overrides::default() };
        let spec = AgentSpec::parse(manifest.as_bytes(), "manifest", overrides, &self.options.manifests)?;
        // Nobody can sign what comes through this door.
        self.signer(manifest.as_bytes(), "")?;
        if let Some(id) = self.same_as_registered(tenant, name, &spec)? {
            return Ok(Registered { id, created: false });
        }
        self.store.check_room(false)?;
        let id = register::new_id()?;
        self.permit_as(tenant, &id, &spec)?;
        let plan = launch::plan(&spec, tenant, &id, Size::new(0, 0));
        nothing_of_the_host(&plan)?;
        let record = register::record_of(&spec, tenant, &id);
        let mut batch = Batch::new();
        batch.create_agent(&record, &plan.encode_to_vec(), &spec.to_yaml())?;
        if let Err(problem) = self.agents.commit(&id, batch).await {
            // Somebody else was quicker, perhaps with the same.
            let same = self.same_as_registered(tenant, name, &spec)?;
            return same.map(|id| Registered { id, created: false }).ok_or(problem);
        }
        self.registered(&record, &spec);
        let detail = json!({"name": name.as_str(), "subject": format!("hmac:{tenant}")});
        self.trail.own(tenant.as_str(), id.as_str(), "api.agent.register", "", detail).await;
        Ok(Registered { id: id.to_string(), created: true })
    }

    /// The agent that is registered under the name with this very manifest; none: nobody has the name.
    fn same_as_registered(
        &self,
        tenant: &TenantId,
        name: &AgentName,
        spec: &AgentSpec,
    ) -> Outcome<Option<String>> {
        let Some(id) = self.store.agent_by_name(tenant, name)? else { return Ok(None) };
        let stored = self.store.manifest_of(tenant, &id)?.unwrap_or_default();
        // Read again, because another version may have written it in another form. One that cannot be read any more is another one.
        let read =
            AgentSpec::parse(stored.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests);
        if read.is_ok_and(|stored| stored.to_yaml() == spec.to_yaml()) {
            return Ok(Some(id.to_string()));
        }
        let message = format!("agent://{tenant}/{name} is registered with another manifest");
        Err(Problem::new(ErrorCode::NameTaken, message).with("field", "manifest").hint(format!(
            "register under another name; or an operator replaces it: \
             `aionctl apply -f FILE --tenant {tenant} --as {name}`"
        )))
    }
}

/// A tenant's secret registers agents that live in themselves alone. Folders, networks and secrets of the host are the operator's to give.
fn nothing_of_the_host(plan: &launcher::Launch) -> Outcome<()> {
    use launcher::{rootfs, workspace};
    let workspace = plan.workspace.as_ref().and_then(|workspace| workspace.kind.as_ref());
    let rootfs = plan.rootfs.as_ref().and_then(|rootfs| rootfs.kind.as_ref());
    let given = [
        ("spec.network", plan.network() != launcher::Network::None, "the host's network, or a way out,"),
        ("spec.workspace", matches!(workspace, Some(workspace::Kind::Directory(_))), "a folder of the host"),
        ("spec.rootfs", matches!(rootfs, Some(rootfs::Kind::Directory(_))), "a folder of the host"),
        ("spec.capabilities", !plan.binds.is_empty(), "folders of the host"),
        ("spec.secrets", !plan.secrets.is_empty(), "the operator's secrets"),
        ("spec.allow_degraded", !plan.allow_degraded.is_empty(), "less isolation"),
    ];
    let Some((field, _, what)) = given.into_iter().find(|(_, asked, _)| *asked) else { return Ok(()) };
    let message = format!("{field}: {what} cannot be had by registering over the kernel API");
    Err(Problem::new(ErrorCode::PolicyDenied, message)
        .with("field", field)
        .with("rule", "door: register")
        .hint("an operator gives it: `aionctl apply -f FILE --tenant TENANT --as NAME`"))
}

impl Host for ForKernel {
    fn agent(&self, tenant: &TenantId, name: &AgentName) -> Result<Option<AgentInfo>, Refusal> {
        let found = |id: Option<aion_types::AgentId>| -> Outcome<Option<AgentInfo>> {
            let Some(id) = id else { return Ok(None) };
            let manifest = self.0.store.manifest_of(tenant, &id)?.unwrap_or_default();
            // A process of an attempt, or an orphan: it has no manifest of its own, and makes no calls.
            Ok((!manifest.is_empty()).then(|| AgentInfo { id: id.to_string(), manifest }))
        };
        let id = self.0.store.agent_by_name(tenant, name).map_err(Problem::from).and_then(found);
        id.map_err(Refusal::from)
    }

    fn agent_id(&self, tenant: &TenantId, name: &AgentName) -> Result<Option<String>, Refusal> {
        let id = self.0.store.agent_by_name(tenant, name).map_err(Problem::from)?;
        Ok(id.map(|id| id.to_string()))
    }

    fn agents(
        &self,
        tenant: &TenantId,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<AgentSeen>, Option<String>), Refusal> {
        let after = match after {
            "" => None,
            text => Some(
                AgentId::parse(text)
                    .map_err(|_| Refusal::field("params.after", "it is not what `next` of a page was"))?,
            ),
        };
        let query = ListQuery {
            tenant: tenant.clone(),
            states: Vec::new(),
            name_prefix: String::new(),
            labels: BTreeMap::new(),
            after,
            limit,
        };
        let page = self.0.store.list(&query).map_err(Problem::from)?;
        let next = page.agents.last().filter(|_| page.more).map(|last| last.id.to_string());
        let mut seen = Vec::with_capacity(page.agents.len());
        for record in page.agents {
            // As in `agent`: what has no manifest of its own makes no calls, and is nobody to talk to.
            let manifest = self.0.store.manifest_of(tenant, &record.id).map_err(Problem::from)?;
            if manifest.is_some_and(|text| !text.is_empty()) {
                seen.push(AgentSeen {
                    name: record.name.to_string(),
                    state: record.state.as_str().to_owned(),
                });
            }
        }
        Ok((seen, next))
    }

    fn limits(&self, tenant: &TenantId, agent: &AgentName) -> AccountLimits {
        let mut limits = AccountLimits::default();
        let Ok(tasks) = self.0.tasks() else { return limits };
        (limits.tenant.usd_micros, limits.agent.usd_micros) = tasks.spending(tenant, agent);
        limits
    }

    fn task<'a>(
        &'a self,
        tenant: &'a TenantId,
        agent: &'a AgentName,
        task: &'a str,
    ) -> BoxFuture<'a, Result<TaskFound, Refusal>> {
        Box::pin(async move {
            let found = match self.0.tasks().map_err(Refusal::from)?.get(tenant, task).await {
                Ok(found) => found,
                Err(error) if matches!(error.code, ErrorCode::TaskNotFound | ErrorCode::InvalidField) => {
                    return Ok(TaskFound::Unknown);
                }
                // With its task its budget would be left out.
                Err(error) => return Err(Refusal::from(Problem::from(error))),
            };
            let spec = found.spec.unwrap_or_default();
            // What may be any agent's is nobody's until it runs.
            let owner = if found.agent.is_empty() { &spec.agent } else { &found.agent };
            if owner.is_empty() {
                return Ok(TaskFound::Unknown);
            }
            if owner != agent.as_str() && !agent.is_whole_tenant() {
                return Ok(TaskFound::Foreign);
            }
            let budget = spec.budget.unwrap_or_default();
            let usd = |usd: f64| (usd > 0.0).then(|| micros(usd));
            let tokens = |tokens: u64| (tokens > 0).then_some(tokens);
            Ok(TaskFound::Own(TaskLimits {
                all: Limits { usd_micros: usd(budget.usd_max), tokens: tokens(budget.tokens_max) },
                usd_micros_per_hour: usd(budget.usd_per_hour),
                token_rate: tokens(budget.token_rate),
            }))
        })
    }

    fn run(&self, run: ToolRun) -> BoxFuture<'_, Result<ToolEnd, Refusal>> {
        Box::pin(Arc::clone(&self.0).run_tool(run))
    }

    fn serve(&self, sandbox: Sandbox) -> BoxFuture<'_, Result<ToolServer, Refusal>> {
        Box::pin(async move { Arc::clone(&self.0).serve_tool(sandbox).await.map_err(Refusal::from) })
    }

    fn file(&self, id: &str, path: &str, ask: FileAsk) -> BoxFuture<'_, Result<FileAnswer, Refusal>> {
        Box::pin(self.0.file(id.to_owned(), path.to_owned(), ask))
    }

    fn audit(&self, entry: AuditEntry) -> BoxFuture<'_, ()> {
        Box::pin(self.0.trail.syscalls(entry))
    }

    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Registered, Refusal>> {
        Box::pin(async move { self.0.register_for(registration).await.map_err(Refusal::from) })
    }

    fn heartbeat(&self, tenant: &TenantId, name: &AgentName) -> Result<(), Refusal> {
        let beat = || -> Outcome<()> {
            let found = self.0.agents.find(tenant, name.as_str())?;
            self.0.agents.update(&found.tenant, &found.id, Batch::new(), |record, _| {
                record.heartbeat_ns = now_ns();
                Ok(())
            })?;
            Ok(())
        };
        beat().map_err(Refusal::from)
    }

    fn submit(&self, tenant: TenantId, task: Value) -> BoxFuture<'_, Result<Value, Refusal>> {
        Box::pin(async move {
            let spec = contract_task::spec(&tenant, &task)?;
            let submitted = async {
                let tasks = self.0.tasks()?;
                let request = api::SubmitRequest { request_id: String::new(), task: Some(spec) };
                tasks.submit(&tenant, request).await.map_err(Problem::from)
            };
            let task = submitted.await.map_err(Refusal::from)?;
            Ok(json!({"task_id": task.id, "state": task.state, "agent": task.agent, "why": task.why}))
        })
    }
}

fn micros(usd: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the engine has bounded it")]
    let micros = (usd * 1_000_000.0).round().clamp(0.0, 1e15) as u64;
    micros
}
