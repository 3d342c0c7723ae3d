//! Calls that wait for a person.

use super::*;
use crate::approvals::Answered;

const POLICY: &str = "apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow:\n  - network\n  - tool:*\n  - memory:*\napproval:\n  \
    - tool:web_search\n  - memory.delete\n";

async fn world() -> World {
    with_policy(POLICY).await
}

async fn with_policy(text: &str) -> World {
    let policy = CapabilityPolicy::parse(text.as_bytes(), "policy.yaml").unwrap();
    let world = World::with(Some(Arc::new(policy))).await;
    let own = manifest(true, "").replace("tool.invoke", "tool.invoke, approval.request");
    world.fake.agents.lock().unwrap()[0].2 = own;
    world
}

fn answer(approved: bool) -> Answered {
    Answered { approved, by: "unix:0".to_owned(), note: "because".to_owned() }
}

/// Begins a call, and waits until it waits.
async fn waiting(world: &World, syscall: &str, params: Value) -> (tokio::task::JoinHandle<Outcome>, String) {
    let body = json!({"agent_id": "agent://tenantA/a", "syscall": syscall, "params": params});
    let request = Request::from_value(body, None).unwrap();
    let (kernel, caller) = (world.kernel.clone(), world.caller.clone());
    let call = tokio::spawn(async move { kernel.invoke(caller, request).await });
    for _ in 0..1000 {
        if let [one] = world.kernel.approvals(None).as_slice() {
            return (call, one.id.clone());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it waits for nobody");
}

#[tokio::test]
async fn an_agent_asks_and_is_answered() {
    let world = world().await;
    let params = json!({"reason": "may I deploy?", "subject": {"version": 3}});
    let (call, id) = waiting(&world, "approval.request", params).await;
    let listed = world.kernel.approvals(None).remove(0);
    assert_eq!((listed.reason.as_str(), listed.subject), ("may I deploy?", json!({"version": 3})));
    assert!(world.kernel.approvals(Some(&TenantId::parse("tenantB").unwrap())).is_empty());
    world.kernel.answer(&id, answer(true)).unwrap();
    let answered = call.await.unwrap().answer;
    assert_eq!(
        answered.result,
        json!({"approved": true, "by": "unix:0", "note": "because", "approval_id": answered.audit_id})
    );
    assert_eq!(world.kernel.answer(&id, answer(true)).unwrap_err().code, ErrorCode::ApprovalNotFound);
    let kinds: Vec<_> = world.fake.records.lock().unwrap().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, ["api.approval.requested", "api.approval.answered", "api.syscall"]);
    let (call, id) = waiting(&world, "approval.request", json!({"reason": "and now?"})).await;
    world.kernel.answer(&id, answer(false)).unwrap();
    assert_eq!(call.await.unwrap().answer.result["approved"], false, "a no is an answer, too");
}

#[tokio::test]
async fn a_rule_has_a_person_asked_first() {
    let world = world().await;
    let params = json!({"tool": "web_search", "query": "x"});
    let (call, id) = waiting(&world, "tool.invoke", params.clone()).await;
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0, "nothing is done before");
    world.kernel.answer(&id, answer(false)).unwrap();
    let denied = call.await.unwrap().answer;
    let error = denied.error.unwrap();
    assert_eq!(denied.status, Status::Denied);
    assert_eq!(error.rule, "policy.yaml:8: approval tool:web_search: denied by unix:0: because");
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0);
    let (call, id) = waiting(&world, "tool.invoke", params).await;
    world.kernel.answer(&id, answer(true)).unwrap();
    let done = call.await.unwrap().answer;
    assert_eq!((done.status, world.fake.runs.load(Ordering::SeqCst)), (Status::Ok, 1));
    let steps = world.kernel.explain(None, done.audit_id).await.unwrap().decision.unwrap().steps;
    assert!(steps.iter().any(|step| step.layer == Layer::Approval && step.allowed));
    let (call, id) = waiting(&world, "memory.delete", json!({"key": "k"})).await;
    world.kernel.answer(&id, answer(true)).unwrap();
    assert_eq!(call.await.unwrap().answer.status, Status::Ok);
}

fn kinds(world: &World) -> Vec<(&'static str, &'static str)> {
    world.fake.records.lock().unwrap().iter().map(|record| (record.kind, record.verdict)).collect()
}

