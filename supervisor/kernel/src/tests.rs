use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aion_store::Options as StoreOptions;
use aion_syscall::{Layer, Status};
use aion_tenants::{Secret, Settings};
use aion_types::AgentName;

use super::*;
use crate::host::{
    AccountLimits, AgentInfo, AgentSeen, AuditEntry, BoxFuture, FileAnswer, FileAsk, Registered,
    Registration, Sandbox, TaskFound, TaskLimits, ToolEnd, ToolRun, ToolServer,
};
use crate::tools::ToolFileData;

#[path = "tests/approvals.rs"]
mod approvals;
#[path = "tests/contract.rs"]
mod contract;
#[path = "tests/files.rs"]
mod files;
#[path = "tests/mail.rs"]
mod mail;
#[path = "tests/models.rs"]
mod model_answers;
#[path = "tests/signed.rs"]
mod signed;
#[path = "tests/servers.rs"]
mod tool_servers;

/// A supervisor that runs tools by looking at their arguments.
#[derive(Default)]
struct Fake {
    agents: Mutex<Vec<(String, String, String)>>,
    records: Mutex<Vec<AuditEntry>>,
    runs: AtomicUsize,
    limits: Mutex<AccountLimits>,
    /// Id, whose, what it may spend.
    tasks: Mutex<Vec<(String, String, TaskLimits)>>,
}

impl Host for Fake {
    fn agent(&self, tenant: &TenantId, name: &AgentName) -> Result<Option<AgentInfo>, Refusal> {
        let agents = self.agents.lock().unwrap();
        let found = agents.iter().position(|(t, n, _)| t == tenant.as_str() && n == name.as_str());
        Ok(found.map(|at| AgentInfo { id: format!("id-{at}"), manifest: agents[at].2.clone() }))
    }

    fn agents(
        &self,
        tenant: &TenantId,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<AgentSeen>, Option<String>), Refusal> {
        let agents = self.agents.lock().unwrap();
        let from: usize = after.parse().unwrap_or(0);
        let own = agents.iter().filter(|(t, _, _)| t == tenant.as_str());
        let seen = own
            .skip(from)
            .take(limit)
            .map(|(_, name, _)| AgentSeen { name: name.clone(), state: "created".to_owned() });
        let seen: Vec<_> = seen.collect();
        let next = (seen.len() == limit).then(|| (from + limit).to_string());
        Ok((seen, next))
    }

    fn limits(&self, _: &TenantId, _: &AgentName) -> AccountLimits {
        *self.limits.lock().unwrap()
    }

    fn task<'a>(
        &'a self,
        _: &'a TenantId,
        agent: &'a AgentName,
        task: &'a str,
    ) -> BoxFuture<'a, Result<TaskFound, Refusal>> {
        let tasks = self.tasks.lock().unwrap();
        let found = tasks.iter().find(|(id, ..)| id == task);
        let found = found.map_or(TaskFound::Unknown, |(_, of, limits)| match of == agent.as_str() {
            true => TaskFound::Own(*limits),
            false => TaskFound::Foreign,
        });
        Box::pin(async move { Ok(found) })
    }

    fn run(&self, run: ToolRun) -> BoxFuture<'_, Result<ToolEnd, Refusal>> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let arguments: Value = serde_json::from_slice(&run.stdin).unwrap();
            let query = arguments["query"].as_str().unwrap_or_default().to_owned();
            let mut end = ToolEnd {
                code: 0,
                reason: "exited".to_owned(),
                stdout: json!({"items": [query]}).to_string().into_bytes(),
                cut: false,
                stderr: Vec::new(),
            };
            match query.as_str() {
                "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
                "fail" => (end.code, end.stderr) = (3, b"it broke\n".to_vec()),
                "text" => end.stdout = b"hello".to_vec(),
                "form" => end.stdout = b"{\"items\": 5}".to_vec(),
                "pause" => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => {}
            }
            Ok(end)
        })
    }

    fn serve(&self, sandbox: Sandbox) -> BoxFuture<'_, Result<ToolServer, Refusal>> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { tool_servers::serve(&sandbox) })
    }

    fn file(&self, _: &str, path: &str, ask: FileAsk) -> BoxFuture<'_, Result<FileAnswer, Refusal>> {
        let done = files::answer(path, ask);
        Box::pin(async { done })
    }

    fn audit(&self, entry: AuditEntry) -> BoxFuture<'_, ()> {
        self.records.lock().unwrap().push(entry);
        Box::pin(async {})
    }

    fn register(&self, new: Registration) -> BoxFuture<'_, Result<Registered, Refusal>> {
        let (tenant, name) = (new.tenant.to_string(), new.name.to_string());
        let mut agents = self.agents.lock().unwrap();
        let found = agents.iter().find(|(t, n, _)| *t == tenant && *n == name).map(|(_, _, m)| m.clone());
        let done = match found {
            Some(manifest) if manifest == new.manifest => {
                Ok(Registered { id: "id-new".to_owned(), created: false })
            }
            Some(_) => Err(Refusal::new(Reason::Conflict, ErrorCode::NameTaken, "another manifest")),
            None => {
                agents.push((tenant, name, new.manifest));
                Ok(Registered { id: "id-new".to_owned(), created: true })
            }
        };
        Box::pin(async move { done })
    }

    fn heartbeat(&self, _: &TenantId, _: &AgentName) -> Result<(), Refusal> {
        Ok(())
    }

    fn submit(&self, _: TenantId, task: Value) -> BoxFuture<'_, Result<Value, Refusal>> {
        Box::pin(async move { Ok(task) })
    }
}

