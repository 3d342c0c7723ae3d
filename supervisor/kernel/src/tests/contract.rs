//! What the HTTP contract shows: tasks in a call's context, quotas, registrations, and what a tool must come with.

use super::*;
use crate::tools::ToolOverview;

fn invoke(task: &str) -> Value {
    json!({"agent_id": "agent://tenantA/a", "syscall": "tool.invoke", "context": {"task_id": task},
        "params": {"tool": "web_search", "query": "x"}})
}

impl World {
    fn task(&self, id: &str, agent: &str, limits: TaskLimits) {
        self.fake.tasks.lock().unwrap().push((id.to_owned(), agent.to_owned(), limits));
    }

    async fn done(&self, body: Value) -> Result<(), Refusal> {
        self.call_with(body).await.refusal.map_or(Ok(()), Err)
    }
}

#[tokio::test]
async fn a_call_is_for_a_task_of_its_own_agent() {
    let world = World::new().await;
    world.task("own", "a", TaskLimits::default());
    world.task("other", "offline", TaskLimits::default());
    // The contract's sample client sends an empty context; others have tasks that AION knows nothing of.
    for fine in ["", "own", "t-123"] {
        world.done(invoke(fine)).await.unwrap();
    }
    let runs = world.fake.runs.load(Ordering::SeqCst);
    let outcome = world.call_with(invoke("other")).await;
    let refusal = outcome.refusal.unwrap();
    assert_eq!((refusal.code, refusal.reason), (ErrorCode::PermissionDenied, Reason::Denied));
    assert_eq!(refusal.field, "context.task_id");
    assert!(!refusal.hint.is_empty() && refusal.message.contains("\"other\""), "{refusal:?}");
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), runs, "nothing was done");
    let told = world.kernel.explain(None, outcome.answer.audit_id).await.unwrap();
    let last = told.decision.unwrap().steps.pop().unwrap();
    assert_eq!((last.about.as_str(), last.allowed), ("context.task_id", false));
}

#[tokio::test]
async fn a_task_s_and_an_agent_s_hour_are_kept() {
    let world = World::new().await;
    let all = Default::default();
    world.task("poor", "a", TaskLimits { usd_micros_per_hour: Some(10_000), token_rate: None, all });
    world.done(invoke("poor")).await.unwrap();
    let refusal = world.done(invoke("poor")).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::BudgetExceeded);
    assert!(
        refusal.rule.contains("task poor, this hour") && refusal.retry_after_ms > Some(3_000_000),
        "{refusal:?}"
    );
    world.done(invoke("")).await.unwrap();
    // A process that was started for the task is not let out of it, whatever it says.
    let task = Some("poor".to_owned());
    let caller = Caller::Agent {
        tenant: TenantId::parse("tenantA").unwrap(),
        name: AgentName::parse("a").unwrap(),
        task,
    };
    for said in ["", "t-123", "poor"] {
        let call = Request::from_value(invoke(said), None).unwrap();
        let refusal = world.kernel.invoke(caller.clone(), call).await.refusal.unwrap();
        assert_eq!(refusal.code, ErrorCode::BudgetExceeded, "{said}");
    }

    let limited = manifest(true, "  quota: {usd_per_hour: 0.01, token_rate: 5}\n");
    world.fake.agents.lock().unwrap().push(("tenantA".to_owned(), "limited".to_owned(), limited));
    let call = json!({"tool": "web_search", "query": "x"});
    assert_eq!(world.code("limited", "tool.invoke", call.clone()).await, "ok");
    assert_eq!(world.code("limited", "tool.invoke", call).await, "BUDGET_EXCEEDED");
}

#[tokio::test]
async fn who_is_there_is_registered_again_with_the_same_manifest_alone() {
    let world = World::new().await;
    let body = |more: Value| {
        let mut body = json!({"agent_id": "agent://tenantA/new"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let register = async |more: Value| world.kernel.register(&world.caller, &body(more)).await;
    let first = json!({"version": "1.0.0", "capabilities": {"network": true}, "limits": {"mem": "64Mi"}});
    assert_eq!(register(first.clone()).await.unwrap()["created"], json!(true));
    assert_eq!(register(first).await.unwrap()["created"], json!(false));
    assert_eq!(register(json!({})).await.unwrap()["created"], json!(false), "it says nothing of itself");
    for other in [json!({"version": "2.0.0"}), json!({"manifest": manifest(true, "")})] {
        let refusal = register(other.clone()).await.expect_err(&other.to_string());
        assert_eq!((refusal.code, refusal.reason), (ErrorCode::NameTaken, Reason::Conflict), "{other}");
    }
    // An operator's agent is not another one for a client that brings no manifest.
    let of_operator = json!({"agent_id": "agent://tenantA/a", "version": "9"});
    assert_eq!(world.kernel.register(&world.caller, &of_operator).await.unwrap()["created"], json!(false));
}

#[tokio::test]
async fn who_has_a_tenant_s_name_next_finds_none_of_its_memories() {
    let world = World::new().await;
    let call = |agent: Option<&str>, syscall: &str, params: Value| {
        let mut body = json!({"syscall": syscall, "params": params});
        body.as_object_mut().unwrap().extend(agent.map(|agent| ("agent_id".to_owned(), json!(agent))));
        body
    };
    let put = json!({"type": "long", "key": "k", "value": 1});
    let get = json!({"type": "long", "key": "k"});
    for agent in [None, Some("agent://tenantA/a")] {
        world.done(call(agent, "memory.put", put.clone())).await.unwrap();
        world.done(call(agent, "memory.get", get.clone())).await.unwrap();
    }
    world.kernel.forget_secrets(world.caller.tenant().clone()).await.unwrap();
    let gone = world.done(call(None, "memory.get", get.clone())).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::KeyNotFound);
    world.done(call(Some("agent://tenantA/a"), "memory.get", get)).await.unwrap();
}

async fn install(world: &World, data: &[u8]) -> Result<ToolOverview, Refusal> {
    let manifest =
        "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: m}\nspec: {entry: \"wasm:m.wasm\"}\n";
    let file = ToolFileData { path: "m.wasm".to_owned(), executable: false, data: data.to_vec() };
    world.kernel.install_tool(None, manifest.into(), "tool.yml".to_owned(), vec![file], String::new()).await
}

#[tokio::test]
async fn what_is_no_webassembly_is_not_installed() {
    let world = World::new().await;
    for good in [&b"\0asm\x01\0\0\0"[..], b"\0asm\x0d\0\x01\0 and more"] {
        install(&world, good).await.unwrap();
    }
    for (bad, told) in [
        (&b""[..], "it is empty"),
        (b"#!/bin/sh\n", "neither a WebAssembly module nor a component"),
        (b"\0asm", "version that is not run, or was cut off"),
        (b"\0asm\x02\0\0\0", "version that is not run"),
        (b" (module)", "the text form"),
    ] {
        let refusal = install(&world, bad).await.unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_str()), (ErrorCode::InvalidField, "spec.entry"));
        assert!(
            refusal.message.starts_with("wasm:m.wasm: ") && refusal.message.contains(told),
            "{refusal:?}"
        );
        assert!(refusal.hint.contains("aion-wasm check"), "{refusal:?}");
    }
    let missing = world.call("a", "tool.invoke", json!({"tool": "none"})).await.refusal.unwrap();
    assert!(missing.hint.contains("aionctl tool ls") && missing.hint.contains("aionctl tool install"));
}
