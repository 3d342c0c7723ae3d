//! Network mode `egress`: what the list has is reached, and nothing else; seen from the other end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use aion_e2e::{Which, until};
use serde_json::Value;

use crate::agent::{detached, python, run, sh};
use crate::egress_world::{DNS, GOOD, HOST, METADATA, OTHER, PRIVATE, Packet, World, address, alias};

/// Attempts by name, each the errno's name, `ok`, or what it gave. `names` are looked up by the C library.
const HELP: &str = r#"
import ctypes, errno, json, os, socket, struct, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
out = {}
def attempt(name, work):
    try:
        got = work()
        out[name] = got if isinstance(got, str) else "ok"
    except socket.gaierror as e:
        out[name] = "no name"
    except socket.timeout:
        out[name] = "timeout"
    except OSError as e:
        out[name] = errno.errorcode.get(e.errno, str(e))
def connect(host, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, kind)
    s.settimeout(3)
    s.connect((host, port))
    return s
def get(host, port=80):
    s = connect(host, port)
    s.sendall(b"GET / HTTP/1.1\r\n\r\n")
    return s.recv(4096).decode().split("\r\n\r\n")[1]
def send(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(3)
    s.sendto(b"x", (host, port))
    s.recv(9)
def look(name):
    return ",".join(sorted({a[4][0] for a in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}))
def done():
    print(json.dumps(out), flush=True)
"#;

fn attempts(world: &World, flags: &[&str], program: &str) -> BTreeMap<String, String> {
    let flags = [&["--network", "egress"], flags].concat();
    let done = python(world.daemons(), &flags, &format!("{HELP}\n{program}\ndone()")).ok();
    let text = done.text();
    let line = text.lines().last().unwrap_or_default();
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"));
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    value.as_object().unwrap().iter().map(|(name, v)| (name.clone(), word(v))).collect()
}

fn expect(got: &BTreeMap<String, String>, expected: &[(&str, &[&str])]) {
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(name, words)| !got.get(*name).is_some_and(|word| words.contains(&word.as_str())))
        .map(|(name, words)| format!("{name}: {:?}, not {words:?}", got.get(*name)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\nof {got:#?}");
    let untold: Vec<&String> = got.keys().filter(|name| !expected.iter().any(|(n, _)| n == name)).collect();
    assert!(untold.is_empty(), "nobody says what is right for {untold:?}");
}

fn packets(expected: &[(u8, &str, u16)]) -> BTreeSet<Packet> {
    expected.iter().map(|(protocol, to, port)| (*protocol, to.parse::<IpAddr>().unwrap(), *port)).collect()
}

pub(crate) fn allowed_names_work_for_curl_python_and_node() {
    let world = World::start();
    let daemons = world.daemons();
    let allow = ["--network", "egress", "--allow", "net:connect:good.example:80"];
    for (family, expected) in [("-4", GOOD[0]), ("-6", GOOD[1])] {
        let done = run(daemons, &allow, &["curl", "-sS", "-m", "10", family, "http://good.example/"]).ok();
        assert_eq!(done.text().trim(), expected, "curl {family}");
        let program = format!(
            "import socket, urllib.request\nreal = socket.getaddrinfo\nfamily = socket.AF_INET{}\n\
             socket.getaddrinfo = lambda h, p, f=0, *a, **k: real(h, p, family, *a, **k)\n\
             print(urllib.request.urlopen('http://good.example/', timeout=10).read().decode())",
            if family == "-6" { "6" } else { "" }
        );
        assert_eq!(python(daemons, &allow, &program).ok().text().trim(), expected, "Python {family}");
        let program = format!(
            "require('http').get({{host: 'good.example', family: {}}}, r => r.on('data', d => process.stdout.write(d)))",
            family.trim_start_matches('-')
        );
        let more = [&allow[..], &["--memory", "1Gi"]].concat();
        let done = run(daemons, &more, &["node", "-e", &program]).within(Duration::from_secs(120)).ok();
        assert_eq!(done.text().trim(), expected, "Node {family}");
    }
    assert_eq!(world.packets(), packets(&[(6, GOOD[0], 80), (6, GOOD[1], 80)]));

    // Blocks, ports and UDP; a host's private address is reached when it is named.
    let rules = ["45.90.1.0/24:443", "10.77.0.0/16:80", "*.wild.example:*", "[2a0f:2::20]:7"];
    let flags: Vec<String> =
        rules.iter().flat_map(|rule| ["--allow".to_owned(), format!("net:connect:{rule}")]).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    world.name("a.wild.example", 60, vec![alias("b.wild.example")]);
    world.name("b.wild.example", 60, vec![alias("good.example")]);
    world.name("inside.wild.example", 60, vec![address(PRIVATE)]);
    let got = attempts(
        &world,
        &flags,
        &format!(
            "attempt('block', lambda: get('{}', 443))\n\
             attempt('quic', lambda: send('{}', 443))\n\
             attempt('other port', lambda: get('{}', 80))\n\
             attempt('private', lambda: get('{PRIVATE}'))\n\
             attempt('wild', lambda: look('a.wild.example'))\n\
             attempt('wild tcp', lambda: get('{}', 8080))\n\
             attempt('named private', lambda: look('inside.wild.example'))\n\
             attempt('mapped', lambda: get('::ffff:{}', 443))\n\
             attempt('udp6', lambda: send('{}', 7))\n\
             attempt('own', lambda: socket.create_server(('127.0.0.1', 0)))",
            OTHER[0], OTHER[0], OTHER[0], GOOD[0], OTHER[0], OTHER[1]
        ),
    );
    let both = format!("{},{}", GOOD[1], GOOD[0]);
    let sorted = {
        let mut words: Vec<&str> = both.split(',').collect();
        words.sort_unstable();
        words.join(",")
    };
    expect(
        &got,
        &[
            ("block", &[OTHER[0]]),
            ("quic", &["ok"]),
            ("other port", &["EPERM"]),
            ("private", &[PRIVATE]),
            ("wild", &[&sorted]),
            ("wild tcp", &[GOOD[0]]),
            ("named private", &[PRIVATE]),
            ("mapped", &[OTHER[0]]),
            ("udp6", &["ok"]),
            ("own", &["ok"]),
        ],
    );
    let agent = detached(daemons, "seen", &allow, &["sleep", "60"]);
    let value = agent.inspect();
    let network =
        value["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == "network").unwrap();
    let detail = network["detail"].as_str().unwrap();
    for word in ["egress", "100.96.0.", "fd61:696f:6e00::", "good.example:80"] {
        assert!(detail.contains(word), "{word} is not in {detail}");
    }
    drop(agent);
    world.finish();
}

const AROUND: &str = include_str!("egress_around.py");

pub(crate) fn every_way_around_fails_and_no_packet_leaves() {
    let world = World::start();
    for (name, to) in [("private", PRIVATE), ("metadata", METADATA), ("mapped", "::ffff:10.77.0.5")] {
        world.name(&format!("{name}.good.example"), 60, vec![alias(&format!("{name}.elsewhere"))]);
        world.name(&format!("{name}.elsewhere"), 60, vec![address(to)]);
    }
    world.name("mixed.good.example", 60, vec![address(PRIVATE), address(GOOD[0])]);
    // What listens on the host, and in another agent.
    let _listener = world.host.run(|| TcpListener::bind("0.0.0.0:9999").unwrap());
    let abstract_name = |name: &[u8]| std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let _abstract = UnixListener::bind_addr(&abstract_name(b"aion-egress-e2e")).unwrap();
    let _abstract_host =
        world.host.run(|| UnixListener::bind_addr(&abstract_name(b"aion-egress-e2e-host")).unwrap());
    let serve = "import socket, time; s = socket.create_server(('0.0.0.0', 9999)); time.sleep(600)";
    let neighbour = detached(
        world.daemons(),
        "neighbour",
        &["--network", "egress", "--allow", "net:connect:*:*"],
        &["/usr/bin/python3", "-c", serve],
    );
    let at = address_of(&neighbour.inspect());
    let args = [GOOD[0], OTHER[0], GOOD[1], OTHER[1], HOST, DNS, PRIVATE, METADATA, &at]
        .map(|arg| format!("{arg:?}"))
        .join(", ");
    let program = format!("ARGS = [{args}]\n{AROUND}");
    let allow = ["--allow", "net:connect:good.example:80", "--allow", "net:connect:*.good.example:80"];
    world.packets();
    let got = attempts(&world, &allow, &program);
    let denied: &[&str] = &["EPERM"];
    let both = {
        let mut words = GOOD;
        words.sort_unstable();
        words.join(",")
    };
    expect(
        &got,
        &[
            ("before its name", denied),
            ("name", &[&both]),
            ("reached", &[GOOD[0]]),
            ("other port", denied),
            ("direct", denied),
            ("direct6", denied),
            ("mapped", denied),
            ("mapped metadata", denied),
            ("metadata", denied),
            ("private", denied),
            ("host", denied),
            ("host loopback", &["ECONNREFUSED"]),
            ("neighbour", denied),
            ("any", denied),
            ("udp", denied),
            ("udp6", denied),
            ("udp other port", denied),
            ("connected udp", denied),
            ("mapped udp", denied),
            ("unspecified family", denied),
            ("broadcast", &["EPERM", "EACCES"]),
            ("multicast", denied),
            ("multicast6", denied),
            ("dns", denied),
            ("dns tcp", denied),
            ("dns https", denied),
            ("ping", &["EPERM", "EACCES"]),
            ("ping6", &["EPERM", "EACCES"]),
            ("raw", denied),
            ("packet", denied),
            ("sctp", denied),
            ("vsock", denied),
            ("fast open", denied),
            ("other source", denied),
            ("other source6", denied),
            ("source route", &["EPERM", "timeout", "EINVAL"]),
            ("segments", &["EPERM", "EINVAL", "ENOPROTOOPT"]),
            ("alias to private", &["no name"]),
            ("alias to metadata", &["no name"]),
            ("mapped record", &["no name"]),
            ("mixed", &[GOOD[0]]),
            ("not allowed", &["no name"]),
            ("tunnel", &["no name"]),
            ("not allowed, by address", denied),
            ("abstract", &["ECONNREFUSED", "EPERM"]),
            ("abstract of the host", &["ECONNREFUSED", "EPERM"]),
            ("path", &["ENOENT"]),
            ("child", denied),
            ("thread", &["ok"]),
            ("in thread", denied),
            ("setns", denied),
            ("unshare", denied),
            ("io_uring", &["EPERM", "ENOSYS"]),
            ("netlink", denied),
        ],
    );
    assert_eq!(world.packets(), packets(&[(6, GOOD[0], 80)]), "what reached the other end");
    let asked = world.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|name| name == "good.example" || name.ends_with(".good.example")), "{asked:?}");

    // What may go everywhere goes to no private place, and not to the host either.
    let all = attempts(
        &world,
        &["--allow", "network"],
        &format!(
            "attempt('public', lambda: get('{}'))\nattempt('public6', lambda: get('{}'))\n\
             attempt('private', lambda: get('{PRIVATE}'))\nattempt('metadata', lambda: get('{METADATA}'))\n\
             attempt('neighbour', lambda: get('{at}', 9999))\nattempt('host', lambda: get('{HOST}', 9999))\n\
             attempt('name', lambda: look('private.good.example'))",
            OTHER[0], OTHER[1]
        ),
    );
    expect(
        &all,
        &[
            ("public", &[OTHER[0]]),
            ("public6", &[OTHER[1]]),
            ("private", denied),
            ("metadata", denied),
            ("neighbour", denied),
            ("host", &["EHOSTUNREACH"]),
            ("name", &["no name"]),
        ],
    );
    // Even a rule that names another agent's address, or the host's, opens neither.
    let flags = ["--allow", "net:connect:100.96.0.0/16:*"];
    let named = attempts(&world, &flags, &format!("attempt('neighbour', lambda: get('{at}', 9999))"));
    expect(&named, &[("neighbour", &["EHOSTUNREACH"])]);
    // Nobody reaches an agent from outside.
    let outside = world.internet.run(|| {
        std::net::TcpStream::connect_timeout(&format!("{at}:9999").parse().unwrap(), Duration::from_secs(1))
    });
    assert!(outside.is_err());
    drop(neighbour);

    for word in ["\"net.connect\"", "\"denied\"", OTHER[0], "api.net.resolve", "c2vjcmv0.tunnel.example"] {
        let told = || {
            let events = world.daemons().ctl(["events", "-o", "jsonl"]).ok().text();
            events.contains(word).then_some(())
        };
        until(Duration::from_secs(20), told).unwrap_or_else(|| panic!("{word} is not told"));
    }
    world.finish();
}

fn address_of(inspected: &Value) -> String {
    let layers = inspected["layers"].as_array().unwrap();
    let network = layers.iter().find(|layer| layer["name"] == "network").unwrap()["detail"].as_str().unwrap();
    network.trim_start_matches("egress: ").split(',').next().unwrap().to_owned()
}

pub(crate) fn names_are_asked_for_by_the_list_and_run_out() {
    let world = World::start();
    // Rebound: good for a second, then elsewhere.
    world.name("moves.example", 1, vec![address(GOOD[0])]);
    let program = format!(
        "attempt('first', lambda: look('moves.example'))\nattempt('reached', lambda: get('{0}'))\n\
         held = connect('{0}', 80)\nprint('now', flush=True)\nimport time\ntime.sleep(9)\n\
         attempt('stale', lambda: get('{0}'))\n\
         def on():\n    held.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')\n    return held.recv(999).decode().split('\\r\\n\\r\\n')[1]\n\
         attempt('open connection', on)\n\
         attempt('rebound', lambda: look('moves.example'))\nattempt('private', lambda: get('{1}'))",
        GOOD[0], PRIVATE
    );
    let names = std::sync::Arc::clone(&world.names);
    let mover = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(5));
        if let Some(zone) = names.lock().unwrap().get_mut("moves.example") {
            zone.data = vec![address(PRIVATE)];
        }
    });
    let got = attempts(&world, &["--allow", "net:connect:moves.example:80"], &program);
    mover.join().unwrap();
    expect(
        &got,
        &[
            ("first", &[GOOD[0]]),
            ("reached", &[GOOD[0]]),
            ("stale", &["EPERM"]),
            ("open connection", &[GOOD[0]]),
            ("rebound", &["no name"]),
            ("private", &["EPERM"]),
        ],
    );
    assert_eq!(world.packets(), packets(&[(6, GOOD[0], 80)]));
    // A name that is answered with more and more addresses fills its own room, not the kernel.
    let flood = "for i in range(60): attempt('n', lambda: look('n%d.flood.example' % i))";
    for i in 0..60u8 {
        let data = (0..16u8).map(|k| address(&format!("45.91.{i}.{k}"))).collect();
        world.name(&format!("n{i}.flood.example"), 60, data);
    }
    let got = attempts(&world, &["--allow", "net:connect:*.flood.example:80"], flood);
    expect(&got, &[("n", &["no name"])]);
    world.finish();
}