const TOOL: &str = "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: web_search, version: \"1.2.0\"}\nspec:\n  \
    entry: exec:bin/search\n  io: {input: {schema: \"query:string\"}, output: {schema: \"items:list\"}}\n  \
    capabilities_required: [network]\n  price: 0.01\n";

struct World {
    _dir: tempfile::TempDir,
    kernel: Kernel,
    fake: Arc<Fake>,
    caller: Caller,
}

fn manifest(network: bool, more: &str) -> String {
    format!(
        "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: researcher}}\nspec:\n  entry: x\n  \
         capabilities: {{network: {network}}}\n  syscalls: [tool.invoke, \"memory.*\"]\n{more}"
    )
}

impl World {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(policy: Option<Arc<CapabilityPolicy>>) -> Self {
        Self::guarded(policy, Arc::default(), "").await
    }

    /// The same where things must be signed, with the signature of the tool that is there.
    async fn guarded(
        policy: Option<Arc<CapabilityPolicy>>,
        guard: Arc<aion_signing::Guard>,
        signature: &str,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("db"), StoreOptions::default()).unwrap());
        let fake = Arc::new(Fake::default());
        let options = Options {
            state: dir.path().to_owned(),
            state_absolute: dir.path().to_owned(),
            manifests: Context::builtin(),
            classes: Arc::new(Classes::builtin()),
            policy,
            offline: false,
            wasm_runner: "/usr/libexec/aion/aion-wasm".into(),
            spans: aion_telemetry::Spans::default(),
            signatures: guard,
        };
        let kernel = Kernel::open(options, store, Arc::clone(&fake) as Arc<dyn Host>).unwrap();
        let tenant = TenantId::parse("tenantA").unwrap();
        let secret = Secret::new(vec![7; 32]);
        kernel.tenants().add(&tenant, secret, Settings::default(), 0).unwrap();
        let search =
            ToolFileData { path: "bin/search".to_owned(), executable: true, data: b"#!/bin/sh".to_vec() };
        kernel
            .install_tool(None, TOOL.into(), "tool.yml".to_owned(), vec![search], signature.to_owned())
            .await
            .unwrap();
        for (name, network, more) in [
            ("a", true, ""),
            ("offline", false, ""),
            ("poor", true, "  policy_overrides: {budget: {usd_max: 0.001}}\n"),
        ] {
            fake.agents.lock().unwrap().push((
                "tenantA".to_owned(),
                name.to_owned(),
                manifest(network, more),
            ));
        }
        let caller = Caller::Tenant(kernel.tenants().get(&tenant).unwrap());
        Self { _dir: dir, kernel, fake, caller }
    }

    async fn call(&self, agent: &str, syscall: &str, params: Value) -> Outcome {
        self.call_with(
            json!({"agent_id": format!("agent://tenantA/{agent}"), "syscall": syscall, "params": params}),
        )
        .await
    }

    async fn call_with(&self, body: Value) -> Outcome {
        let request = Request::from_value(body, None).unwrap();
        self.kernel.invoke(self.caller.clone(), request).await
    }

    async fn code(&self, agent: &str, syscall: &str, params: Value) -> String {
        let outcome = self.call(agent, syscall, params).await;
        outcome.answer.error.map_or_else(|| "ok".to_owned(), |error| error.code)
    }
}

