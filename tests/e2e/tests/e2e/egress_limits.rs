//! Budgets and rates of network mode `egress`, held by the kernel; seen from the other end.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use aion_e2e::{Daemons, Which, until};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::egress_live::own_policies;
use crate::egress_world::{GOOD, OTHER, World};
use crate::observe::figure;

/// What both programs begin with.
const HELP: &str = r#"
import errno, json, socket, time
def attempt(work):
    try:
        work()
        return "ok"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def udp(host, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, port))
    return s
"#;

/// Sends until it is refused, then tells again and again what is.
const SPEND: &str = r#"
sent, last = 0, None
try:
    sink = udp("45.90.1.10", 9999)
    while True:
        sink.send(b"x" * 1000)
        sent += 1000
except OSError as e:
    last = errno.errorcode[e.errno]
while True:
    again = attempt(lambda: udp("45.90.1.10", 9999))
    other = attempt(lambda: socket.create_connection(("45.90.1.20", 443), 3).close())
    print(json.dumps({"sent": sent, "last": last, "again": again, "other": other}), flush=True)
    time.sleep(0.2)
"#;

/// Begins connections to hosts with several limits.
const BEGIN: &str = r#"
def begun(host, port, times):
    return [attempt(lambda: udp(host, port).close()) for _ in range(times)]
udp("45.90.1.10", 80).send(b"x" * 100)
named = socket.getaddrinfo("good.example", 8080, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
out = {"slow": begun("45.90.1.10", 443, 10), "named": begun(named, 8080, 2), "free": begun("45.90.1.10", 80, 20)}
out["loopback"] = begun("127.0.0.1", 9, 20)
quick = begun("45.90.1.20", 443, 100)
end, again = time.monotonic() + 60, "EPERM"
while again != "ok" and time.monotonic() < end:
    time.sleep(0.1)
    again = attempt(lambda: udp("45.90.1.20", 443).close())
out.update({"refused": "EPERM" in quick, "first": quick[0], "again": again})
print(json.dumps(out), flush=True)
"#;

/// Starts an agent with hosts and limits of the network.
fn start<'a>(daemons: &'a Daemons, stem: &str, hosts: &[&str], limits: &Value, program: &str) -> Agent<'a> {
    let name = daemons.name(stem);
    daemons.ctl(["run", "-d", "-f", "-"]).stdin(manifest(&name, hosts, limits, program)).ok();
    Agent { daemons, name }
}

fn manifest(name: &str, hosts: &[&str], limits: &Value, program: &str) -> String {
    let mut capabilities = vec!["subprocess".to_owned()];
    capabilities.extend(hosts.iter().map(|host| format!("net:connect:{host}")));
    // JSON is YAML.
    let manifest = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": name},
        "spec": {
            "entry": ["/usr/bin/python3", "-c", format!("{HELP}\n{program}")],
            "network": "egress", "capabilities": capabilities, "resources": {"network": limits},
        },
    });
    manifest.to_string()
}

