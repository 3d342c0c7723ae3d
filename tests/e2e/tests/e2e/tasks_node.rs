//! A pair of daemons with scheduler's settings of a test's own, and the agents that its tasks run on: Python over the runtime
//! protocol, and a shell's script as a job. Both go through a chain of steps, so that a step that is done twice or left out shows in
//! the result.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aion_e2e::{Ctl, Daemons, Place, eventually, slowness, until};
use serde_json::{Value, json};

use crate::agent::{path, workspace};

/// Serves tasks with nothing but the standard library.
pub(crate) const PYTHON: &str = include_str!("../../../bench/src/schedule/soak/agent.py");
/// Does one task, and leaves a checkpoint at SIGTERM.
pub(crate) const SHELL: &str = include_str!("../../../bench/src/schedule/soak/job.sh");

/// The same, but deaf to SIGTERM. Its first checkpoint, which is empty, says that it is.
pub(crate) fn deaf() -> String {
    let ready = "trap '' TERM\n: > \"$AION_CHECKPOINT_DIR/.commit\"";
    let script = SHELL.replace("trap 'stop=1' TERM", ":");
    assert_ne!(script, SHELL);
    format!("{ready}\n{script}")
}

/// The daemons, and the folder that holds all of theirs.
pub(crate) struct Node {
    pub(crate) daemons: Daemons,
    pub(crate) folder: tempfile::TempDir,
}

/// What both programs do: so many steps, with a pause after each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    pub(crate) steps: u64,
    pub(crate) pause_ms: u64,
    pub(crate) seed: u64,
}

impl Chain {
    /// Without spaces: the shell reads it with a pattern.
    pub(crate) fn params(self) -> String {
        json!({ "steps": self.steps, "pause_ms": self.pause_ms, "seed": self.seed }).to_string()
    }

    /// The same, but from the middle on it waits for [`Gate::open`]: nothing that a test does meanwhile comes too late.
    pub(crate) fn held(self) -> String {
        json!({ "steps": self.steps, "pause_ms": self.pause_ms, "seed": self.seed, "hold": self.steps / 2 })
            .to_string()
    }

    /// What an undisturbed run ends with.
    pub(crate) fn result(self) -> Value {
        let value = (0..self.steps).fold(self.seed, |value, step| (value * 48271 + step) % 2_147_483_647);
        json!({ "value": value })
    }
}

/// The workspace of an agent whose tasks are [`Chain::held`].
pub(crate) struct Gate(tempfile::TempDir);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(workspace())
    }

    /// Lines of the agent's manifest.
    pub(crate) fn spec(&self, more: Value) -> Value {
        merged(json!({ "workspace": path(&self.0) }), more)
    }

    /// Waits until a task has come to its middle, and runs.
    pub(crate) fn until_held(&self) {
        eventually("a task is in its middle", Duration::from_secs(30), || {
            self.0.path().join("held").exists()
        });
    }

    /// Tasks go on to their end from here.
    pub(crate) fn open(&self) {
        fs::write(self.0.path().join("go"), "").unwrap();
    }
}

