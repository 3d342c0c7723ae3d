//! The supervisor as the kernel sees it: agents, tools' runs, tasks, the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_kernel::{
    AccountLimits, AgentInfo, AgentSeen, AuditEntry, BoxFuture, Caller, FileAnswer, FileAsk, Host, Kernel,
    Options, Sandbox, ToolEnd, ToolRun, ToolServer,
};
use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, Overrides};
use aion_store::{Batch, ListQuery};
use aion_syscall::{Limits, Refusal};
use aion_types::{AgentId, AgentName, AgentUri, ErrorCode, TenantId};
use prost::Message as _;
use serde_json::{Value, json};

use crate::clock::now_ns;
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

    async fn register_for(&self, tenant: &TenantId, manifest: &str, name: &AgentName) -> Outcome<String> {
        self.store.check_room(false)?;
        let overrides = Overrides { name: Some(name.to_string()), ..Overrides::default() };
        let spec = AgentSpec::parse(manifest.as_bytes(), "manifest", overrides, &self.options.manifests)?;
        if let Some(policy) = &self.options.policy {
            spec.restrict(policy)
                .map_err(|error| Problem::from(error).with("rule", "policy:capabilities"))?;
        }
        let id = register::new_id()?;
        let plan = launch::plan(&spec, tenant, &id, Size::new(0, 0));
        nothing_of_the_host(&plan)?;
        let record = register::record_of(&spec, tenant, &id);
        let mut batch = Batch::new();
        batch.create_agent(&record, &plan.encode_to_vec(), &spec.to_yaml())?;
        self.agents.commit(&id, batch).await?;
        self.registered(&record, &spec);
        let detail = json!({"name": name.as_str(), "subject": format!("hmac:{tenant}")});
        self.trail.own(tenant.as_str(), id.as_str(), "api.agent.register", "", detail).await;
        Ok(id.to_string())
    }
}

/// A tenant's secret registers agents that live in themselves alone. Folders, networks and secrets of the host are the operator's to give.
fn nothing_of_the_host(plan: &launcher::Launch) -> Outcome<()> {
    use launcher::{rootfs, workspace};
    let workspace = plan.workspace.as_ref().and_then(|workspace| workspace.kind.as_ref());
    let rootfs = plan.rootfs.as_ref().and_then(|rootfs| rootfs.kind.as_ref());
    let given = [
        ("spec.network", plan.network() != launcher::Network::None, "the host's network"),
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

    fn limits<'a>(
        &'a self,
        tenant: &'a TenantId,
        agent: &'a AgentName,
        task: &'a str,
    ) -> BoxFuture<'a, AccountLimits> {
        Box::pin(async move {
            let mut limits = AccountLimits::default();
            let Ok(tasks) = self.0.tasks() else { return limits };
            (limits.tenant.usd_micros, limits.agent.usd_micros) = tasks.spending(tenant, agent);
            if !task.is_empty()
                && let Ok(found) = tasks.get(tenant, task).await
                // Another agent's task is no budget of this one.
                && found.agent == agent.as_str()
            {
                let budget = found.spec.and_then(|spec| spec.budget).unwrap_or_default();
                limits.task = Some(Limits {
                    usd_micros: (budget.usd_max > 0.0).then(|| micros(budget.usd_max)),
                    tokens: (budget.tokens_max > 0).then_some(budget.tokens_max),
                });
            }
            limits
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

    fn register(
        &self,
        tenant: TenantId,
        manifest: String,
        name: AgentName,
    ) -> BoxFuture<'_, Result<String, Refusal>> {
        Box::pin(async move { self.0.register_for(&tenant, &manifest, &name).await.map_err(Refusal::from) })
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
            let spec = task_of(&tenant, &task)?;
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

/// The contract's task: `{task_id, intent, priority, quota, params}`, with the agent and the queue beside them.
fn task_of(tenant: &TenantId, body: &Value) -> Result<api::TaskSpec, Refusal> {
    const KNOWN: [&str; 10] = [
        "task_id", "agent_id", "agent", "intent", "priority", "queue", "quota", "params", "labels",
        "trace_id",
    ];
    let Some(map) = body.as_object() else { return Err(Refusal::field("body", "it is not a JSON object")) };
    if let Some(unknown) = map.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let shown: String = unknown.chars().take(80).collect();
        return Err(Refusal::field(shown, "it is not a field of a task")
            .hint(format!("the fields are {}", KNOWN.join(", "))));
    }
    let text = |field: &str| match map.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Refusal::field(field, "it is not a text")),
    };
    let mut spec = api::TaskSpec {
        task_id: text("task_id")?,
        intent: text("intent")?,
        queue: text("queue")?,
        trace_id: text("trace_id")?,
        ..Default::default()
    };
    spec.agent = match text("agent_id")?.as_str() {
        "" => text("agent")?,
        uri => {
            let uri = AgentUri::parse(uri).map_err(|error| Refusal::field("agent_id", error.to_string()))?;
            if uri.tenant != *tenant {
                return Err(Refusal::denied(format!("tenant {tenant} has no agent {uri}"), "door: agent_id")
                    .at("agent_id"));
            }
            uri.name.to_string()
        }
    };
    match map.get("priority") {
        None | Some(Value::Null) => {}
        // In the contract's words a priority is a queue.
        Some(Value::String(word)) if spec.queue.is_empty() => spec.queue.clone_from(word),
        Some(value) => {
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            spec.priority =
                Some(number.ok_or_else(|| Refusal::field("priority", "use 0 to 9, or high, normal, low"))?);
        }
    }
    match map.get("quota") {
        None | Some(Value::Null) => {}
        Some(Value::Object(quota)) => {
            let budget = spec.budget.get_or_insert_default();
            for (name, value) in quota {
                match (name.as_str(), value.as_f64(), value.as_u64()) {
                    ("usd_max", Some(usd), _) => budget.usd_max = usd,
                    ("tokens_max", _, Some(tokens)) => budget.tokens_max = tokens,
                    _ => {
                        let shown: String = name.chars().take(80).collect();
                        return Err(Refusal::field(
                            format!("quota.{shown}"),
                            "it is not usd_max or tokens_max, or no number",
                        ));
                    }
                }
            }
        }
        Some(_) => return Err(Refusal::field("quota", "it is not an object")),
    }
    match map.get("labels") {
        None | Some(Value::Null) => {}
        Some(Value::Object(labels)) => {
            for (key, value) in labels {
                let Some(value) = value.as_str() else {
                    return Err(Refusal::field("labels", "a label is a text"));
                };
                spec.labels.insert(key.clone(), value.to_owned());
            }
        }
        Some(_) => return Err(Refusal::field("labels", "it is not an object")),
    }
    if let Some(params) = map.get("params").filter(|params| !params.is_null()) {
        spec.params_json = params.to_string();
    }
    Ok(spec)
}
