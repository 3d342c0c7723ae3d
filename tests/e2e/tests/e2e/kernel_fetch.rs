//! net.fetch and secret.use against real servers on the loopback: what is reached, what is not, and where a secret is found.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::unistd::{Whence, lseek};
use serde_json::{Value, json};

use crate::kernel::{Reply, World};

const PLANTED: &str = "planted-5ecret/value+of-a-test";
const AGENT: &str = "agent://tenantA/fetcher-1";
const NARROW: &str = "agent://tenantA/narrow-1";

/// A server that repeats what it was sent, or redirects where its path says: `/to/HOST:PORT/PATH`. Gives its port and the heads.
fn echo() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, heads) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 8192];
            let n = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.strip_prefix("/to/") {
                Some(to) => {
                    format!("HTTP/1.1 302 Found\r\nlocation: http://{to}\r\ncontent-length: 0\r\n\r\n")
                }
                None => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len()),
            };
            let _ = stream.write_all(answer.as_bytes());
            // The test may have ended.
            if send.send(head).is_err() {
                return;
            }
        }
    });
    (port, heads)
}

fn world(ports: &[u16]) -> World {
    world_with(ports, &[])
}

fn world_with(ports: &[u16], env: &[(&str, &str)]) -> World {
    let world = World::start_with(env);
    for (name, capabilities) in
        [("fetcher-1", json!(["network", "model:*"])), ("narrow-1", json!(["net:connect:example.com:443"]))]
    {
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "fetcher"},
            "spec": {"entry": "true", "capabilities": capabilities, "syscalls": ["net.fetch", "secret.use", "model.generate"]}
        });
        world
            .daemons
            .ctl(["apply", "-f", "-", "--tenant", "tenantA", "--as", name])
            .stdin(manifest.to_string())
            .ok();
    }
    open(&world, ports);
    world
}

/// The operator's rules for the tenant: the public Internet, and these ports of this host.
fn open(world: &World, ports: &[u16]) {
    let mut rules: Vec<_> = ["network", "tool:*", "model:*", "secret:use:*"].map(str::to_owned).into();
    rules.extend(ports.iter().map(|port| format!("net:connect:127.0.0.1:{port}")));
    let rules = rules.iter().map(|rule| format!("--allow={rule}"));
    world
        .daemons
        .ctl(["tenant", "set", "tenantA", "--deny", "net:connect:denied.example:*"])
        .args(rules)
        .ok();
}

fn fetch(world: &World, agent: &str, url: &str) -> Reply {
    world.signed(
        "/v1/syscall/net.fetch",
        &json!({"agent_id": agent, "params": {"url": url, "timeout_ms": 10_000}}),
    )
}

fn code(reply: &Reply) -> (u16, &str) {
    (reply.0, reply.1["error"]["code"].as_str().unwrap_or("ok"))
}

pub(crate) fn offline_nothing_leaves_the_host() {
    let (port, heads) = echo();
    let world = world_with(&[port], &[("OFFLINE_MODE", "true")]);
    let url = format!("http://127.0.0.1:{port}/v1");
    let add = |name: &str| world.daemons.ctl(["model", "add", name, "--url", &url]);
    add("cloud").ok();
    add("here").args(["--local"]).ok();
    let ask = |model: &str| {
        let params = json!({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]});
        world.signed("/v1/syscall/model.generate", &json!({"agent_id": AGENT, "params": params}))
    };
    for reply in [ask("cloud"), fetch(&world, AGENT, "http://1.1.1.1/")] {
        assert_eq!(code(&reply), (403, "POLICY_DENIED"), "{}", reply.1);
        assert!(reply.1["error"]["rule"].as_str().unwrap().ends_with("OFFLINE_MODE=true"), "{}", reply.1);
    }
    assert!(heads.try_recv().is_err(), "a backend that is not local was asked");
    // What the operator opened on the host itself is not elsewhere. The server is no model: that it was asked is what counts.
    assert_eq!(code(&fetch(&world, AGENT, &format!("http://127.0.0.1:{port}/a"))), (200, "ok"));
    assert!(heads.recv_timeout(Duration::from_secs(10)).unwrap().starts_with("GET /a"));
    ask("here");
    let asked = heads.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(asked.starts_with("POST /v1/chat/completions"), "{asked}");
}