#[tokio::test]
async fn a_tool_answers_and_the_call_is_recorded_and_explained() {
    let world = World::new().await;
    let outcome = world.call("a", "tool.invoke", json!({"tool": "web_search", "query": "x"})).await;
    let answer = outcome.answer;
    assert_eq!((answer.status, &answer.result), (Status::Ok, &json!({"items": ["x"]})));
    assert_eq!(answer.engine.name, "tooling/web_search@1.2.0");
    assert!((answer.usage.cost_usd - 0.01).abs() < 1e-9);
    assert!(answer.audit_id.starts_with("sc-"));
    let record = world.fake.records.lock().unwrap().last().cloned().unwrap();
    let detail: Value = serde_json::from_str(&record.detail_json).unwrap();
    assert_eq!((record.verdict, detail["audit_id"].as_str()), ("allowed", Some(answer.audit_id.as_str())));
    let row = world.kernel.explain(None, answer.audit_id.clone()).await.unwrap();
    assert!(row.decision.unwrap().steps.len() >= 3);
    assert_eq!(row.target, "web_search");
    let other = TenantId::parse("other").unwrap();
    assert!(world.kernel.explain(Some(other), answer.audit_id).await.is_err());
}

#[tokio::test]
async fn without_the_network_no_tool_that_requires_it() {
    let world = World::new().await;
    let outcome = world.call("offline", "tool.invoke", json!({"tool": "web_search", "query": "x"})).await;
    let error = outcome.answer.error.unwrap();
    assert_eq!((outcome.answer.status, error.code.as_str()), (Status::Denied, "POLICY_DENIED"));
    assert!(error.rule.contains("agent://tenantA/offline"), "{}", error.rule);
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0);
    let record = world.fake.records.lock().unwrap().last().cloned().unwrap();
    assert_eq!(record.verdict, "denied");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_code() {
    let world = World::new().await;
    let search = |query: &str| json!({"tool": "web_search", "query": query});
    assert_eq!(world.code("a", "tool.invoke", search("fail")).await, "TOOL_FAILED");
    assert_eq!(world.code("a", "tool.invoke", search("text")).await, "TOOL_FAILED");
    assert_eq!(world.code("a", "tool.invoke", search("form")).await, "TOOL_FAILED");
    assert_eq!(world.code("a", "tool.invoke", json!({"tool": "web_search"})).await, "INVALID_FIELD");
    assert_eq!(world.code("a", "tool.invoke", json!({"tool": "none"})).await, "TOOL_NOT_FOUND");
    assert_eq!(world.code("a", "tool.invoke", json!({})).await, "INVALID_FIELD");
    assert_eq!(world.code("nobody", "memory.get", json!({"key": "x"})).await, "AGENT_NOT_FOUND");
    assert_eq!(world.code("a", "memory.get", json!({"key": "x"})).await, "KEY_NOT_FOUND");
    assert_eq!(world.code("a", "no.such", json!({})).await, "SYSCALL_UNKNOWN");
    let foreign = world.call_with(json!({"agent_id": "agent://tenantB/a", "syscall": "memory.get"})).await;
    assert_eq!(foreign.answer.error.unwrap().code, "PERMISSION_DENIED");
    assert_eq!(foreign.refusal.unwrap().reason, Reason::Denied);
}

