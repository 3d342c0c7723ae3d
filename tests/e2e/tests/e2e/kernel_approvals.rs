//! Calls that wait for a person: who answers them, and what ends them otherwise.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use aion_e2e::{Which, eventually, until};
use serde_json::{Value, json};

use crate::kernel::{AGENT, Reply, SECRET, World, signature};

const ASKER: &str = "agent://tenantA/asker-1";
const PATIENCE: Duration = Duration::from_secs(20);

/// A world whose operator wants to be asked before `web_search`, with an agent that may ask by itself.
fn world() -> World {
    let mut world = World::start();
    let state = world.daemons.state();
    let shipped = world.daemons.clone_dir().join("policies");
    fs::create_dir(state.join("policies")).unwrap();
    for file in fs::read_dir(shipped).unwrap().flatten().filter(|file| file.path().is_file()) {
        let mut text = fs::read_to_string(file.path()).unwrap();
        if file.file_name() == "agent.capabilities.yaml" {
            text.push_str("approval:\n  - tool:web_search\n");
        }
        fs::write(state.join("policies").join(file.file_name()), text).unwrap();
    }
    world.restart();
    let manifest = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "asker"},
        "spec": {"entry": "true", "syscalls": ["approval.request"]}
    });
    let apply = world.daemons.ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", "asker-1"]);
    apply.stdin(manifest.to_string()).ok();
    world
}

fn search(world: &World) -> Reply {
    let body = json!({"agent_id": AGENT, "params": {"tool": "web_search", "query": "control groups"}});
    world.signed("/v1/syscall/tool.invoke", &body)
}

fn ask(world: &World, budget: Value) -> Reply {
    let params = json!({"reason": "may I deploy?\u{1b}[2J", "subject": {"version": 3}});
    world.signed(
        "/v1/syscall/approval.request",
        &json!({"agent_id": ASKER, "params": params, "budget": budget}),
    )
}

fn listed(world: &World) -> Vec<Value> {
    world.daemons.ctl(["approvals", "-o", "json"]).json().as_array().unwrap().clone()
}

/// The one call that waits.
fn waiting(world: &World) -> Value {
    until(PATIENCE, || listed(world).into_iter().next()).expect("no call waits")
}

fn id(call: &Value) -> &str {
    call["id"].as_str().unwrap()
}

fn records(world: &World, kind: &str) -> Vec<Value> {
    let query = ["--tenant", "tenantA", "audit", "query", "--kind", kind, "-o", "json"];
    world.daemons.ctl(query).json().as_array().unwrap().clone()
}

pub(crate) fn what_a_rule_names_waits_for_an_operator() {
    let world = world();
    thread::scope(|scope| {
        let denied = scope.spawn(|| search(&world));
        let call = waiting(&world);
        assert_eq!((&call["agent"], &call["target"]), (&json!(AGENT), &json!("web_search")), "{call}");
        assert_eq!(call["subject"]["query"], "control groups", "who is asked sees what it is about: {call}");
        world.daemons.ctl(["deny", id(&call), "--note", "two\nlines"]).done().expect(2).says("INVALID_FIELD");
        world.daemons.ctl(["deny", id(&call), "--note", "not today"]).ok();
        let (number, answer) = denied.join().unwrap();
        assert_eq!((number, &answer["error"]["code"]), (403, &json!("POLICY_DENIED")), "{answer}");
        let rule = answer["error"]["rule"].as_str().unwrap();
        assert!(rule.contains("approval tool:web_search: denied by unix:0: not today"), "{rule}");
        // Once is enough.
        world.daemons.ctl(["approve", id(&call)]).done().expect(4).says("APPROVAL_NOT_FOUND");
    });
    let call = thread::scope(|scope| {
        let allowed = scope.spawn(|| search(&world));
        let call = waiting(&world);
        world.daemons.ctl(["approve", id(&call)]).ok();
        let (number, answer) = allowed.join().unwrap();
        assert_eq!(
            (number, &answer["result"]["items"][0]["title"]),
            (200, &json!("Control groups")),
            "{answer}"
        );
        call
    });
    let steps = world.daemons.ctl(["explain", id(&call), "-o", "json"]).json()["decision"]["steps"].clone();
    let step = steps.as_array().unwrap().iter().find(|step| step["layer"] == "approval").unwrap();
    assert!(
        step["allowed"] == true && step["rule"].as_str().unwrap().contains("approved by unix:0"),
        "{step}"
    );
    eventually("both questions and both answers are in the audit log", PATIENCE, || {
        records(&world, "api.approval.requested").len() == 2
            && records(&world, "api.approval.answered").len() == 2
    });
    // No agent is an operator: the calls that it has answer nothing.
    for call in ["approval.answer", "approval.approve"] {
        let reply = world.signed(&format!("/v1/syscall/{call}"), &json!({"agent_id": ASKER, "params": {}}));
        assert_eq!(reply.1["error"]["code"], "SYSCALL_UNKNOWN");
    }
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}

