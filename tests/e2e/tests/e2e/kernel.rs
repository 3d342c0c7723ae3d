//! The kernel API over HTTP: signed calls, a tool in a sandbox, what is refused and why, and clients that misbehave.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aion_e2e::{Daemons, Which, eventually};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) const SECRET: &str = "a secret of sixteen bytes or more";

/// A pair of daemons with a tenant, two agents of its and a tool.
pub(crate) struct World {
    pub(crate) daemons: Daemons,
    address: String,
    _folder: tempfile::TempDir,
}

/// An answer: its number, and its JSON.
pub(crate) type Reply = (u16, Value);

pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn manifest(network: bool) -> String {
    json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "researcher"},
        "spec": {"entry": "true", "capabilities": {"network": network}, "syscalls": ["tool.invoke", "memory.*"]}
    })
    .to_string()
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these in aiond's environment.
    pub(crate) fn start_with(env: &[(&str, &str)]) -> Self {
        // Not in /tmp: where that is a tmpfs, kernels before 6.3 cannot map the owners of a tool's files.
        let folder = tempfile::Builder::new().prefix("aion-e2e-kernel-").tempdir_in("/var/tmp").unwrap();
        let daemons = Daemons::start_with(folder.path(), env).unwrap();
        let address = address(&daemons);
        let secret = daemons.state().join("the-secret");
        fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let secret = secret.to_str().unwrap();
        daemons.ctl(["tenant", "add", "tenantA", "--secret-file", secret]).ok();
        daemons
            .ctl(["tenant", "add", "tenantB", "--secret-file", "-"])
            .stdin("another secret of sixteen")
            .ok();
        for (name, network) in [("researcher-1", true), ("offline-1", false)] {
            let apply = daemons.ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", name]);
            apply.stdin(manifest(network)).ok();
        }
        daemons
            .ctl(["tool", "install"])
            .args([daemons.clone_dir().join("examples/web-search/tool.yml")])
            .ok();
        Self { daemons, address, _folder: folder }
    }

    fn open(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // Who refuses a body need not read it.
        let _ = stream.write_all(body);
        stream
    }

    /// Begins a signed call, and leaves its answer to the caller.
    pub(crate) fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        let signature = signature(SECRET, body.as_bytes());
        self.open(path, &[("X-Tenant-Id", "tenantA"), ("X-Sig-HMAC", &signature)], body.as_bytes())
    }

    pub(crate) fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.open(path, headers, body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let number =
            answer.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (number, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    pub(crate) fn signed(&self, path: &str, body: &Value) -> Reply {
        let body = body.to_string();
        let signature = signature(SECRET, body.as_bytes());
        self.send(path, &[("X-Tenant-Id", "tenantA"), ("X-Sig-HMAC", &signature)], body.as_bytes())
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts aiond anew, as after a crash.
    pub(crate) fn restart(&mut self) {
        self.daemons.kill_and_restart(Which::Aiond).unwrap();
        self.address = address(&self.daemons);
    }

    fn search(&self, agent: &str, params: Value) -> Reply {
        let mut params = params;
        params["tool"] = json!("web_search");
        self.signed(
            "/v1/syscall/tool.invoke",
            &json!({"schema": "aion.syscall.v1", "syscall": "tool.invoke", "agent_id": agent, "context": {}, "caps_required": [], "params": params}),
        )
    }
}

fn address(daemons: &Daemons) -> String {
    fs::read_to_string(daemons.state().join("run/http")).unwrap().trim().to_owned()
}

pub(crate) const AGENT: &str = "agent://tenantA/researcher-1";

/// The contract's sample client, never registered, with an empty context and no budget.
pub(crate) fn a_signed_call_is_answered_by_a_tool_in_a_sandbox() {
    let world = World::start();
    let (number, answer) = world.search(AGENT, json!({"query": "what limits the memory of processes"}));
    assert_eq!((number, &answer["status"]), (200, &json!("ok")), "{answer:#}");
    assert_eq!(answer["result"]["items"][0]["title"], "Control groups");
    assert_eq!(answer["engine"], json!({"kind": "module", "name": "tooling/web_search@1.2.0"}));
    let audit_id = answer["audit_id"].as_str().unwrap();
    let decision = world.daemons.ctl(["explain", audit_id, "-o", "json"]).json();
    assert_eq!((&decision["agent"], &decision["status"]), (&json!(AGENT), &json!("ok")));
    let layers: Vec<_> =
        decision["decision"]["steps"].as_array().unwrap().iter().map(|s| s["layer"].clone()).collect();
    assert!(layers.contains(&json!("syscalls")) && layers.contains(&json!("manifest")), "{layers:?}");
    eventually("the call is in the audit log", Duration::from_secs(10), || {
        let records = world
            .daemons
            .ctl(["--tenant", "tenantA", "audit", "query", "--kind", "api.syscall", "-o", "json"])
            .json();
        records.to_string().contains(audit_id)
    });
    // As an operator, and as an agent that may.
    let tried =
        world.daemons.ctl(["tool", "invoke", "web_search", "query=seccomp", "limit:=1", "-o", "json"]).json();
    assert_eq!(tried["items"].as_array().unwrap().len(), 1);
    world.daemons.finish().unwrap();
}

pub(crate) fn what_is_not_right_is_refused_with_its_reason() {
    let world = World::start();
    let body = json!({"agent_id": AGENT, "params": {"tool": "web_search", "query": "x"}}).to_string();
    let good = signature(SECRET, body.as_bytes());
    let path = "/v1/syscall/tool.invoke";
    let cases: [(&str, &str, &str, u16); 5] = [
        ("tenantA", &signature("another secret altogether", body.as_bytes()), &body, 401),
        ("tenantA", &good, &body.replace("\"x\"", "\"y\""), 401),
        ("tenantB", &good, &body, 401),
        ("nobody", &good, &body, 401),
        ("tenantA", "", &body, 401),
    ];
    for (tenant, signature, body, number) in cases {
        let (got, answer) =
            world.send(path, &[("X-Tenant-Id", tenant), ("X-Sig-HMAC", signature)], body.as_bytes());
        assert_eq!(
            (got, &answer["error"]["code"]),
            (number, &json!("UNAUTHENTICATED")),
            "{tenant}: {answer}"
        );
    }
    // Each left a record, with the name that was claimed; none is a tenant's own, because anybody can claim a name.
    eventually("the wrong signatures are in the audit log", Duration::from_secs(10), || {
        let found = world.daemons.ctl(["audit", "query", "--kind", "api.unauthenticated", "-o", "jsonl"]);
        let records = found.ok().json_lines();
        let told = |rule: &str, claimed: &str| {
            records.iter().any(|record| {
                record["rule"] == rule
                    && record["tenant"].as_str().unwrap_or_default().is_empty()
                    && record["verdict"] == "denied"
                    && record.to_string().contains(claimed)
            })
        };
        told("door:mismatch", "tenantA")
            && told("door:mismatch", "nobody")
            && told("door:no_signature", "tenantA")
    });
    let code = |reply: Reply| (reply.0, reply.1["error"]["code"].as_str().unwrap_or("ok").to_owned());
    let refused = |number: u16, code: &str| (number, code.to_owned());
    assert_eq!(
        code(world.search("agent://tenantB/researcher-1", json!({"query": "x"}))),
        refused(403, "PERMISSION_DENIED")
    );
    let (number, answer) = world.search("agent://tenantA/offline-1", json!({"query": "x"}));
    assert_eq!(
        (number, &answer["error"]["code"], &answer["status"]),
        (403, &json!("POLICY_DENIED"), &json!("denied"))
    );
    assert!(answer["error"]["rule"].as_str().unwrap().contains("offline-1"), "{answer}");
    assert_eq!(
        code(world.search("agent://tenantA/none", json!({"query": "x"}))),
        refused(404, "AGENT_NOT_FOUND")
    );
    assert_eq!(code(world.search(AGENT, json!({"query": 5}))), refused(400, "INVALID_FIELD"));
    assert_eq!(
        code(world.signed("/v1/syscall/no.such", &json!({"agent_id": AGENT}))),
        refused(404, "SYSCALL_UNKNOWN")
    );
    assert_eq!(
        code(world.signed(path, &json!({"agent_id": AGENT, "buget": {}}))),
        refused(400, "INVALID_FIELD")
    );
    assert_eq!(code(world.signed("/v1/nowhere", &json!({}))).0, 404);
    // A tenant's secret gives no agent anything of the host; the same manifest without it is fine.
    for (field, spec) in [
        ("spec.network", json!({"network": "host", "capabilities": {"network": true}})),
        ("spec.workspace", json!({"workspace": "/home", "capabilities": {"filesystem": true}})),
        ("spec.capabilities", json!({"capabilities": ["fs:read:/opt"]})),
        ("spec.secrets", json!({"secrets": ["db"]})),
        ("", json!({"capabilities": {"filesystem": true}})),
    ] {
        let mut spec = spec;
        spec["entry"] = json!("true");
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "guest"}, "spec": spec,
        });
        let asked = json!({"agent_id": "agent://tenantA/guest", "manifest": manifest});
        let (number, answer) = world.signed("/v1/agent/register", &asked);
        if field.is_empty() {
            assert_eq!(number, 200, "{answer}");
        } else {
            assert_eq!(
                (number, &answer["error"]["code"]),
                (403, &json!("POLICY_DENIED")),
                "{field}: {answer}"
            );
            assert!(answer["error"]["message"].as_str().unwrap().contains(field), "{answer}");
        }
    }
    let mut stream = TcpStream::connect(&world.address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut figures = String::new();
    stream.read_to_string(&mut figures).unwrap();
    assert!(
        figures.contains("SYSCALL_UNKNOWN") && !figures.contains("no.such"),
        "made-up names are no figures"
    );
    // A secret that is rotated without overlap is over.
    world
        .daemons
        .ctl(["tenant", "rotate", "tenantA", "--secret-file", "-", "--overlap", "0"])
        .stdin("a third secret, long enough")
        .ok();
    assert_eq!(world.search(AGENT, json!({"query": "x"})).0, 401);
    // No secret lies anywhere in the clear.
    for folder in ["db", "keys", "run", "log"] {
        let Ok(files) = fs::read_dir(world.daemons.state().join(folder)) else { continue };
        for file in files.flatten().filter(|file| file.path().is_file()) {
            let bytes = fs::read(file.path()).unwrap();
            let found = bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
            assert!(!found, "{} holds the secret", file.path().display());
        }
    }
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}

