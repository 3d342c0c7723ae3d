//! agent.*: messages between agents of one tenant.

use super::*;

fn agent(world: &World, tenant: &str, name: &str, capabilities: &Value) {
    let manifest = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": name},
        "spec": {"entry": "x", "syscalls": ["agent.*"], "capabilities": capabilities}
    });
    world.fake.agents.lock().unwrap().push((tenant.to_owned(), name.to_owned(), manifest.to_string()));
}

/// Agents who may send to all, to one, and to nobody.
async fn world() -> World {
    let world = World::new().await;
    world.fake.agents.lock().unwrap().clear();
    agent(&world, "tenantA", "all", &json!([]));
    agent(&world, "tenantA", "one", &json!(["agent:send:all"]));
    agent(&world, "tenantA", "none", &json!({"deny": ["agent:send:*"]}));
    agent(&world, "tenantB", "all", &json!([]));
    agent(&world, "tenantB", "other", &json!([]));
    world
}

async fn good(world: &World, agent: &str, call: &str, params: Value) -> Value {
    let answer = world.call(agent, call, params).await.answer;
    assert_eq!(answer.status, Status::Ok, "{answer:?}");
    answer.result
}

async fn bodies(world: &World, agent: &str, params: Value) -> Vec<Value> {
    let got = good(world, agent, "agent.receive", params).await;
    got["messages"].as_array().unwrap().iter().map(|message| message["body"].clone()).collect()
}

