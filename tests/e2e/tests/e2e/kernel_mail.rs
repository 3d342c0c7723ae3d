//! agent.list, agent.send and agent.receive between agents of one tenant, over a crash of the daemon.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kernel::{Reply, World};

fn call(world: &World, agent: &str, call: &str, params: Value) -> Reply {
    let body = json!({"agent_id": format!("agent://tenantA/{agent}"), "params": params});
    world.signed(&format!("/v1/syscall/agent.{call}"), &body)
}

fn good(world: &World, agent: &str, name: &str, params: Value) -> Value {
    let (number, answer) = call(world, agent, name, params);
    assert_eq!(number, 200, "{answer}");
    answer["result"].clone()
}

pub(crate) fn messages_stay_in_their_tenant_and_survive_a_crash() {
    let mut world = World::start();
    let agents = [
        ("tenantA", "boss", json!([])),
        ("tenantA", "worker-1", json!(["agent:send:boss"])),
        ("tenantB", "stranger", json!([])),
    ];
    for (tenant, name, capabilities) in agents {
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": name},
            "spec": {"entry": "true", "capabilities": capabilities, "syscalls": ["agent.*"]}
        });
        let apply = world.daemons.ctl(["apply", "-f", "-", "--tenant", tenant, "--as", name]);
        apply.stdin(manifest.to_string()).ok();
    }
    let seen = |agent: &str| good(&world, agent, "list", json!({})).to_string();
    assert!(seen("boss").contains("worker-1") && seen("boss").contains("researcher-1"));
    assert!(!seen("boss").contains("stranger") && !seen("worker-1").contains("researcher-1"));
    for (from, to, code) in [
        ("boss", "agent://tenantB/stranger", "POLICY_DENIED"),
        ("boss", "stranger", "AGENT_NOT_FOUND"),
        ("worker-1", "researcher-1", "POLICY_DENIED"),
    ] {
        let (_, answer) = call(&world, from, "send", json!({"to": to, "body": "x"}));
        assert_eq!(answer["error"]["code"], code, "{from} to {to}: {answer}");
    }
    let sent = good(&world, "boss", "send", json!({"to": "worker-1", "body": {"do": "it"}}));
    world.restart();
    let got = good(&world, "worker-1", "receive", json!({}));
    let message = &got["messages"][0];
    assert_eq!((&message["id"], &message["from"]), (&sent["id"], &json!("agent://tenantA/boss")), "{got}");
    assert_eq!(message["body"], json!({"do": "it"}));
    // An answer comes while it is waited for.
    thread::scope(|scope| {
        let begun = Instant::now();
        let waits = scope.spawn(|| good(&world, "boss", "receive", json!({"wait_ms": 50_000})));
        thread::sleep(Duration::from_millis(300));
        good(&world, "worker-1", "receive", json!({"ack": [message["id"]]}));
        good(&world, "worker-1", "send", json!({"to": "boss", "body": "done"}));
        assert_eq!(waits.join().unwrap()["messages"][0]["body"], "done");
        assert!(begun.elapsed() < Duration::from_secs(30));
    });
    world.restart();
    assert_eq!(good(&world, "worker-1", "receive", json!({}))["messages"], json!([]), "it had it");
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}