fn lines(agent: &Agent<'_>) -> Vec<Value> {
    agent.logs().text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for more lines than there were.
fn more(agent: &Agent<'_>, than: usize) -> Vec<Value> {
    let found = until(Duration::from_secs(40), || Some(lines(agent)).filter(|lines| lines.len() > than));
    found.unwrap_or_else(|| panic!("{} says no more than {:?}", agent.name, lines(agent).last()))
}

/// A record of a kind that names a limit's line.
fn refused(agent: &Agent<'_>, kind: &str, line: &str) -> Value {
    let found = until(Duration::from_secs(20), || {
        let of = |record: &Value| record["rule"] == line && record["verdict"] == "denied";
        agent.records(kind).into_iter().find(of)
    });
    found.unwrap_or_else(|| panic!("no {kind} names {line}"))
}

pub(crate) fn a_budget_is_held_to_the_byte_and_without_daemons() {
    let world = World::start();
    let daemons = world.daemons();
    let sink = world.internet.run(|| UdpSocket::bind((GOOD[0], 9999)).unwrap());
    sink.set_nonblocking(true).unwrap();
    let (to, other) = ("45.90.1.10:9999", "45.90.1.20:443");
    let limits =
        json!({"bytes_out_per_hour": "500Mi", "destinations": [{"to": to, "bytes_out_per_hour": "64Ki"}]});
    let agent = start(daemons, "spends", &[to, other], &limits, SPEND);
    // 1000 bytes and 28 of headers, as often as they fit.
    let fit = (64 << 10) / 1028;
    let right = json!({"sent": fit * 1000, "last": "EPERM", "again": "EPERM", "other": "ok"});
    assert_eq!(more(&agent, 2)[0], right);
    let line = "resources.network.destinations[0].bytes_out_per_hour";
    let denied = refused(&agent, "net.connect", line);
    let told = daemons.ctl(["explain", &denied["seq"].to_string()]).json();
    assert_eq!(told["rule"], format!("spec.{line}"), "{told}");
    assert!(told["why"].as_str().unwrap().contains("64Ki"), "{told}");
    refused(&agent, "limit.hit", line);
    let used = || {
        let samples = daemons.ctl(["stats", "--no-stream", &agent.name]).json();
        samples[0]["network"].clone()
    };
    let before = used();
    assert_eq!((&before[0]["destination"], &before[1]["destination"]), (&Value::Null, &json!(to)));
    assert_eq!(before[1]["bytes_out"], fit * 1028, "{before}");
    assert_eq!(before[1]["bytes_out_per_hour"], 64 << 10, "{before}");
    assert!(before[1]["bytes_out_frees_ms"].as_u64().is_some_and(|ms| ms <= 65 * 60_000), "{before}");
    assert!(
        before[0]["bytes_out"].as_u64() > before[1]["bytes_out"].as_u64(),
        "the other counts too: {before}"
    );

    let of = format!("{{tenant=\"default\",agent=\"{}\"", agent.name);
    let tells = |daemons: &Daemons| {
        let told = until(Duration::from_secs(40), || {
            let of = |name: &str, label: &str| {
                figure(daemons, &format!("aion_agent_network_{name}{of},{label}}}"))
            };
            let full = of("limit_ratio", "limit=\"bytes_out_per_hour\"")?;
            let refused = of("refused_total", "limit=\"bytes\"")?;
            of("bytes_total", "direction=\"out\"")?;
            (full == 0.988 && refused >= 1.0).then_some(())
        });
        told.expect("figures of the limit");
    };
    tells(daemons);

    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    std::thread::sleep(Duration::from_secs(2));
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    let told = lines(&agent).len();
    let wrong: Vec<Value> = more(&agent, told + 10).into_iter().filter(|line| *line != right).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(used()[1]["bytes_out"], before[1]["bytes_out"]);
    tells(daemons);

    // Who starts anew has used no less.
    daemons.ctl(["stop", &agent.name]).ok();
    daemons.ctl(["start", &agent.name]).ok();
    let none = json!({"sent": 0, "last": "EPERM", "again": "EPERM", "other": "ok"});
    until(Duration::from_secs(40), || lines(&agent).contains(&none).then_some(())).expect("a second start");
    let mut bytes = [0; 2048];
    let mut arrived = 0;
    while let Ok(len) = sink.recv(&mut bytes) {
        arrived += len;
    }
    assert!(arrived <= fit * 1000 && arrived > 0, "{arrived} bytes reached the other end");
    drop(agent);
    world.finish();
}

pub(crate) fn connections_beyond_a_rate_are_refused_and_others_are_not() {
    let world = World::start();
    let daemons = world.daemons();
    let (slow, quick, named) = ("45.90.1.10:443", "45.90.1.20:443", "good.example:8080");
    let limits = json!({"destinations": [
        {"to": slow, "connections_per_minute": 1, "connections_burst": 3},
        {"to": quick, "connections_per_second": 1},
        {"to": named, "connections_per_minute": 1},
    ]});
    let hosts = [slow, quick, named, "45.90.1.10:80"];
    let agent = start(daemons, "begins", &hosts, &limits, BEGIN);
    assert_eq!(agent.wait(), 0);
    // It has ended, and nobody had asked before.
    let sent = format!(
        "aion_agent_network_bytes_total{{tenant=\"default\",agent=\"{}\",direction=\"out\"}}",
        agent.name
    );
    let counted = until(Duration::from_secs(40), || figure(daemons, &sent).filter(|bytes| *bytes > 0.0));
    counted.expect("what an ended agent sent");
    let told = lines(&agent).pop().unwrap();
    let times = |ok: usize, all: usize| -> Vec<&'static str> {
        (0..all).map(|at| if at < ok { "ok" } else { "EPERM" }).collect()
    };
    assert_eq!(told["slow"], json!(times(3, 10)), "{told}");
    assert_eq!(told["named"], json!(times(1, 2)), "{told}");
    assert_eq!((&told["free"], &told["loopback"]), (&json!(times(20, 20)), &json!(times(20, 20))), "{told}");
    assert_eq!(
        (&told["first"], &told["refused"], &told["again"]),
        (&json!("ok"), &json!(true), &json!("ok"))
    );
    assert_eq!((GOOD[0], OTHER[0]), ("45.90.1.10", "45.90.1.20"), "the addresses that the programs have");
    for (at, limit) in
        ["connections_per_minute", "connections_per_second", "connections_per_minute"].iter().enumerate()
    {
        refused(&agent, "net.connect", &format!("resources.network.destinations[{at}].{limit}"));
    }
    drop(agent);
    world.finish();
}

/// An operator's bound: more is refused, and who names no limit has it.
pub(crate) fn what_the_operator_bounds_is_refused_or_given() {
    let world = World::start();
    let daemons = world.daemons();
    let file = own_policies(daemons).join("agent.capabilities.yaml");
    let rules = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{rules}resources:\n  network: {{bytes_out_per_hour: 64Ki}}\n")).unwrap();
    daemons.ctl(["policy", "reload"]).ok();
    let _sink = world.internet.run(|| UdpSocket::bind((GOOD[0], 9999)).unwrap());
    let to = "45.90.1.10:9999";
    let greedy = manifest(&daemons.name("greedy"), &[to], &json!({"bytes_out_per_hour": "1Mi"}), SPEND);
    let refused = daemons.ctl(["run", "-d", "-f", "-"]).stdin(greedy).done();
    refused.expect(125).says("spec.resources.network.bytes_out_per_hour").says("use 64Ki or less");
    let agent = start(daemons, "bounded", &[to], &json!({}), SPEND);
    let fit = (64 << 10) / 1028;
    let seen = more(&agent, 0)[0].clone();
    assert_eq!((&seen["sent"], &seen["last"]), (&json!(fit * 1000), &json!("EPERM")), "{seen}");
    let samples = daemons.ctl(["stats", "--no-stream", &agent.name]).json();
    assert_eq!(samples[0]["network"][0]["bytes_out_per_hour"], 64 << 10, "{samples}");
    drop(agent);
    world.finish();
}
