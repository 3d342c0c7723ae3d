//! Network mode `egress` while agents run: the operator's rules are read anew, and what they take is taken at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aion_e2e::{Daemons, Which, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::agent::{Agent, detached};
use crate::egress_world::{Packet, World};

/// Keeps connections to a block and to a name, and tells again and again what becomes of them and of new ones.
const PROGRAM: &str = r#"
import errno, json, select, socket, time
FIXED, NAME, MANY = "45.90.1.20", "good.example", 200
def connect(host, port):
    s = socket.create_connection((host, port), 3)
    return s
def attempt(work):
    try:
        work()
        return "ok"
    except socket.gaierror:
        return "no name"
    except socket.timeout:
        return "timeout"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def new(host, port):
    return attempt(lambda: connect(host, port).close())
# Once: questions are counted.
named = socket.getaddrinfo(NAME, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
kept = {"fixed": [connect(FIXED, 443) for _ in range(MANY)], "named": [connect(named, 80) for _ in range(MANY)]}
while True:
    out = {"new fixed": new(FIXED, 443), "new named": new(NAME, 80)}
    for name, sockets in kept.items():
        for s in sockets:
            s.setblocking(False)
            try:
                s.send(b"GET / HTTP/1.1\r\n\r\n")
            except OSError:
                pass
        heard, end = set(), time.monotonic() + 0.7
        while len(heard) < len(sockets) and time.monotonic() < end:
            ready, _, _ = select.select([s for s in sockets if s not in heard], [], [], 0.1)
            for s in ready:
                try:
                    s.recv(4096)
                except OSError:
                    pass
                heard.add(s)
        out[name] = len(heard)
    print(json.dumps(out), flush=True)
"#;

/// Puts these lines first among what the shipped rules deny.
pub(crate) fn policy(folder: &Path, deny: &str) {
    let text = fs::read_to_string(folder.join("shipped")).unwrap();
    // Put there as a whole, as an editor does it.
    fs::write(folder.join("new"), text.replace("deny:\n", &format!("deny:\n{deny}"))).unwrap();
    fs::rename(folder.join("new"), folder.join("agent.capabilities.yaml")).unwrap();
}

fn begin(world: &mut World) -> PathBuf {
    own_policies(world.daemons())
}

/// Has aiond read its rules from a folder of the test's own.
pub(crate) fn own_policies(daemons: &Daemons) -> PathBuf {
    let folder = daemons.state().join("policies");
    fs::create_dir(&folder).unwrap();
    let shipped = daemons.clone_dir().join("policies/agent.capabilities.yaml");
    fs::copy(shipped, folder.join("shipped")).unwrap();
    policy(&folder, "");
    // aiond's user reads it when it is asked to.
    for readable in [folder.as_path(), daemons.state(), daemons.state().parent().unwrap()] {
        fs::set_permissions(readable, fs::Permissions::from_mode(0o755)).unwrap();
    }
    daemons.kill_and_restart(Which::Aiond).unwrap();
    folder
}

fn last(agent: &Agent<'_>) -> Value {
    let text = agent.logs().text();
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

fn until_it_tells(agent: &Agent<'_>, what: &str, wanted: &Value) {
    let seen = until(Duration::from_secs(40), || {
        let told = last(agent);
        wanted.as_object().unwrap().iter().all(|(name, value)| told[name] == *value).then_some(())
    });
    seen.unwrap_or_else(|| panic!("{what}: {wanted} is not in {}", last(agent)));
}

#[expect(clippy::print_stdout, reason = "a test's output")]
fn reload(world: &World) -> Value {
    let begun = Instant::now();
    let held = world.daemons().ctl(["policy", "reload"]).json();
    println!("the rules were taken in {} ms", begun.elapsed().as_millis());
    held
}

pub(crate) fn rules_are_taken_and_given_back_under_open_connections() {
    let mut world = World::start();
    let folder = begin(&mut world);
    let daemons = world.daemons();
    let flags = ["--network", "egress", "--allow", "net:connect:good.example:80", "--allow"];
    let flags = [&flags[..], &["net:connect:45.90.1.20:443"]].concat();
    let agent = detached(daemons, "live", &flags, &["/usr/bin/python3", "-c", PROGRAM]);
    let all = json!({"new fixed": "ok", "new named": "ok", "fixed": 200, "named": 200});
    until_it_tells(&agent, "at first", &all);
    assert_eq!(reload(&world), json!([]), "nothing has changed");

    policy(&folder, "  - net:connect:45.90.1.0/24:443\n");
    let look = daemons.ctl(["policy", "reload", "--dry-run"]).json();
    assert_eq!(look[0]["withheld"][0]["host"], "45.90.1.20:443", "{look}");
    until_it_tells(&agent, "a look changes nothing", &all);
    let held = reload(&world);
    world.packets();
    assert_eq!(
        (&held[0]["name"], &held[0]["withheld"]),
        (&json!(agent.name), &look[0]["withheld"]),
        "{held}"
    );
    assert!(held[0]["withheld"][0]["why"].as_str().unwrap().contains("agent.capabilities.yaml:"), "{held}");
    let taken = json!({"new fixed": "EPERM", "new named": "ok", "fixed": 0, "named": 200});
    until_it_tells(&agent, "a block is taken, its connections are cut, the name's go on", &taken);
    let seen: Vec<Packet> = world.packets().into_iter().filter(|(_, _, port)| *port == 443).collect();
    assert_eq!(seen, [], "packets after the rules were taken");
    let layer = |agent: &Agent<'_>| {
        let layers = agent.inspect()["layers"].as_array().unwrap().clone();
        layers.iter().find(|layer| layer["name"] == "network").unwrap()["detail"].as_str().unwrap().to_owned()
    };
    assert!(layer(&agent).ends_with("; withheld: 45.90.1.20:443"), "{}", layer(&agent));

    // A file that cannot be used changes nothing.
    fs::write(folder.join("agent.capabilities.yaml"), "deny: [net:connect:nowhere").unwrap();
    daemons.ctl(["policy", "reload"]).done().expect(1).says("agent.capabilities.yaml:1");
    until_it_tells(&agent, "after a file that is none", &taken);
    policy(&folder, "  - net:connect:45.90.1.0/24:443\n");
    for which in [Which::Launcher, Which::Aiond] {
        daemons.kill_and_restart(which).unwrap();
        until_it_tells(&agent, "after a daemon was killed", &taken);
    }
    // The rules change while aiond is away.
    daemons.kill(Which::Aiond);
    policy(&folder, "");
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    until_it_tells(&agent, "given back", &json!({"new fixed": "ok", "new named": "ok", "named": 200}));
    assert!(!layer(&agent).contains("withheld"), "{}", layer(&agent));

    policy(&folder, "  - net:connect:good.example:*\n");
    let held = reload(&world);
    assert_eq!(held[0]["withheld"][0]["host"], "good.example:80", "{held}");
    let taken = json!({"new fixed": "ok", "new named": "no name", "named": 0});
    until_it_tells(&agent, "a name is taken with all that it led to", &taken);
    // New agents are held to the same rules.
    let done =
        daemons.ctl(["run", "--network", "egress", "--allow", "net:connect:good.example:80", "--", "true"]);
    done.done().expect(125).says("good.example");
    let told = daemons.ctl(["audit", "query", "--kind", "api.policy.held", "-o", "jsonl"]).ok().json_lines();
    assert!(told.iter().any(|record| record["detail"].to_string().contains("45.90.1.20:443")), "{told:?}");

    // By a signal, too; it is on record.
    policy(&folder, "");
    let pid = daemons.pid(Which::Aiond).unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGHUP).unwrap();
    until_it_tells(&agent, "given back by a signal", &json!({"new fixed": "ok", "new named": "ok"}));
    let told =
        daemons.ctl(["audit", "query", "--kind", "api.policy.reload", "-o", "jsonl"]).ok().json_lines();
    let by_signal = told.iter().find(|record| record["detail"]["by"] == "SIGHUP");
    assert_eq!(by_signal.unwrap_or_else(|| panic!("{told:?}"))["detail"]["taken"], true);
    drop(agent);
    world.finish();
}