/// A copy of a folder, for everybody to read.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Node {
    /// Starts a pair with these lines in its scheduler.yaml.
    pub(crate) fn start(settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("aion-e2e-").tempdir().unwrap();
        Self::start_in(folder, settings)
    }

    pub(crate) fn start_in(folder: tempfile::TempDir, settings: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;

        // aiond's user reads the settings again.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        copy(&Place::find().unwrap().clone.join("profiles"), &folder.path().join("profiles"));
        write_settings(folder.path(), settings);
        let daemons = Daemons::start_in(folder.path()).unwrap_or_else(|error| panic!("{error:#}"));
        Self { daemons, folder }
    }

    /// Other settings, read while everything runs.
    pub(crate) fn reload(&self, settings: &str) -> Ctl {
        write_settings(self.folder.path(), settings);
        self.daemons.ctl(["queue", "reload"])
    }

    /// Registers an agent.
    pub(crate) fn agent(&self, name: &str, spec: Value) {
        // A job has its processes by its tasks.
        let start = if spec["mode"] == "job" { &["--no-start"][..] } else { &[] };
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": { "name": name }, "spec": spec,
        });
        let apply = ["apply", "-f", "-"].into_iter().chain(start.iter().copied());
        self.daemons.ctl(apply).stdin(manifest.to_string()).ok();
    }

    /// A service in Python; its own lines win.
    pub(crate) fn service(&self, name: &str, more: Value) {
        let spec = json!({
            "mode": "service", "tasks": true, "entry": ["/usr/bin/python3", "-B", "-c", PYTHON],
            "checkpoint": { "grace_ms": 5000 * u64::from(slowness()), "freeze": false },
        });
        self.agent(name, merged(spec, more));
    }

    /// A job of a shell; its own lines win.
    pub(crate) fn job(&self, name: &str, more: Value) {
        let spec = json!({
            "mode": "job", "entry": ["/bin/sh", "-c", SHELL], "concurrency": 8,
            "capabilities": { "subprocess": true },
            "checkpoint": { "grace_ms": 5000 * u64::from(slowness()), "freeze": false },
        });
        self.agent(name, merged(spec, more));
    }

    /// `task submit`; gives the id.
    pub(crate) fn submit(&self, agent: &str, id: &str, queue: &str, params: &str) -> String {
        let ctl = self.daemons.ctl(["task", "submit", "--agent", agent, "--id", id, "--queue", queue]);
        let done = ctl.args(["--params", params]).ok();
        assert_eq!(done.text(), format!("{id}\n"), "the id alone is printed");
        id.to_owned()
    }

    /// `task inspect`.
    pub(crate) fn inspect(&self, id: &str) -> Value {
        self.daemons.ctl(["task", "inspect", id]).json()
    }

    /// Waits until this is true of a task.
    pub(crate) fn until(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = until(Duration::from_secs(30), || Some(self.inspect(id)).filter(|task| is(task)));
        found.unwrap_or_else(|| {
            panic!("{id}: {what} in vain: {:#}\n{}", self.inspect(id), self.daemons.last_words())
        })
    }

    pub(crate) fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(id, state, |task| task["state"] == state)
    }

    /// Waits until a task of [`deaf`] hears nothing any more.
    pub(crate) fn until_deaf(&self, id: &str) {
        self.until(id, "its sign", |task| task["checkpoints"].as_u64() > Some(0));
    }

    /// Waits for a task's end, which must be a good one with this result.
    pub(crate) fn succeeds(&self, id: &str, result: &Value) -> Value {
        let task = self.until(id, "its end", has_ended);
        assert_eq!(task["state"], "succeeded", "{task:#}");
        assert_eq!(&task["result"], result, "{task:#}");
        task
    }

    /// The journal must be whole, and nothing may be left.
    pub(crate) fn finish(self) {
        let report = self.daemons.ctl(["journal", "check"]).json();
        assert_eq!(report["ok"], true, "{report:#}");
        self.daemons.finish().unwrap();
    }
}

fn write_settings(folder: &Path, settings: &str) {
    let text = format!("apiVersion: aion.os/v1\nkind: Scheduler\n{settings}\n");
    fs::write(folder.join("profiles/scheduler.yaml"), text).unwrap();
}

fn merged(mut spec: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut spec, more) {
        fields.extend(more);
    }
    spec
}

pub(crate) fn has_ended(task: &Value) -> bool {
    ["succeeded", "failed", "cancelled", "expired"].iter().any(|state| task["state"] == *state)
}

/// The kinds of a task's transitions, in order.
pub(crate) fn kinds(task: &Value) -> Vec<&str> {
    task["history"].as_array().unwrap().iter().filter_map(|event| event["kind"].as_str()).collect()
}

/// How often a transition happened.
pub(crate) fn count(task: &Value, kind: &str) -> usize {
    kinds(task).into_iter().filter(|found| *found == kind).count()
}

/// The details of transitions of one kind.
pub(crate) fn details<'a>(task: &'a Value, kind: &str) -> Vec<&'a Value> {
    let history = task["history"].as_array().unwrap();
    history.iter().filter(|event| event["kind"] == kind).map(|event| &event["detail"]).collect()
}