pub(crate) fn verdicts_outlive_the_daemons() {
    let world = World::start();
    let daemons = world.daemons();
    let script = format!(
        "{HELP}\nimport time\nlook('good.example')\nfixed = '{0}'\n\
         while True:\n    out = {{}}\n    attempt('fixed', lambda: get(fixed, 443))\n    attempt('name', lambda: get('{1}'))\n\
         \x20   attempt('denied', lambda: get('{0}', 80))\n    done()\n    time.sleep(0.2)",
        OTHER[0], GOOD[0]
    );
    let rules = ["--network", "egress", "--allow", "net:connect:good.example:80", "--allow"];
    let flags = [&rules[..], &["net:connect:45.90.1.20:443"]].concat();
    let agent = detached(daemons, "lives", &flags, &["/usr/bin/python3", "-c", &script]);
    let right = format!(r#"{{"fixed": "{}", "name": "{}", "denied": "EPERM"}}"#, OTHER[0], GOOD[0]);
    let lines = || {
        let text = daemons.ctl(["logs", &agent.name]).ok().text();
        let all: Vec<String> = text.lines().map(str::to_owned).collect();
        all
    };
    until(Duration::from_secs(20), || (lines().len() > 2).then_some(())).expect("its first lines");
    let before = lines().len();
    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    std::thread::sleep(Duration::from_secs(2));
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    until(Duration::from_secs(20), || (lines().len() > before + 12).then_some(())).expect("it runs on");
    let wrong: Vec<String> = lines().into_iter().filter(|line| *line != right).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // A command in the agent is held to the same.
    let code = format!("import socket; socket.create_connection(('{}', 80), 3)", OTHER[0]);
    let done = daemons.ctl(["exec", &agent.name, "/usr/bin/python3", "-c", &code]).done();
    assert!(done.code != 0 && done.err.contains("Operation not permitted"), "{}", done.err);
    // Names are looked up again, for the agent that was adopted and by whichever daemon died.
    let ask = || {
        let done = daemons.ctl(["exec", &agent.name, "getent", "ahostsv4", "good.example"]).done();
        String::from_utf8_lossy(&done.out).contains(GOOD[0]).then_some(())
    };
    until(Duration::from_secs(30), ask).expect("a resolver after both were killed");
    for which in [Which::Aiond, Which::Launcher] {
        daemons.kill_and_restart(which).unwrap();
        until(Duration::from_secs(30), ask).expect("a resolver after one was killed");
    }
    drop(agent);
    let left = world.host.run(|| std::fs::read_to_string("/proc/net/dev").unwrap());
    assert!(!left.contains("aion-"), "the network of an agent that is gone: {left}");
    world.finish();
}

pub(crate) fn what_cannot_be_set_up_does_not_start() {
    let world = World::start();
    let daemons = world.daemons();
    let start = || {
        sh(daemons, &["--network", "egress", "--allow", "net:connect:good.example:80"], "echo started").done()
    };
    // The host has routes to every block that agents could have.
    let blocks = ["100.96.0.0/16", "10.213.0.0/16", "172.29.0.0/16", "192.168.240.0/20"];
    blocks.iter().for_each(|block| world.host.ip(&format!("route add {block} via {DNS}")));
    let done = start();
    assert_ne!(done.code, 0);
    for word in ["network", "--egress-pool"] {
        assert!(done.err.contains(word), "{word} is not in {}", done.err);
    }
    assert!(!String::from_utf8_lossy(&done.out).contains("started"));
    let left = world.host.run(|| std::fs::read_to_string("/proc/net/dev").unwrap());
    assert!(!left.contains("aion-"), "{left}");
    world.host.ip("route del 10.213.0.0/16");
    let done = start();
    assert_eq!((done.code, String::from_utf8_lossy(&done.out).trim()), (0, "started"), "{}", done.err);
    for (rule, word) in
        [("127.0.0.1:80", "loopback"), ("10.0.0.1/8:80", "no block"), ("good.example", "port")]
    {
        let flags = ["--network", "egress", "--allow", &format!("net:connect:{rule}")];
        let done = sh(daemons, &flags, "true").done();
        assert!(done.code != 0 && done.err.contains(word), "{rule}: {} {}", done.code, done.err);
    }
    world.finish();
}