pub(crate) fn a_question_ends_with_its_time_and_its_caller() {
    let world = world();
    thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&world, json!({})));
        let call = waiting(&world);
        assert_eq!(call["subject"], json!({"version": 3}));
        let shown = world.daemons.ctl(["approvals"]).ok().text();
        assert!(shown.contains("may I deploy?") && !shown.contains('\u{1b}'), "{shown:?}");
        assert!(
            world
                .daemons
                .ctl(["--tenant", "tenantB", "approvals", "-o", "name"])
                .ok()
                .text()
                .trim()
                .is_empty()
        );
        world.daemons.ctl(["approve", id(&call), "--note", "go"]).ok();
        let (number, answer) = asked.join().unwrap();
        let result = &answer["result"];
        assert_eq!(
            (number, &result["approved"], &result["note"]),
            (200, &json!(true), &json!("go")),
            "{answer}"
        );
    });
    let begun = Instant::now();
    let (number, answer) = ask(&world, json!({"latency_ms": 300}));
    assert_eq!((number, &answer["error"]["code"]), (504, &json!("DEADLINE_EXCEEDED")), "{answer}");
    assert!(begun.elapsed() < PATIENCE && listed(&world).is_empty());
    // A client that hangs up. The one beside it stays, so it is not that all are thrown away.
    thread::scope(|scope| {
        let stays = scope.spawn(|| ask(&world, json!({})));
        let kept = waiting(&world);
        let body = json!({"agent_id": AGENT, "params": {"tool": "web_search", "query": "x"}}).to_string();
        let signature = signature(SECRET, body.as_bytes());
        let head = format!(
            "POST /v1/syscall/tool.invoke HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nX-Tenant-Id: tenantA\r\n\
             X-Sig-HMAC: {signature}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(world.address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let gone =
            until(PATIENCE, || listed(&world).into_iter().find(|call| call["id"] != kept["id"])).unwrap();
        drop(stream);
        eventually("the call ends with its caller", PATIENCE, || listed(&world).len() == 1);
        world.daemons.ctl(["approve", id(&gone)]).done().expect(4).says("APPROVAL_NOT_FOUND");
        let row = world.daemons.ctl(["explain", id(&gone), "-o", "json"]).json();
        assert_eq!(row["status"], "denied", "{row}");
        world.daemons.ctl(["deny", id(&kept)]).ok();
        assert_eq!(stays.join().unwrap().1["result"]["approved"], false, "a no is an answer, too");
    });
    eventually("what ended otherwise is in the audit log", PATIENCE, || {
        records(&world, "api.approval.ended").len() == 2
    });
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}

pub(crate) fn a_stop_of_the_daemon_waits_for_nobody() {
    let world = world();
    thread::scope(|scope| {
        let asked = scope.spawn(|| search(&world));
        let call = waiting(&world);
        let begun = Instant::now();
        world.daemons.stop(Which::Aiond);
        assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
        let (number, answer) = asked.join().unwrap();
        assert_eq!((number, &answer["error"]["code"]), (503, &json!("DAEMON_UNAVAILABLE")), "{answer}");
        world.daemons.start_one(Which::Aiond).unwrap();
        world.daemons.await_ready().unwrap();
        assert!(listed(&world).is_empty(), "nothing waits on behalf of a daemon that is no more");
        world.daemons.ctl(["approve", id(&call)]).done().expect(4);
        let row = world.daemons.ctl(["explain", id(&call), "-o", "json"]).json();
        assert_eq!(row["error"]["code"], "DAEMON_UNAVAILABLE", "{row}");
        eventually("its end is in the audit log", PATIENCE, || {
            records(&world, "api.approval.ended").len() == 1
        });
    });
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}