#[tokio::test]
async fn a_message_waits_until_its_receiver_has_it() {
    let world = world().await;
    for n in 0..3 {
        good(&world, "all", "agent.send", json!({"to": "one", "body": {"n": n}})).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let got = good(&world, "one", "agent.receive", json!({"limit": 2})).await;
    let first = &got["messages"][0];
    assert_eq!((&first["from"], &first["body"]), (&json!("agent://tenantA/all"), &json!({"n": 0})));
    assert_eq!(got["messages"].as_array().unwrap().len(), 2);
    // Again, until it is said that they have come; and nobody else's.
    assert_eq!(bodies(&world, "one", json!({})).await.len(), 3);
    let ids: Vec<_> =
        got["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect();
    assert!(bodies(&world, "none", json!({"ack": ids})).await.is_empty());
    assert_eq!(bodies(&world, "one", json!({"ack": ids})).await, [json!({"n": 2})]);
    assert_eq!(bodies(&world, "one", json!({})).await, [json!({"n": 2})]);
}

#[tokio::test]
async fn who_may_send_to_whom_is_said_by_capabilities_within_the_tenant() {
    let world = world().await;
    let send = |from: &'static str, to: &str| world.call(from, "agent.send", json!({"to": to, "body": 1}));
    assert_eq!(send("one", "agent://tenantA/all").await.answer.status, Status::Ok);
    let denied = send("one", "none").await.answer.error.unwrap();
    assert_eq!(denied.rule, "agent://tenantA/one: spec.capabilities grants no agent:send:none");
    let denied = send("none", "all").await.answer.error.unwrap();
    assert_eq!((denied.code.as_str(), denied.rule.contains("deny agent:send:*")), ("POLICY_DENIED", true));
    for to in ["agent://tenantB/all", "agent://tenantB/other"] {
        let denied = send("all", to).await.answer.error.unwrap();
        assert_eq!((denied.code.as_str(), denied.field.as_str()), ("POLICY_DENIED", "params.to"));
    }
    assert_eq!(world.code("all", "agent.send", json!({"to": "other", "body": 1})).await, "AGENT_NOT_FOUND");
    let seen = |from: &'static str| async {
        let list = good(&world, from, "agent.list", json!({})).await;
        let names = list["items"].as_array().unwrap().iter();
        names.map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen("all").await, ["all", "one", "none"]);
    assert_eq!(seen("one").await, ["all", "one"]);
    assert_eq!(seen("none").await, ["none"]);
    let first = good(&world, "all", "agent.list", json!({"limit": 2})).await;
    assert_eq!((first["items"].as_array().unwrap().len(), &first["next"]), (2, &json!("2")));
    for (call, params, field) in [
        ("agent.send", json!({"body": 1}), "params.to"),
        ("agent.send", json!({"to": "a b", "body": 1}), "params.to"),
        ("agent.send", json!({"to": "*", "body": 1}), "params.to"),
        ("agent.send", json!({"to": "one"}), "params.body"),
        ("agent.send", json!({"to": "one", "body": 1, "ttl_s": 0}), "params.ttl_s"),
        ("agent.send", json!({"to": "one", "body": 1, "from": "x"}), "params.from"),
        ("agent.receive", json!({"wait_ms": 60_001}), "params.wait_ms"),
        ("agent.receive", json!({"limit": 0}), "params.limit"),
        ("agent.receive", json!({"ack": "x"}), "params.ack"),
        ("agent.receive", json!({"ack": ["a/../b"]}), "params.ack"),
        ("agent.list", json!({"to": "x"}), "params.to"),
    ] {
        let error = world.call("all", call, params.clone()).await.answer.error.unwrap();
        assert_eq!((error.code.as_str(), error.field.as_str()), ("INVALID_FIELD", field), "{call} {params}");
    }
}

#[tokio::test]
async fn an_inbox_is_bounded_and_nobody_fills_it_alone() {
    let world = world().await;
    let send = |from: &'static str, body: Value| {
        let params = json!({"to": "all", "body": body});
        world.code(from, "agent.send", params)
    };
    for n in 0..64 {
        assert_eq!(send("one", json!(n)).await, "ok");
    }
    assert_eq!(send("one", json!(64)).await, "QUOTA_EXCEEDED");
    assert_eq!(send("all", json!("another")).await, "ok");
    let large = "y".repeat(60 << 10);
    assert_eq!(send("all", json!("y".repeat(64 << 10))).await, "TOO_LARGE");
    let mut taken = 0;
    while send("all", json!(large)).await == "ok" {
        taken += 1;
        assert!(taken < 64);
    }
    assert_eq!(taken, 63, "its own 64 with the small one");
    let got = good(&world, "all", "agent.receive", json!({"limit": 100})).await;
    let ids: Vec<_> =
        got["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect();
    good(&world, "all", "agent.receive", json!({"ack": ids})).await;
    assert_eq!(send("one", json!(64)).await, "ok", "there is room again");
}

#[tokio::test]
async fn messages_end_with_their_time_and_with_the_registration() {
    let world = world().await;
    good(&world, "all", "agent.send", json!({"to": "one", "body": "short", "ttl_s": 1})).await;
    good(&world, "all", "agent.send", json!({"to": "one", "body": "long"})).await;
    assert_eq!(bodies(&world, "one", json!({})).await.len(), 2);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(bodies(&world, "one", json!({})).await, ["long"]);
    // Another agent under the same name has another id.
    world.fake.agents.lock().unwrap().insert(0, ("t".to_owned(), "n".to_owned(), String::new()));
    assert!(bodies(&world, "one", json!({})).await.is_empty());
}

#[tokio::test]
async fn who_waits_is_told_at_once() {
    let world = world().await;
    let wait = |agent: &str, ms: u64| {
        let body = json!({
            "agent_id": format!("agent://tenantA/{agent}"), "syscall": "agent.receive", "params": {"wait_ms": ms},
        });
        let (kernel, caller) = (world.kernel.clone(), world.caller.clone());
        let request = Request::from_value(body, None).unwrap();
        tokio::spawn(async move { kernel.invoke(caller, request).await.answer })
    };
    let begun = Instant::now();
    assert_eq!(wait("one", 200).await.unwrap().result["messages"], json!([]));
    assert!(begun.elapsed() >= Duration::from_millis(200));
    let begun = Instant::now();
    let waits = wait("one", 30_000);
    tokio::time::sleep(Duration::from_millis(100)).await;
    good(&world, "all", "agent.send", json!({"to": "none", "body": "not for it"})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waits.is_finished());
    good(&world, "all", "agent.send", json!({"to": "one", "body": "now"})).await;
    assert_eq!(waits.await.unwrap().result["messages"][0]["body"], "now");
    assert!(begun.elapsed() < Duration::from_secs(20));
    // So many at once, of one agent; and none when the daemon stops.
    let many: Vec<_> = (0..6).map(|_| wait("all", 30_000)).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(many.iter().filter(|call| call.is_finished()).count(), 2);
    world.kernel.stop_waiting();
    let mut codes = Vec::new();
    for call in many {
        codes.push(call.await.unwrap().error.map_or_else(|| "ok".to_owned(), |error| error.code));
    }
    assert_eq!(codes.iter().filter(|code| *code == "RESOURCE_EXHAUSTED").count(), 2, "{codes:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}