pub(crate) fn requests_go_where_the_operator_and_the_manifest_let_them() {
    let ((port, heads), (closed, others)) = (echo(), echo());
    let world = world(&[port]);
    let reply = fetch(&world, AGENT, &format!("http://127.0.0.1:{port}/a?b=c"));
    assert_eq!(code(&reply), (200, "ok"), "{}", reply.1);
    let result = &reply.1["result"];
    assert_eq!((&result["status"], &result["truncated"]), (&json!(200), &json!(false)));
    assert!(result["body"].as_str().unwrap().starts_with("GET /a?b=c HTTP/1.1"), "{result}");
    for url in [
        format!("http://127.0.0.1:{closed}/"),
        format!("http://localhost:{closed}/"),
        format!("http://[::ffff:127.0.0.1]:{closed}/"),
        format!("http://127.0.0.1:{port}/to/127.0.0.1:{closed}/"),
        format!("http://127.0.0.1:{port}/to/10.0.0.1/"),
        format!("http://127.0.0.1:{port}/to/169.254.169.254/latest/meta-data/"),
        "http://169.254.169.254/".to_owned(),
        "https://denied.example/".to_owned(),
    ] {
        let reply = fetch(&world, AGENT, &url);
        assert_eq!(
            (code(&reply), &reply.1["status"]),
            ((403, "POLICY_DENIED"), &json!("denied")),
            "{url}: {}",
            reply.1
        );
    }
    assert!(others.try_recv().is_err(), "who is not opened is not asked");
    let own = fetch(&world, NARROW, &format!("http://127.0.0.1:{port}/"));
    assert_eq!(code(&own), (403, "POLICY_DENIED"));
    assert!(own.1["error"]["rule"].as_str().unwrap().contains("narrow-1"), "{}", own.1);
    for url in ["http://2130706433/", "http://u:p@127.0.0.1/", "file:///etc/passwd", "http://127.0.0.1./"] {
        let reply = fetch(&world, AGENT, url);
        assert_eq!(
            (code(&reply), &reply.1["error"]["field"]),
            ((400, "INVALID_FIELD"), &json!("params.url")),
            "{url}"
        );
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    open(&world, &[port, nobody]);
    assert_eq!(code(&fetch(&world, AGENT, &format!("http://127.0.0.1:{nobody}/"))), (424, "FETCH_FAILED"));
    drop(heads);
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}

/// What was ever written of a file: images of volumes are mostly holes.
fn written(path: &Path) -> Vec<Vec<u8>> {
    let Ok(file) = fs::File::open(path) else { return Vec::new() };
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Ok(from) = lseek(&file, at, Whence::SeekData) {
        let to = lseek(&file, from, Whence::SeekHole).unwrap();
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        // A log may be cut while it is looked at.
        let read = file.read_at(&mut part, u64::try_from(from).unwrap()).unwrap();
        part.truncate(read);
        parts.push(part);
        at = to;
    }
    parts
}

/// Every file below a folder, whose bytes hold the text.
fn holding(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            holding(&path, text, found);
        } else if kind.is_file() {
            let holds = |bytes: &Vec<u8>| memchr::memmem::find(bytes, text.as_bytes()).is_some();
            if written(&path).iter().any(holds) {
                found.push(path.display().to_string());
            }
        }
    }
}

pub(crate) fn a_secret_works_at_its_hosts_and_lies_nowhere_in_the_clear() {
    let ((port, heads), (other, others)) = (echo(), echo());
    let mut world = world(&[port, other]);
    let host = format!("127.0.0.1:{port}");
    let add = |world: &World, name: &str, file: &str| {
        world.daemons.ctl([
            "--tenant", "tenantA", "secret", "add", name, "--file", file, "--host", &host, "-o", "json",
        ])
    };
    let made = add(&world, "hub", "-").stdin(format!("{PLANTED}\n")).json();
    assert_eq!(
        (&made["hosts"], &made["header"], &made["prefix"]),
        (&json!([host]), &json!("authorization"), &json!("Bearer "))
    );
    add(&world, "short", "-").stdin("1234567").done().expect(2);
    let using = |world: &World, name: &str, url: String| {
        let params = json!({"secret": name, "request": {"url": url}});
        world.signed("/v1/syscall/secret.use", &json!({"agent_id": AGENT, "params": params}))
    };
    let works = |world: &World| {
        let reply = using(world, "hub", format!("http://{host}/"));
        assert_eq!(code(&reply), (200, "ok"), "{}", reply.1);
        let head = heads.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(head.contains(&format!("authorization: Bearer {PLANTED}\r\n")), "{head}");
        reply.1
    };
    let answer = works(&world);
    assert!(answer["result"]["body"].as_str().unwrap().contains("Bearer [redacted:hub]"), "{answer}");
    let elsewhere = using(&world, "hub", format!("http://127.0.0.1:{other}/"));
    assert_eq!(code(&elsewhere), (403, "POLICY_DENIED"), "{}", elsewhere.1);
    let led = using(&world, "hub", format!("http://{host}/to/127.0.0.1:{other}/"));
    assert_eq!(code(&led), (200, "ok"), "{}", led.1);
    assert!(
        !others.recv_timeout(Duration::from_secs(10)).unwrap().contains("authorization"),
        "it stays behind"
    );
    assert_eq!(heads.recv_timeout(Duration::from_secs(10)).unwrap().matches(PLANTED).count(), 1);
    // It is known after a crash, and is told in nothing.
    world.restart();
    let again = works(&world);
    let id = again["audit_id"].as_str().unwrap();
    let explained = world.daemons.ctl(["explain", id, "-o", "json"]).json();
    assert!(explained["target"].as_str().unwrap().starts_with("hub: GET"), "{explained}");
    let listed = world.daemons.ctl(["--tenant", "tenantA", "secret", "ls", "-o", "json"]).json();
    let records = world.daemons.ctl(["--tenant", "tenantA", "audit", "query", "-o", "json"]).json();
    let told: [&Value; 5] = [&answer, &again, &explained, &listed, &records];
    assert!(told.iter().all(|value| !value.to_string().contains("planted-")), "{told:?}");
    assert!(records.to_string().contains("api.secret.add"), "{records}");
    assert_eq!(world.daemons.ctl(["--tenant", "tenantB", "secret", "ls", "-o", "json"]).json(), json!([]));
    let mut found = Vec::new();
    for text in [PLANTED, &hex::encode(PLANTED)] {
        holding(world.daemons.state(), text, &mut found);
    }
    assert!(found.is_empty(), "{found:?} hold the secret");
    // It would have been found.
    fs::write(world.daemons.state().join("control"), format!("x{PLANTED}y")).unwrap();
    holding(world.daemons.state(), PLANTED, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
    fs::remove_file(world.daemons.state().join("control")).unwrap();
    world.daemons.ctl(["--tenant", "tenantA", "secret", "rm", "hub"]).ok();
    assert_eq!(code(&using(&world, "hub", format!("http://{host}/"))), (404, "SECRET_NOT_FOUND"));
    fs::remove_file(world.daemons.state().join("the-secret")).unwrap();
    world.daemons.finish().unwrap();
}