/// Says on and on whether a host is reached.
const ASKS: &str = r#"
import socket, time
while True:
    try:
        socket.create_connection(("45.90.1.20", 443), 3).close()
        print("ok", flush=True)
    except OSError as e:
        print(e.errno, flush=True)
    time.sleep(0.05)
"#;

/// It is killed at some moment of each of several reloads, also between what is written and what the kernel's table says.
pub(crate) fn a_launcher_that_dies_in_a_reload_does_it_afterwards() {
    let mut world = World::start();
    let folder = begin(&mut world);
    let daemons = world.daemons();
    let flags = ["--network", "egress", "--allow", "net:connect:45.90.1.20:443"];
    let agent = detached(daemons, "dies", &flags, &["/usr/bin/python3", "-c", ASKS]);
    let says = |what: &str, wanted: &str| {
        let seen = until(Duration::from_secs(40), || {
            let text = agent.logs().text();
            // The last but one may have been on its way.
            let mut last = text.lines().rev().take(2);
            last.all(|line| line == wanted).then_some(())
        });
        seen.unwrap_or_else(|| panic!("{what}: the agent does not say {wanted}"));
    };
    says("at first", "ok");
    for (round, pause) in [0, 1, 2, 4, 7, 12].into_iter().enumerate() {
        let is_taken = round % 2 == 0;
        policy(&folder, if is_taken { "  - net:connect:45.90.1.0/24:443\n" } else { "" });
        let reload = daemons.ctl(["policy", "reload"]).spawn();
        std::thread::sleep(Duration::from_millis(pause));
        daemons.kill_and_restart(Which::Launcher).unwrap();
        // It may have failed for that; then aiond does it when the launcher is back.
        let _ = reload.done();
        says(&format!("killed {pause} ms after the reload began"), if is_taken { "1" } else { "ok" });
    }
    drop(agent);
    world.finish();
}

/// What no kernel takes back is told, and taken at the next start.
pub(crate) fn what_stays_until_the_next_start_is_told() {
    let mut world = World::start();
    let folder = begin(&mut world);
    let daemons = world.daemons();
    let place = crate::agent::workspace();
    let share = format!("fs:read:{}/**", crate::agent::path(&place));
    let agent = detached(daemons, "stays", &["--allow", &share], &["sleep", "600"]);
    policy(&folder, &format!("  - {share}\n"));
    let held = reload(&world);
    // Where the kernel can it is taken at once, see `files_live`.
    match crate::files_live::missing() {
        Some(_) => {
            let told = held[0]["until_restart"][0].as_str().unwrap();
            assert!(told.contains(&share) && told.contains("agent.capabilities.yaml:"), "{held}");
            assert_eq!(held[0]["withheld_files"], json!([]));
        }
        None => assert_eq!(held[0]["until_restart"], json!([]), "{held}"),
    }
    assert_eq!(held[0]["withheld"], json!([]));
    assert_eq!(agent.state(), "running");
    drop(agent);
    world.finish();
}