#[tokio::test]
async fn a_call_ends_with_its_time() {
    let world = World::new().await;
    let began = Instant::now();
    let outcome = world
        .call_with(json!({
            "agent_id": "agent://tenantA/a", "syscall": "tool.invoke",
            "params": {"tool": "web_search", "query": "slow"}, "budget": {"latency_ms": 50}
        }))
        .await;
    assert_eq!(outcome.answer.error.unwrap().code, "DEADLINE_EXCEEDED");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn budgets_of_a_call_an_agent_and_a_tenant_hold() {
    let world = World::new().await;
    let params = json!({"tool": "web_search", "query": "x"});
    let over = world
        .call_with(json!({"agent_id": "agent://tenantA/a", "syscall": "tool.invoke", "params": params, "budget": {"usd_max": 0.005}}))
        .await;
    assert_eq!(over.answer.error.unwrap().code, "BUDGET_EXCEEDED");
    assert_eq!(world.code("poor", "tool.invoke", params.clone()).await, "BUDGET_EXCEEDED");
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0);
    // 64 at once on a budget for three and a half calls: at most one call more than it allows.
    world.fake.limits.lock().unwrap().agent.usd_micros = Some(35_000);
    let pause = json!({"tool": "web_search", "query": "pause"});
    let calls = (0..64).map(|_| world.code("a", "tool.invoke", pause.clone()));
    let codes = futures::future::join_all(calls).await;
    assert_eq!(codes.iter().filter(|code| *code == "ok").count(), 4);
    assert!(codes.iter().all(|code| code == "ok" || code == "BUDGET_EXCEEDED"));
    let rows = world.kernel.usage(None).await.unwrap();
    assert!(
        rows.iter().any(|row| row.kind == "agent" && row.name == "a" && row.usd_micros == 40_000),
        "{rows:?}"
    );
    assert_eq!(
        world.code("a", "memory.put", json!({"key": "k", "value": 1})).await,
        "ok",
        "what is free goes on"
    );
}

#[tokio::test]
async fn memories_are_private_typed_and_bounded() {
    let world = World::new().await;
    for i in 0..5 {
        let params =
            json!({"type": "long", "key": format!("k/{i}"), "value": {"n": i}, "meta": {"odd": i % 2 == 1}});
        assert_eq!(world.code("a", "memory.put", params).await, "ok");
    }
    let got = world.call("a", "memory.get", json!({"type": "long", "key": "k/3"})).await.answer;
    assert_eq!(got.result["value"], json!({"n": 3}));
    assert_eq!(world.code("a", "memory.get", json!({"type": "short", "key": "k/3"})).await, "KEY_NOT_FOUND");
    assert_eq!(
        world.code("offline", "memory.get", json!({"type": "long", "key": "k/3"})).await,
        "KEY_NOT_FOUND"
    );
    let odd = json!({"type": "long", "filter": {"odd": true, "key_prefix": "k/", "tenant": "tenantA"}});
    let found = world.call("a", "memory.query", odd).await.answer.result;
    assert_eq!(found["items"].as_array().unwrap().len(), 2);
    let first = world.call("a", "memory.query", json!({"type": "long", "limit": 2})).await.answer.result;
    assert_eq!(first["next"], json!("k/1"));
    let rest = world.call("a", "memory.query", json!({"type": "long", "after": "k/1"})).await.answer.result;
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (3, &Value::Null));
    let other = json!({"type": "long", "filter": {"agent": "agent://tenantA/offline"}});
    assert_eq!(world.code("a", "memory.query", other).await, "POLICY_DENIED");
    assert_eq!(world.code("a", "memory.delete", json!({"type": "long", "key": "k/3"})).await, "ok");
    assert_eq!(world.code("a", "memory.get", json!({"type": "long", "key": "k/3"})).await, "KEY_NOT_FOUND");
    for (params, code) in [
        (json!({"key": "", "value": 1}), "INVALID_FIELD"),
        (json!({"key": "x"}), "INVALID_FIELD"),
        (json!({"key": "x", "value": 1, "type": "eternal"}), "INVALID_FIELD"),
        (json!({"key": "x", "value": 1, "ttl_s": 0}), "INVALID_FIELD"),
        (json!({"key": "x", "value": 1, "valeu": 1}), "INVALID_FIELD"),
        (json!({"key": "x", "value": "y".repeat(memory::MAX_VALUE)}), "TOO_LARGE"),
    ] {
        assert_eq!(world.code("a", "memory.put", params.clone()).await, code, "{params}");
    }
}