pub(crate) fn memories_and_tools_survive_a_crash_of_the_daemon() {
    let mut world = World::start();
    let put =
        json!({"agent_id": AGENT, "type": "long", "key": "k", "value": {"n": 7}, "meta": {"kind": "test"}});
    assert_eq!(world.signed("/v1/memory/put", &put).0, 200);
    let slow = world.daemons.state().join("slow.yml");
    fs::write(
        &slow,
        "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: slow}\nspec: {entry: \"exec:sleep 30\"}\n",
    )
    .unwrap();
    world.daemons.ctl(["tool", "install"]).args([&slow]).ok();
    // A time limit ends the work itself.
    let begun = Instant::now();
    let late = world.signed(
        "/v1/syscall/tool.invoke",
        &json!({"agent_id": AGENT, "params": {"tool": "slow"}, "budget": {"latency_ms": 300}}),
    );
    assert_eq!((late.0, &late.1["error"]["code"]), (504, &json!("DEADLINE_EXCEEDED")), "{}", late.1);
    assert!(begun.elapsed() < Duration::from_secs(25), "the tool sleeps for 30 s");
    // A run that is cut off with the daemon leaves nothing, and is no agent.
    let call = world.daemons.ctl(["tool", "invoke", "slow"]).env("AION_RECONNECT_SECONDS", "1").spawn();
    eventually("the tool runs", Duration::from_secs(10), || !world.daemons.groups().is_empty());
    world.restart();
    call.done_quietly();
    let got = world
        .signed("/v1/memory/query", &json!({"agent_id": AGENT, "type": "long", "filter": {"kind": "test"}}));
    assert_eq!(got.1["result"]["items"][0]["value"], json!({"n": 7}), "{}", got.1);
    assert_eq!(world.search(AGENT, json!({"query": "fencing"})).0, 200, "the tool is still installed");
    let agents = world.daemons.ctl(["ps", "-a", "-q"]).ok().text();
    assert!(!agents.contains("tool-"), "{agents}");
    world.daemons.finish().unwrap();
}

