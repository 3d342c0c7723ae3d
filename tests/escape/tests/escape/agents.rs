//! The attempts, inside agents.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aion_e2e::{Daemons, Done, Live, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::table::{Listed, Outcome, Results, outcomes, program};

/// Must not reach an agent.
const CANARY: &str = "AION_ESCAPE_CANARY";

/// What the attempts aim at on the host, for as long as this lives.
struct Targets {
    child: Child,
    json: Value,
    _folder: TempDir,
}

impl Targets {
    fn new(daemons: &Daemons) -> Self {
        let folder = tempfile::Builder::new().prefix("aion-escape-targets-").tempdir().unwrap();
        // Everybody on the host may read it: only the sandbox hides it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(program())
            .arg("targets")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut json: Value = serde_json::from_str(&line).expect("targets");
        let state = daemons.state();
        let aion: Vec<_> = [
            "run/aion.sock",
            "run/launcher.sock",
            "launcher/audit.key",
            "audit/HEAD",
            "db",
            "agents",
            "secrets",
        ]
        .iter()
        .map(|name| state.join(name).to_string_lossy().into_owned())
        .chain(["/run/aion/aion.sock".to_owned(), "/var/lib/aion".to_owned()])
        .collect();
        for (key, value) in [
            ("workspace", json!("/workspace")),
            ("init", json!(1)),
            ("init_apart", json!(1)),
            ("user_namespace", json!("/proc/self/ns/user")),
            ("aion", json!(aion)),
        ] {
            json[key] = value;
        }
        Self { child, json, _folder: folder }
    }

    /// The bystander is as it was.
    fn are_unharmed(&self) -> bool {
        let pid = &self.json["bystander"];
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") S "))
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A folder with the program and the targets, to be shown to an agent. Not in /tmp, where agents have one of
/// their own.
fn folder(targets: &Targets) -> TempDir {
    let folder = tempfile::Builder::new().prefix("aion-escape-agent-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("aion-escape");
    fs::copy(program(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("targets.json"), targets.json.to_string()).unwrap();
    folder
}

pub(crate) fn run_all(daemons: &Daemons, list: &[Listed]) -> Results {
    let targets = Targets::new(daemons);
    let mut results = Results::new();
    let mut add = |outcomes: Vec<Outcome>| results.extend(outcomes.into_iter().map(|o| (o.id.clone(), o)));
    for place in ["agent", "no-subprocess"] {
        add(together(daemons, &targets, place));
    }
    for attempt in list.iter().filter(|attempt| attempt.place == "alone") {
        add(vec![alone(daemons, &targets, &attempt.id)]);
    }
    assert!(targets.are_unharmed(), "an attempt reached the bystander on the host");
    results
}

/// All attempts of a place in one agent.
fn together(daemons: &Daemons, targets: &Targets, place: &str) -> Vec<Outcome> {
    let folder = folder(targets);
    let manifest = folder.path().join("agent.yml");
    let entry = json!(["/workspace/aion-escape", "try-all", place, "/workspace/targets.json"]);
    fs::write(
        &manifest,
        json!({
            "apiVersion": "aion.os/v1",
            "kind": "Agent",
            "metadata": {"name": daemons.name("escape")},
            "spec": {
                "entry": entry,
                "capabilities": {"filesystem": true, "subprocess": place == "agent"},
                "workspace": folder.path().to_string_lossy(),
                // A folder of the host has the limit that its file system gives, if any.
                "allow_degraded": ["disk"],
            },
        })
        .to_string(),
    )
    .unwrap();
    let done = start(daemons, &manifest).done();
    let outcomes = outcomes(&done.out);
    if outcomes.is_empty() {
        println!("the agent for {place} ended with {} and said: {}", done.code, done.err);
    }
    outcomes
}

fn start(daemons: &Daemons, manifest: &Path) -> Live {
    let arguments = ["run", "--rm", "-f", manifest.to_str().unwrap()];
    daemons.ctl(arguments).env(CANARY, "1").within(Duration::from_secs(300)).spawn()
}

/// One attempt in an agent with small limits.
fn alone(daemons: &Daemons, targets: &Targets, id: &str) -> Outcome {
    let folder = folder(targets);
    let shared = folder.path().to_string_lossy().into_owned();
    // What is measured from outside needs a folder that both see; what fills the disk a limited one.
    let measured = matches!(id, "exhaust-inotify" | "exhaust-pending-signals");
    let manifest = folder.path().join("agent.yml");
    fs::write(
        &manifest,
        json!({
            "apiVersion": "aion.os/v1",
            "kind": "Agent",
            "metadata": {"name": daemons.name("escape")},
            "spec": {
                "entry": [format!("{shared}/aion-escape"), "try", id, format!("{shared}/targets.json")],
                "capabilities": ["filesystem", "exec:/**", format!("fs:read:{shared}/**")],
                "workspace": if measured { json!(shared) } else { json!("managed") },
                "allow_degraded": if measured { json!(["disk"]) } else { json!([]) },
                "timeout_ms": 120_000,
                "resources": {
                    "cpu": if id == "exhaust-cpu" { "100m" } else { "1000m" },
                    "mem": "64Mi", "pids": 40, "disk": "32Mi", "open_files": 256,
                    // Not what is to stop any of them.
                    "file_size": "1Gi"
                },
            },
        })
        .to_string(),
    )
    .unwrap();
    let live = start(daemons, &manifest);
    if measured {
        look_from_outside(folder.path(), id);
    }
    let done = live.done();
    outcomes(&done.out).pop().unwrap_or_else(|| ended(id, &done))
}

/// An attempt whose agent was killed whole told nothing, and got nothing.
fn ended(id: &str, done: &Done) -> Outcome {
    let outcome = if done.code == 137 { "blocked" } else { "error" };
    let how = format!("the agent ended with {}: {}", done.code, done.err.trim());
    Outcome { id: id.to_owned(), outcome: outcome.to_owned(), how }
}

/// Whether somebody on the host still gets what the attempt holds all of.
fn look_from_outside(shared: &Path, id: &str) {
    if until(Duration::from_secs(60), || shared.join("held").exists().then_some(())).is_none() {
        return;
    }
    let kind = id.trim_start_matches("exhaust-").trim_start_matches("pending-");
    let output = Command::new(program()).args(["neighbour", kind]).output().unwrap();
    let word = String::from_utf8_lossy(&output.stdout).trim().trim_matches('"').to_owned();
    // Appears whole: the attempt reads it as soon as it is there.
    fs::write(shared.join("verdict.new"), word).unwrap();
    fs::rename(shared.join("verdict.new"), shared.join("verdict")).unwrap();
}
