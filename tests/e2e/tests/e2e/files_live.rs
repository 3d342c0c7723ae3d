//! Files and programs of agents that run: the operator's rules are read anew, and what they take is refused from the next call on, by
//! BPF LSM. Runs where the kernel has `bpf` in its LSM list (the machines of `cargo xtask vm`).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aion_e2e::{Daemons, Which, until};
use serde_json::{Value, json};

use crate::agent::{Agent, detached, path, workspace};
use crate::egress_live::{own_policies, policy};

/// Does the same things again and again, and leaves what became of them where it is seen without any daemon.
const PROGRAM: &str = r#"
import errno, json, os, subprocess, sys, time
TAKEN, KEPT = sys.argv[1:3]
def read(folder):
    open(folder + "/file").read()
def names(folder):
    os.listdir(folder)
def write(folder):
    open(folder + "/out", "w").write("x")
def make(folder):
    if os.path.exists(folder + "/new"):
        os.unlink(folder + "/new")
    else:
        os.close(os.open(folder + "/new", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
def move(folder):
    there = os.path.exists(folder + "/a")
    os.rename(folder + ("/a" if there else "/b"), folder + ("/b" if there else "/a"))
def link(folder):
    if os.path.exists(folder + "/linked"):
        os.unlink(folder + "/linked")
    else:
        os.link(folder + "/file", folder + "/linked")
def execute(program):
    subprocess.run([program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
def attempt(work, at):
    try:
        work(at)
        return "ok"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
for name in (TAKEN, KEPT):
    open(name + "/a", "w").close()
kept_open = open(TAKEN + "/file")
round = 0
while True:
    round += 1
    out = {"round": round}
    for name, folder in (("taken", TAKEN), ("kept", KEPT)):
        for work in (read, names, write, make, move, link):
            out[name + " " + work.__name__] = attempt(work, folder)
    out["id"] = attempt(execute, "/usr/bin/id")
    out["true"] = attempt(execute, "/usr/bin/true")
    out["open"] = attempt(lambda f: f.seek(0) or f.read(), kept_open)
    with open(KEPT + "/told.new", "w") as told:
        json.dump(out, told)
    os.rename(KEPT + "/told.new", KEPT + "/told")
    time.sleep(0.2)
"#;

/// Why files of a running agent cannot be taken here, if so.
pub(crate) fn missing() -> Option<String> {
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let list = list.trim();
    (!list.split(',').any(|name| name == "bpf")).then(|| format!("no BPF LSM here: the list is {list:?}"))
}

struct Live<'a> {
    agent: Agent<'a>,
    taken: tempfile::TempDir,
    kept: tempfile::TempDir,
    _manifest: tempfile::TempDir,
}

/// A folder that the agent may write to.
fn folder() -> tempfile::TempDir {
    let folder = workspace();
    fs::write(folder.path().join("file"), "text").unwrap();
    for (name, mode) in [("", 0o777), ("file", 0o666)] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
}

fn start(daemons: &Daemons) -> Live<'_> {
    let (taken, kept, manifest) = (folder(), folder(), workspace());
    let name = daemons.name("files");
    let file = manifest.path().join("agent.yml");
    let text = json!({
        "apiVersion": "aion.os/v1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {
            "entry": ["/usr/bin/python3", "-c", PROGRAM, path(&taken), path(&kept)],
            "capabilities": [
                format!("fs:write:{}/**", path(&taken)), format!("fs:write:{}/**", path(&kept)),
                "exec:/usr/bin/id", "exec:/usr/bin/true",
            ],
        },
    });
    fs::write(&file, text.to_string()).unwrap();
    daemons.ctl(["run", "-d", "-f", file.to_str().unwrap()]).ok();
    Live { agent: Agent { daemons, name }, taken, kept, _manifest: manifest }
}

/// What the six things that it does to a folder come to.
fn all(name: &str, reading: &str, writing: &str) -> Value {
    let uses = [("read", reading), ("names", reading)];
    let changes = ["write", "make", "move", "link"].map(|work| (work, writing));
    uses.into_iter().chain(changes).map(|(work, end)| (format!("{name} {work}"), Value::from(end))).collect()
}

impl Live<'_> {
    fn told(&self) -> Value {
        let text = fs::read(self.kept.path().join("told")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Whole rounds from now on say this, beside that what is kept works.
    fn until_it_tells(&self, what: &str, wanted: &[Value]) {
        let mut wanted = wanted.to_vec();
        wanted.extend([all("kept", "ok", "ok"), json!({"true": "ok", "open": "ok"})]);
        let begun = self.told()["round"].as_u64().unwrap_or_default();
        let seen = until(Duration::from_secs(60), || {
            let told = self.told();
            let fields = wanted.iter().flat_map(|part| part.as_object().unwrap());
            let same = fields.into_iter().all(|(name, value)| told[name] == *value);
            // The round that was under way may have met both.
            (same && told["round"].as_u64()? > begun + 1).then_some(())
        });
        seen.unwrap_or_else(|| panic!("{what}: {wanted:?} is not in {}", self.told()));
    }

    fn layer(&self) -> String {
        let layers = self.agent.inspect()["layers"].as_array().unwrap().clone();
        layers.iter().find(|layer| layer["name"] == "lsm").unwrap()["detail"].as_str().unwrap().to_owned()
    }
}

fn reload(daemons: &Daemons) -> Value {
    daemons.ctl(["policy", "reload"]).json()
}

fn rules(held: &Value) -> Vec<&str> {
    let all = held[0]["withheld_files"].as_array().unwrap_or_else(|| panic!("{held}"));
    all.iter().map(|one| one["rule"].as_str().unwrap()).collect()
}

pub(crate) fn rules_are_taken_and_given_back_while_it_works() {
    let daemons = Daemons::start().unwrap();
    let folder = own_policies(&daemons);
    let live = start(&daemons);
    let (taken, nothing) = (path(&live.taken).to_owned(), [all("taken", "ok", "ok"), json!({"id": "ok"})]);
    live.until_it_tells("at first", &nothing);
    assert_eq!(reload(&daemons), json!([]), "nothing has changed");
    live.until_it_tells("without a change of the rules", &nothing);

    let deny = format!("  - fs:read:{taken}/**\n  - exec:/usr/bin/id\n");
    policy(&folder, &deny);
    let look = daemons.ctl(["policy", "reload", "--dry-run"]).json();
    let expected = [format!("fs:write:{taken}"), format!("fs:read:{taken}"), "exec:/usr/bin/id".to_owned()];
    assert_eq!(rules(&look), expected, "{look}");
    live.until_it_tells("a look changes nothing", &nothing);
    let held = reload(&daemons);
    assert_eq!((rules(&held), &held[0]["until_restart"]), (rules(&look), &json!([])), "{held}");
    assert!(
        held[0]["withheld_files"][0]["why"].as_str().unwrap().contains("agent.capabilities.yaml:"),
        "{held}"
    );
    let refused = [all("taken", "EACCES", "EACCES"), json!({"id": "EACCES"})];
    live.until_it_tells("taken", &refused);
    let told = format!("; withheld: exec:/usr/bin/id fs:read:{taken} fs:write:{taken}");
    assert!(live.layer().ends_with(&told), "{}", live.layer());
    for rule in &expected {
        let on_record = until(Duration::from_secs(20), || {
            let denied = live.agent.records("lsm.denied");
            let named = |record: &Value| record["rule"] == format!("withheld:{rule}");
            denied.iter().any(|record| named(record) && record["verdict"] == "denied").then_some(())
        });
        on_record.unwrap_or_else(|| panic!("no record names {rule}"));
    }
    let explain = || daemons.ctl(["explain", "--agent", &live.agent.name]).ok().text();
    let explained = until(Duration::from_secs(20), || {
        explain().contains("was taken from the agent while it ran").then_some(())
    });
    explained.unwrap_or_else(|| panic!("{}", explain()));
    let told = daemons.ctl(["audit", "query", "--kind", "api.policy.held", "-o", "jsonl"]).ok().json_lines();
    assert!(told.iter().any(|record| record["detail"].to_string().contains(&taken)), "{told:?}");

    // The kernel holds it, and whoever comes next takes it up.
    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    live.until_it_tells("with both daemons dead", &refused);
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    live.until_it_tells("with new daemons", &refused);

    // Who may not write may still read.
    policy(&folder, &format!("  - fs:write:{taken}/out\n"));
    let held = reload(&daemons);
    assert_eq!(rules(&held), [format!("fs:write:{taken}")], "{held}");
    assert_eq!(
        held[0]["files_given_back"],
        json!(["exec:/usr/bin/id", format!("fs:read:{taken}")]),
        "{held}"
    );
    live.until_it_tells("writing alone is taken", &[all("taken", "ok", "EACCES"), json!({"id": "ok"})]);

    // The rules change while aiond is away.
    daemons.kill(Which::Aiond);
    policy(&folder, "");
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    live.until_it_tells("given back", &nothing);
    assert!(!live.layer().contains("withheld:"), "{}", live.layer());
    assert_eq!(live.agent.state(), "running");
    drop(live);
    daemons.finish().unwrap();
}

/// It is killed at some moment of each of several reloads, also between what is written and what the kernel holds.
pub(crate) fn a_launcher_that_dies_in_a_reload_does_it_afterwards() {
    let daemons = Daemons::start().unwrap();
    let folder = own_policies(&daemons);
    let live = start(&daemons);
    let deny = format!("  - fs:read:{}/**\n", path(&live.taken));
    live.until_it_tells("at first", &[all("taken", "ok", "ok")]);
    for (round, pause) in [0, 1, 3, 8].into_iter().enumerate() {
        let is_taken = round % 2 == 0;
        policy(&folder, if is_taken { &deny } else { "" });
        let reload = daemons.ctl(["policy", "reload"]).spawn();
        std::thread::sleep(Duration::from_millis(pause));
        daemons.kill_and_restart(Which::Launcher).unwrap();
        // It may have failed for that; then aiond does it when the launcher is back.
        let _ = reload.done();
        let end = if is_taken { "EACCES" } else { "ok" };
        live.until_it_tells(&format!("killed {pause} ms after the reload began"), &[all("taken", end, end)]);
    }
    drop(live);
    daemons.finish().unwrap();
}

/// A folder that the agent has moved is found all the same: what counts is what it is, not where.
pub(crate) fn what_the_agent_moved_is_found() {
    let daemons = Daemons::start().unwrap();
    let rules = own_policies(&daemons);
    let outer = folder();
    fs::create_dir_all(outer.path().join("way/inner")).unwrap();
    fs::write(outer.path().join("way/inner/secret"), "text").unwrap();
    let place = path(&outer);
    // The inner folder is a mount of its own, which hangs in the outer one.
    let flags = [format!("fs:write:{place}/**"), format!("fs:read:{place}/way/inner/**")];
    let flags = ["--allow", &flags[0], "--allow", &flags[1]];
    let script = format!(
        "cd {place} && mv way gone && mkdir -p way/inner || exit 9
         while sleep 0.2; do cat gone/inner/secret >/dev/null 2>&1 && echo read || echo refused; done"
    );
    let agent = detached(&daemons, "mover", &flags, &["sh", "-c", &script]);
    let says = |word: &str| {
        let seen = until(Duration::from_secs(30), || agent.logs().text().ends_with(word).then_some(()));
        seen.unwrap_or_else(|| panic!("{:?} does not end with {word:?}", agent.logs().text()));
    };
    says("read\n");
    policy(&rules, &format!("  - fs:read:{place}/way/inner/**\n"));
    let held = reload(&daemons);
    assert_eq!(held[0]["error"], "", "{held}");
    says("refused\n");
    policy(&rules, "");
    reload(&daemons);
    says("read\n");
    drop(agent);
    daemons.finish().unwrap();
}

/// An agent that moves a folder all the time keeps nothing by that.
pub(crate) fn moving_all_the_time_keeps_nothing() {
    let daemons = Daemons::start().unwrap();
    let rules = own_policies(&daemons);
    let (outer, other) = (folder(), folder());
    fs::create_dir_all(outer.path().join("way/inner")).unwrap();
    fs::write(outer.path().join("way/inner/secret"), "text").unwrap();
    fs::set_permissions(outer.path().join("way"), fs::Permissions::from_mode(0o777)).unwrap();
    let (place, plain) = (path(&outer), path(&other));
    let flags = [
        format!("fs:write:{place}/**"),
        format!("fs:read:{place}/way/inner/**"),
        format!("fs:read:{plain}/**"),
    ];
    let flags = ["--allow", &flags[0], "--allow", &flags[1], "--allow", &flags[2]];
    let program = format!(
        r#"
import os, threading, time
os.chdir("{place}")
def move():
    while True:
        for way in (("way", "gone"), ("gone", "way")):
            try:
                os.rename(*way)
            except OSError:
                pass
def reads(*names):
    for name in names * 50:
        try:
            return open(name).read() == "text"
        except OSError:
            pass
    return False
threading.Thread(target=move, daemon=True).start()
while True:
    print(reads("way/inner/secret", "gone/inner/secret"), reads("{plain}/file"), flush=True)
    time.sleep(0.2)
"#
    );
    let agent = detached(&daemons, "whirl", &flags, &["/usr/bin/python3", "-c", &program]);
    let says = |words: &str| {
        let seen = until(Duration::from_secs(60), || agent.logs().text().ends_with(words).then_some(()));
        seen.unwrap_or_else(|| panic!("{:?} does not end with {words:?}", agent.logs().text()));
    };
    says("True True\n");
    policy(&rules, &format!("  - fs:read:{place}/way/inner/**\n  - fs:read:{plain}/**\n"));
    let held = reload(&daemons);
    assert_eq!(held[0]["error"], "", "{held}");
    says("False False\n");
    let layers = agent.inspect()["layers"].to_string();
    assert!(layers.contains("; withheld: ") && !layers.contains("being withheld"), "{layers}");
    policy(&rules, "");
    reload(&daemons);
    says("True True\n");
    drop(agent);
    daemons.finish().unwrap();
}
