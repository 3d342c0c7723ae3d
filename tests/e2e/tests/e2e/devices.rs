//! Devices of the host: who was given one opens it, nobody else does, and the operator's rules take it from an agent that runs.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aion_e2e::{Daemons, Verdict, Which, until};
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use serde_json::{Value, json};

use crate::agent::{Agent, workspace};
use crate::egress_live::own_policies;

/// Nothing is changed by opening it.
const NODE: &str = "/dev/fuse";

/// Tries the same again and again.
const PROGRAM: &str = r#"
import errno, json, os, sys, time
NODE = sys.argv[1]
def attempt(path, how):
    try:
        fd = os.open(path, how | os.O_NONBLOCK)
    except OSError as e:
        return errno.errorcode[e.errno]
    os.close(fd)
    return "ok"
try:
    kept = os.open(NODE, os.O_RDONLY)
except OSError:
    kept = None
round = 0
while True:
    round += 1
    out = {"round": round, "read": attempt(NODE, os.O_RDONLY), "write": attempt(NODE, os.O_RDWR)}
    out["null"] = attempt("/dev/null", os.O_RDWR)
    # What is open stays so, and is no way to another one.
    if kept is not None:
        os.fstat(kept)
        out["again"] = attempt("/proc/self/fd/%d" % kept, os.O_RDONLY)
    print(json.dumps(out), flush=True)
    time.sleep(0.2)
"#;

/// Why no device can be given here, if so.
pub(crate) fn missing() -> Option<String> {
    let opened = fs::File::options().read(true).write(true).open(NODE);
    match opened.map(|file| file.metadata().is_ok_and(|found| found.file_type().is_char_device())) {
        Ok(true) => None,
        Ok(false) => Some(format!("{NODE} is no character device")),
        Err(error) => Some(format!("{NODE} cannot be opened here: {error}")),
    }
}

fn manifest(daemons: &Daemons, stem: &str, rules: &[&str]) -> (String, tempfile::TempDir, PathBuf) {
    let (name, folder) = (daemons.name(stem), workspace());
    let file = folder.path().join("agent.yml");
    let text = json!({
        "apiVersion": "aion.os/v1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"entry": ["/usr/bin/python3", "-c", PROGRAM, NODE], "capabilities": rules},
    });
    fs::write(&file, text.to_string()).unwrap();
    (name, folder, file)
}

fn start<'a>(daemons: &'a Daemons, stem: &str, rules: &[&str]) -> Agent<'a> {
    let (name, _folder, file) = manifest(daemons, stem, rules);
    daemons.ctl(["run", "-d", "-f", file.to_str().unwrap()]).ok();
    Agent { daemons, name }
}

/// It is not begun, and the reason says this.
fn refused(daemons: &Daemons, stem: &str, rules: &[&str], why: &str) {
    let (_, _folder, file) = manifest(daemons, stem, rules);
    let done = daemons.ctl(["run", "-d", "-f", file.to_str().unwrap()]).done();
    assert_ne!(done.code, 0, "{rules:?}");
    done.says(why);
}

/// Puts rules about devices beside those that AION ships.
fn allow(folder: &Path, rules: &[&str]) {
    let shipped = fs::read_to_string(folder.join("shipped")).unwrap();
    let more: String = rules.iter().map(|rule| format!("  - {rule}\n")).collect();
    fs::write(folder.join("new"), shipped.replace("allow:\n", &format!("allow:\n{more}"))).unwrap();
    fs::rename(folder.join("new"), folder.join("agent.capabilities.yaml")).unwrap();
}

fn reload(daemons: &Daemons) -> Value {
    daemons.ctl(["policy", "reload"]).json()
}