async fn until(world: &World, done: impl Fn(&World) -> bool) {
    for _ in 0..1000 {
        if done(world) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it did not come to that: {:?}", kinds(world));
}

#[tokio::test]
async fn a_yes_for_a_caller_who_has_gone_is_none() {
    let world = world().await;
    let (call, id) = waiting(&world, "tool.invoke", json!({"tool": "web_search", "query": "x"})).await;
    call.abort();
    until(&world, |world| world.kernel.approvals(None).is_empty()).await;
    assert_eq!(world.kernel.answer(&id, answer(true)).unwrap_err().code, ErrorCode::ApprovalNotFound);
    until(&world, |world| kinds(world).len() == 3).await;
    assert_eq!(
        kinds(&world),
        [("api.approval.requested", "allowed"), ("api.approval.ended", "denied"), ("api.syscall", "denied")]
    );
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_reader_of_a_stream_who_has_gone_is_a_caller_who_has_gone() {
    let world = world().await;
    let body =
        json!({"agent_id": "agent://tenantA/a", "syscall": "approval.request", "params": {"reason": "?"}});
    let (send, receive) = mpsc::channel(1);
    let call = {
        let (kernel, caller) = (world.kernel.clone(), world.caller.clone());
        let request = Request::from_value(body, None).unwrap();
        tokio::spawn(async move { kernel.invoke_stream(caller, request, send).await })
    };
    until(&world, |world| world.kernel.approvals(None).len() == 1).await;
    drop(receive);
    assert_eq!(call.await.unwrap().answer.status, Status::Denied);
}

#[tokio::test]
async fn what_waits_ends_with_the_daemon() {
    let world = world().await;
    let (call, _) = waiting(&world, "tool.invoke", json!({"tool": "web_search", "query": "x"})).await;
    world.kernel.stop_waiting();
    assert_eq!(call.await.unwrap().answer.error.unwrap().code, "DAEMON_UNAVAILABLE");
    assert_eq!(world.code("a", "approval.request", json!({"reason": "?"})).await, "DAEMON_UNAVAILABLE");
    assert!(kinds(&world).contains(&("api.approval.ended", "denied")));
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_denied_by_the_time_of_the_yes_is_not_done() {
    let world = world().await;
    let tenant = TenantId::parse("tenantA").unwrap();
    let params = json!({"tool": "web_search", "query": "x"});
    let (call, id) = waiting(&world, "tool.invoke", params.clone()).await;
    // Another registration under the same name has another id.
    world.fake.agents.lock().unwrap().insert(0, ("t".to_owned(), "n".to_owned(), String::new()));
    world.kernel.answer(&id, answer(true)).unwrap();
    let denied = call.await.unwrap().answer;
    assert!(denied.error.unwrap().message.contains("registered anew"));
    let (call, id) = waiting(&world, "tool.invoke", params).await;
    world.kernel.tenants().revoke(&tenant).unwrap();
    world.kernel.answer(&id, answer(true)).unwrap();
    let denied = call.await.unwrap().answer;
    assert_eq!(denied.error.unwrap().rule, "tenant tenantA: it was revoked");
    assert_eq!(world.fake.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_rule_about_all_asks_once_and_a_misspelt_one_is_refused() {
    let all = POLICY.replace("memory.delete", "\"*\"");
    let world = with_policy(&all).await;
    let (call, id) = waiting(&world, "approval.request", json!({"reason": "?"})).await;
    world.kernel.answer(&id, answer(true)).unwrap();
    assert_eq!(call.await.unwrap().answer.result["approved"], true);
    let (call, id) = waiting(&world, "memory.put", json!({"key": "k", "value": 1})).await;
    world.kernel.answer(&id, answer(true)).unwrap();
    assert_eq!(call.await.unwrap().answer.status, Status::Ok);
    for (wrong, why) in
        [("net.fecth", "no such system call"), ("memory.x.*", "neither"), ("netwerk", "network")]
    {
        let text = POLICY.replace("memory.delete", wrong);
        let said = match CapabilityPolicy::parse(text.as_bytes(), "policy.yaml") {
            Err(error) => error.to_string(),
            Ok(policy) => {
                crate::approvals::check(policy.approval(), &plan::SYSCALLS).unwrap_err().to_string()
            }
        };
        assert!(said.contains(why) && said.contains("policy.yaml"), "{wrong}: {said}");
    }
    CapabilityPolicy::parse(POLICY.replace("memory.delete", "network").as_bytes(), "p").unwrap();
}

#[tokio::test]
async fn what_is_long_is_shown_as_cut() {
    let world = world().await;
    let query = "y".repeat(10_000);
    let (_call, _) = waiting(&world, "tool.invoke", json!({"tool": "web_search", "query": query})).await;
    let subject = world.kernel.approvals(None).remove(0).subject;
    assert!(subject["bytes"].as_u64().unwrap() > 10_000, "{subject}");
    assert!(subject["cut"].as_str().unwrap().len() < 5000);
}

#[tokio::test]
async fn nobody_is_waited_for_for_ever() {
    let world = world().await;
    let body = json!({
        "agent_id": "agent://tenantA/a", "syscall": "approval.request", "params": {"reason": "?"},
        "budget": {"latency_ms": 50},
    });
    let late = world.call_with(body).await.answer;
    assert_eq!(late.error.unwrap().code, "DEADLINE_EXCEEDED");
    assert!(world.kernel.approvals(None).is_empty());
    assert!(kinds(&world).contains(&("api.approval.ended", "denied")));
    for params in [json!({}), json!({"reason": " "}), json!({"reason": 5}), json!({"reason": "x", "y": 1})] {
        assert_eq!(world.code("a", "approval.request", params).await, "INVALID_FIELD");
    }
}

#[tokio::test]
async fn an_agent_has_so_many_questions_and_no_more() {
    let world = world().await;
    let ask = |n: usize| {
        let (kernel, caller) = (world.kernel.clone(), world.caller.clone());
        let body = json!({
            "agent_id": "agent://tenantA/a", "syscall": "approval.request", "params": {"reason": n.to_string()},
            "budget": {"latency_ms": 400},
        });
        let request = Request::from_value(body, None).unwrap();
        tokio::spawn(async move { kernel.invoke(caller, request).await.answer.error.unwrap().code })
    };
    let calls: Vec<_> = (0..40).map(ask).collect();
    let mut refused = 0;
    for call in calls {
        refused += usize::from(call.await.unwrap() == "RESOURCE_EXHAUSTED");
    }
    assert_eq!(refused, 8);
}