pub(crate) fn clients_that_misbehave_hold_nobody_up() {
    let world = World::start();
    let mut silent = TcpStream::connect(&world.address).unwrap();
    // Heads that do not end, bodies that do not come, and lines that are none.
    let mut held = Vec::new();
    for text in [
        "POST /v1/syscall/tool.invoke HTTP/1.1\r\nhost: x\r\n",
        "POST /v1/memory/put HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{0}\u{1}\u{2}",
    ] {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(&world.address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            held.push(stream);
        }
    }
    // Large bodies that stop in the middle: those that have a place among the large ones lose it.
    for _ in 0..40 {
        let head = "POST /v1/memory/put HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
        let mut stream = TcpStream::connect(&world.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b' '; 100 << 10]).unwrap();
        held.push(stream);
    }
    let large = vec![b'x'; 5 << 20];
    let (number, _) =
        world.send("/v1/memory/put", &[("X-Tenant-Id", "tenantA"), ("X-Sig-HMAC", &"0".repeat(64))], &large);
    assert_eq!(number, 413);
    for _ in 0..30 {
        let (number, _) = world.send(
            "/v1/memory/put",
            &[("X-Tenant-Id", "tenantA"), ("X-Sig-HMAC", &"0".repeat(64))],
            b"{}",
        );
        assert!(matches!(number, 401 | 429), "{number}");
    }
    // Small bodies do not wait for large ones; a large one gets a place in its turn.
    let put = json!({"agent_id": AGENT, "key": "k", "value": 1});
    assert_eq!(world.signed("/v1/memory/put", &put).0, 200);
    let deep = format!("{{\"agent_id\": {}", "[".repeat(100_000));
    let signed = signature(SECRET, deep.as_bytes());
    let (number, _) =
        world.send("/v1/memory/put", &[("X-Tenant-Id", "tenantA"), ("X-Sig-HMAC", &signed)], deep.as_bytes());
    assert_eq!(number, 400);
    // The others' heads may take ten seconds to be given up; this one does not wait for them.
    let begun = Instant::now();
    assert_eq!(world.signed("/v1/memory/put", &put).0, 200);
    assert!(begun.elapsed() < Duration::from_secs(8));
    // Who says nothing at all loses the place, too.
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    drop(held);
    world.daemons.finish().unwrap();
}