fn last(agent: &Agent<'_>) -> Value {
    let text = agent.logs().text();
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

/// Whole rounds from now on say this.
fn until_it_tells(agent: &Agent<'_>, what: &str, wanted: &Value) {
    let begun = last(agent)["round"].as_u64().unwrap_or_default();
    let seen = until(Duration::from_secs(60), || {
        let told = last(agent);
        let same = wanted.as_object().unwrap().iter().all(|(name, value)| told[name] == *value);
        // The round that was under way may have met both.
        (same && told["null"] == "ok" && told["round"].as_u64()? > begun + 1).then_some(())
    });
    seen.unwrap_or_else(|| panic!("{what}: {wanted} is not in {}", last(agent)));
}

fn layer(agent: &Agent<'_>) -> String {
    let layers = agent.inspect()["layers"].as_array().unwrap().clone();
    layers.iter().find(|layer| layer["name"] == "devices").unwrap()["detail"].as_str().unwrap().to_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("aion-e2e-").tempdir().unwrap()
}

pub(crate) fn who_was_given_one_opens_it_until_it_is_taken() {
    let state = folder();
    let daemons = Daemons::start_with(state.path(), &[("AION_DEVICES", NODE)]).unwrap();
    let folder = own_policies(&daemons);
    let rule = format!("device:write:{NODE}");
    let (read, write) = (format!("device:read:{NODE}"), rule.as_str());
    refused(&daemons, "unasked", &[write], "is allowed by no rule");
    allow(&folder, &[write]);
    reload(&daemons);
    let agent = start(&daemons, "given", &[write]);
    let (all, none) = (json!({"read": "ok", "write": "ok", "again": "ok"}), json!({"read": "ENOENT"}));
    until_it_tells(&agent, "at first", &all);
    let found = fs::metadata(NODE).unwrap();
    let number = format!("({}:{})", major(found.rdev()), minor(found.rdev()));
    assert!(layer(&agent).ends_with(&format!(", {rule} {number}")), "{}", layer(&agent));
    let other = start(&daemons, "other", &[]);
    until_it_tells(&other, "who has no rule", &none);
    let reader = start(&daemons, "reader", &[&read]);
    let reads = json!({"read": "ok", "write": "EPERM", "again": "ok"});
    until_it_tells(&reader, "who may read", &reads);

    allow(&folder, &[&read]);
    let held = reload(&daemons);
    assert_eq!(held.as_array().unwrap().len(), 1, "{held}");
    let taken = &held[0]["withheld_files"];
    assert_eq!((taken.as_array().unwrap().len(), &taken[0]["rule"]), (1, &json!(rule)), "{held}");
    assert_eq!(held[0]["until_restart"], json!([]), "{held}");
    until_it_tells(&agent, "writing is taken", &reads);
    assert!(layer(&agent).ends_with(&format!("; withheld: {rule}")), "{}", layer(&agent));
    let on_record = until(Duration::from_secs(20), || {
        let denied = agent.records("device.denied");
        denied.iter().any(|record| record["rule"] == format!("withheld:{rule}")).then_some(())
    });
    on_record.unwrap_or_else(|| panic!("no record names {rule}"));
    let explain = |agent: &Agent<'_>| daemons.ctl(["explain", "--agent", &agent.name]).ok().text();
    let explained = until(Duration::from_secs(20), || {
        let said = explain(&agent);
        (said.contains("was taken from the agent while it ran") && said.contains("devices")).then_some(())
    });
    explained.unwrap_or_else(|| panic!("{}", explain(&agent)));
    let line = format!("agent.yml: spec.capabilities: [\"{rule}\"]");
    let explained = until(Duration::from_secs(20), || explain(&reader).contains(&line).then_some(()));
    explained.unwrap_or_else(|| panic!("{}", explain(&reader)));

    // The kernel holds it, and whoever comes next takes it up.
    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    // Read from the journal by nobody meanwhile: what it tells afterwards counts.
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    until_it_tells(&agent, "with new daemons", &reads);

    allow(&folder, &[]);
    reload(&daemons);
    let nothing = json!({"read": "EPERM", "write": "EPERM", "again": "EPERM"});
    until_it_tells(&agent, "all of it is taken", &nothing);
    until_it_tells(&reader, "from whoever has it", &nothing);
    allow(&folder, &[write]);
    let held = reload(&daemons);
    assert!(held.as_array().unwrap().iter().all(|one| one["withheld_files"] == json!([])), "{held}");
    until_it_tells(&agent, "given back", &all);
    until_it_tells(&reader, "and no more than it had", &reads);
    assert!(!layer(&agent).contains("withheld:"), "{}", layer(&agent));
    drop((agent, other, reader));
    daemons.finish().unwrap();
}

/// A node of the test's own in the host's `/dev`.
struct Node(PathBuf);

impl Node {
    fn make(stem: &str, kind: SFlag, (major, minor): (u64, u64)) -> nix::Result<Self> {
        let path = Path::new("/dev").join(format!("aion-e2e-{}-{stem}", std::process::id()));
        mknod(&path, kind, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
        Ok(Self(path))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) fn what_no_agent_gets_is_refused_at_the_launch() -> Verdict {
    // By other names, so that aion-launcher alone can tell.
    let made = [("disk", SFlag::S_IFBLK, (7, 0)), ("memory", SFlag::S_IFCHR, (1, 1))];
    let made = made.map(|(stem, kind, number)| Node::make(stem, kind, number));
    let [Ok(disk), Ok(memory)] = made else {
        return Verdict::Skipped("no node can be made in /dev here".to_owned());
    };
    let state = folder();
    let daemons = Daemons::start_with(state.path(), &[("AION_DEVICES", "/dev/**")]).unwrap();
    let folder = own_policies(&daemons);
    allow(&folder, &["device:write:/dev/**"]);
    reload(&daemons);
    refused(&daemons, "memory", &["device:read:/dev/mem"], "given to no agent");
    refused(&daemons, "folder", &["device:read:/dev/**"], "cannot be shown as a whole");
    refused(&daemons, "absent", &["device:read:/dev/aion-no-such-node"], "/dev/aion-no-such-node");
    for (node, why) in [(&disk, "is a block device"), (&memory, "memory or the kernel's log")] {
        let rule = format!("device:read:{}", node.0.display());
        refused(&daemons, "never", &[&rule], why);
    }
    daemons.finish().unwrap();
    Verdict::Passed
}

/// Whatever the rules of aiond say.
pub(crate) fn the_launcher_gives_none_unasked() {
    let daemons = Daemons::start().unwrap();
    let folder = own_policies(&daemons);
    allow(&folder, &["device:write:/dev/**"]);
    reload(&daemons);
    refused(&daemons, "unasked", &["device:read:/dev/aion-no-such-node"], "--device /dev/aion-no-such-node");
    daemons.finish().unwrap();
}