#[tokio::test]
async fn agents_are_registered_once_and_for_their_own_tenant() {
    let world = World::new().await;
    let body = json!({"agent_id": "agent://tenantA/new", "name": "new", "version": "1.0.0", "capabilities": ["network"]});
    let made = world.kernel.register(&world.caller, &body).await.unwrap();
    assert_eq!(made["created"], json!(true));
    assert_eq!(world.kernel.register(&world.caller, &body).await.unwrap()["created"], json!(false));
    assert_eq!(world.code("new", "tool.invoke", json!({"tool": "web_search", "query": "x"})).await, "ok");
    let foreign = json!({"agent_id": "agent://tenantB/new"});
    assert_eq!(
        world.kernel.register(&world.caller, &foreign).await.unwrap_err().code,
        ErrorCode::PermissionDenied
    );
    assert_eq!(
        world.kernel.heartbeat(&world.caller, &foreign).unwrap_err().code,
        ErrorCode::PermissionDenied
    );
    world.kernel.heartbeat(&world.caller, &body).unwrap();
    assert!(
        world.kernel.metrics_text().contains("aion_agent_heartbeats{tenant=\"tenantA\",agent=\"new\"} 1")
    );
}

#[tokio::test]
async fn a_tenant_s_own_tool_comes_first_and_its_files_must_be_its_own() {
    let world = World::new().await;
    let tenant = TenantId::parse("tenantA").unwrap();
    let own = TOOL.replace("1.2.0", "9.0.0");
    let file = |path: &str| ToolFileData { path: path.to_owned(), executable: true, data: b"x".to_vec() };
    let install = |files| {
        world.kernel.install_tool(
            Some(tenant.clone()),
            own.clone().into_bytes(),
            "tool.yml".to_owned(),
            files,
            String::new(),
        )
    };
    for files in [
        vec![],
        vec![file("bin/other")],
        vec![file("bin/search"), file("../../etc/x")],
        vec![file("bin/search"), file("bin/search")],
    ] {
        assert!(install(files).await.is_err());
    }
    install(vec![file("bin/search")]).await.unwrap();
    let answer = world.call("a", "tool.invoke", json!({"tool": "web_search", "query": "x"})).await.answer;
    assert_eq!(answer.engine.name, "tooling/web_search@9.0.0");
    assert_eq!(world.kernel.tools(&tenant).len(), 1);
    world.kernel.remove_tool(Some(tenant.clone()), "web_search".to_owned()).await.unwrap();
    let answer = world.call("a", "tool.invoke", json!({"tool": "web_search", "query": "x"})).await.answer;
    assert_eq!(answer.engine.name, "tooling/web_search@1.2.0");
}

#[tokio::test]
async fn an_agent_of_a_revoked_tenant_may_do_nothing() {
    let world = World::new().await;
    let tenant = TenantId::parse("tenantA").unwrap();
    let name = AgentName::parse("a").unwrap();
    let caller = Caller::Agent { tenant: tenant.clone(), name, task: None };
    let ask = || Request::from_value(json!({"syscall": "tool.list"}), None).unwrap();
    world.fake.agents.lock().unwrap()[0].2 = manifest(true, "").replace("tool.invoke", "\"tool.*\"");
    assert_eq!(world.kernel.invoke(caller.clone(), ask()).await.answer.status, Status::Ok);
    world.kernel.tenants().revoke(&tenant).unwrap();
    let denied = world.kernel.invoke(caller, ask()).await.answer;
    assert_eq!(denied.status, Status::Denied);
    assert_eq!(denied.error.unwrap().rule, "tenant tenantA: it was revoked");
}

#[tokio::test]
async fn who_is_not_let_in_is_recorded() {
    let world = World::new().await;
    world.kernel.turned_away("tenantA", "mismatch");
    world.kernel.turned_away("a-secret-in-the-wrong-header", "mismatch");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let records = world.fake.records.lock().unwrap();
    let record = records.iter().find(|record| record.kind == "api.unauthenticated").unwrap();
    assert_eq!(
        (record.rule.as_str(), record.verdict, record.tenant.as_str()),
        ("door:mismatch", "denied", "")
    );
    assert_eq!(record.detail_json, r#"{"claimed":"tenantA"}"#);
    assert!(!records.iter().any(|record| record.detail_json.contains("secret")), "{records:?}");
}

#[tokio::test]
async fn what_cannot_be_read_has_an_audit_id_too() {
    let world = World::new().await;
    let refusal = Refusal::field("body", "it is not JSON");
    let outcome = world.kernel.refused(&world.caller, "tool.invoke", refusal).await;
    let row = world.kernel.explain(None, outcome.answer.audit_id).await.unwrap();
    assert_eq!((row.syscall.as_str(), row.status, row.decision), ("tool.invoke", Status::Error, None));
}

#[path = "fetch_tests.rs"]
mod fetch;
