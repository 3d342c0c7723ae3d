//! The bodies of the HTTP contract, as they stand there: none names an agent. And what becomes of those that are not right.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aion_e2e::eventually;
use serde_json::{Value, json};

use crate::kernel::{AGENT, SECRET, World, signature};

fn task(world: &World, id: &str) -> Value {
    world.daemons.ctl(["--tenant", "tenantA", "task", "inspect", id]).json()
}

pub(crate) fn its_bodies_work_as_they_stand() {
    let world = World::start();
    // Memory: whoever signs finds it again, also after a crash of the daemon.
    let put = json!({"type": "episodic", "key": "k", "value": {"n": 1}, "meta": {"topic": "x"}});
    let (number, answer) = world.signed("/v1/memory/put", &put);
    assert_eq!(number, 200, "{answer}");
    let query = json!({"type": "episodic", "filter": {"tenant": "tenantA", "topic": "x"}});
    let (number, answer) = world.signed("/v1/memory/query", &query);
    assert_eq!((number, &answer["result"]["items"][0]["value"]), (200, &json!({"n": 1})), "{answer}");
    let of_agent = json!({"type": "episodic", "filter": {"tenant": "tenantA", "agent": AGENT}});
    assert_eq!(world.signed("/v1/memory/query", &of_agent).1["result"]["items"], json!([]));

    // A task for nobody in particular is done by one of those that can be given tasks; not by one that runs elsewhere.
    let elsewhere = json!({"agent_id": "agent://tenantA/elsewhere", "version": "1"});
    assert_eq!(world.signed("/v1/agent/register", &elsewhere).0, 200);
    let submit = json!({"task_id": "t-123", "intent": "count", "priority": 5, "params": {"n": 1},
        "quota": {"max_concurrency": 1, "token_rate": 1000, "usd_per_hour": 0.5}});
    let (number, answer) = world.signed("/v1/schedule/submit", &submit);
    assert_eq!(number, 200, "{answer}");
    eventually("the task is done", Duration::from_secs(30), || task(&world, "t-123")["state"] == "succeeded");
    let job = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "job"},
        "spec": {"mode": "job", "entry": ["/bin/true"]}
    });
    let apply = world.daemons.ctl(["--tenant", "tenantA", "apply", "-f", "-", "--no-start"]);
    apply.stdin(job.to_string()).ok();
    let submit = json!({"task_id": "of-job", "agent_id": "agent://tenantA/job"});
    assert_eq!(world.signed("/v1/schedule/submit", &submit).0, 200);

    // A call is for a task of its own agent, or for one that AION does not know.
    let call = |id: &str| {
        let call = json!({"agent_id": AGENT, "context": {"task_id": id}, "params": {"tool": "web_search", "query": "x"}});
        world.signed("/v1/syscall/tool.invoke", &call)
    };
    let (number, answer) = call("of-job");
    assert_eq!((number, &answer["error"]["code"]), (403, &json!("PERMISSION_DENIED")), "{answer}");
    assert_eq!(answer["error"]["field"], "context.task_id");
    assert_eq!(call("t-none").0, 200);

    // Registering: the same is the same, another one is told, a wrong one is refused.
    let register = |more: Value| {
        let mut body = json!({"agent_id": "agent://tenantA/guest", "name": "guest", "version": "1.0.0",
            "capabilities": {"network": true}, "limits": {"mem": "64Mi"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (number, answer) = world.signed("/v1/agent/register", &body);
        (
            number,
            answer["result"]["created"].clone(),
            answer["error"]["code"].as_str().unwrap_or("").to_owned(),
        )
    };
    let quota = json!({"quota": {"max_concurrency": 2, "token_rate": 10, "usd_per_hour": 1}});
    assert_eq!(register(quota.clone()), (200, json!(true), String::new()));
    assert_eq!(register(quota), (200, json!(false), String::new()));
    assert_eq!(register(json!({"version": "2.0.0"})), (409, Value::Null, "NAME_TAKEN".to_owned()));
    assert_eq!(register(json!({"limits": {"memory": 1}})), (400, Value::Null, "MANIFEST_INVALID".to_owned()));
    assert_eq!(
        register(json!({"manifest": "no manifest"})),
        (400, Value::Null, "MANIFEST_INVALID".to_owned())
    );
    world.daemons.finish().unwrap();
}

pub(crate) fn a_stream_ends_when_its_tenant_is_revoked() {
    let world = World::start();
    let mut stream = TcpStream::connect(world.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "GET /v1/events/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: text/event-stream\r\n\
         x-tenant-id: tenantA\r\nx-sig-hmac: {}\r\n\r\n",
        signature(SECRET, b"")
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    world.daemons.ctl(["tenant", "revoke", "tenantA"]).ok();
    let revoked = Instant::now();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("event: error") && rest.contains("UNAUTHENTICATED"), "{rest}");
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    world.daemons.finish().unwrap();
}

pub(crate) fn an_operator_s_mistake_is_told_by_its_flag() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (empty, short, long) =
        (file("empty", "\n"), file("short", "abc\n"), file("long", "a good secret of a host\n"));
    let model = ["model", "add", "m", "--url"];
    let secret = ["--tenant", "tenantA", "secret", "add", "s", "--host"];
    for (words, code, says) in [
        ([&model[..], &["no url"]].concat(), 2, "--url: "),
        ([&model[..], &["ftp://h/v1"]].concat(), 2, "--url: must be http or https"),
        ([&model[..], &["http://h/v1", "--key-file", &empty]].concat(), 2, "--key-file: "),
        (
            [&model[..], &["http://h/v1", "--key-file", "/none/such"]].concat(),
            1,
            "--key-file: cannot read /none/such",
        ),
        ([&model[..], &["http://h/v1", "--context", "0"]].concat(), 2, "--context: "),
        ([&secret[..], &["h", "--file", "/none/such"]].concat(), 1, "--file: cannot read /none/such"),
        ([&secret[..], &["h", "--file", "-"]].concat(), 2, "--file: standard input is empty"),
        ([&secret[..], &["h", "--file", &short]].concat(), 2, "--file: it has 3 bytes"),
        ([&secret[..], &["*.h", "--file", &long]].concat(), 2, "--host: "),
        (vec!["tenant", "add", "t", "--secret-file", &short], 2, "--secret-file: "),
    ] {
        let done = world.daemons.ctl(&words).stdin("").done().expect(code).says(says);
        drop(done.says("hint:"));
    }
    // A module that is none is not installed.
    std::fs::write(folder.path().join("m.wasm"), "#!/bin/sh\n").unwrap();
    let tool = file(
        "tool.yml",
        "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: m}\nspec: {entry: \"wasm:m.wasm\"}\n",
    );
    let install = world.daemons.ctl(["tool", "install", &tool]).done();
    drop(install.expect(2).says("wasm:m.wasm: it is neither a WebAssembly module nor a component"));
    let rm = world.daemons.ctl(["tool", "rm", "none"]).done();
    drop(rm.expect(4).says("aionctl tool ls").says("aionctl tool install"));
    world.daemons.finish().unwrap();
}
