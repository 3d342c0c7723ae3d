//! What tests say again and again.

use std::time::Duration;

use aion_e2e::{Ctl, Daemons, Done, until};
use serde_json::Value;

/// The shared pair.
pub(crate) fn pair(shared: &super::Shared) -> &Daemons {
    shared.get().expect("the daemons were started before the first test")
}

/// An agent that is removed at the end of its test, however it ends.
pub(crate) struct Agent<'a> {
    pub(crate) daemons: &'a Daemons,
    pub(crate) name: String,
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        self.daemons.ctl(["rm", "-f", &self.name]).spawn().done_quietly();
    }
}

/// `run` with these flags and this program, in the foreground, removed at its end.
pub(crate) fn run(daemons: &Daemons, flags: &[&str], program: &[&str]) -> Ctl {
    daemons.ctl(["run", "--rm"]).args(flags).args(["--"]).args(program)
}

/// The same with a shell's script.
pub(crate) fn sh(daemons: &Daemons, flags: &[&str], script: &str) -> Ctl {
    run(daemons, flags, &["sh", "-c", script])
}

/// The same with a Python program.
pub(crate) fn python(daemons: &Daemons, flags: &[&str], program: &str) -> Ctl {
    run(daemons, flags, &["/usr/bin/python3", "-c", program])
}

/// Starts an agent in the background.
pub(crate) fn detached<'a>(daemons: &'a Daemons, stem: &str, flags: &[&str], program: &[&str]) -> Agent<'a> {
    let name = daemons.name(stem);
    daemons.ctl(["run", "-d", "--name", &name]).args(flags).args(["--"]).args(program).ok();
    Agent { daemons, name }
}

/// The same with a shell's script.
pub(crate) fn detached_sh<'a>(daemons: &'a Daemons, stem: &str, flags: &[&str], script: &str) -> Agent<'a> {
    detached(daemons, stem, flags, &["sh", "-c", script])
}

impl Agent<'_> {
    /// What became of it, for whoever reads of a failed test; without a panic of its own.
    #[expect(clippy::print_stderr, reason = "a test's output")]
    fn tell(&self) {
        let inspected = self.daemons.ctl(["inspect", &self.name, "-o", "json"]).into_command().output();
        let text = inspected.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        eprintln!("{} is {}\n{}", self.name, text.unwrap_or_default().trim(), self.daemons.last_words());
    }

    pub(crate) fn inspect(&self) -> Value {
        self.daemons.ctl(["inspect", &self.name]).json()
    }

    pub(crate) fn state(&self) -> String {
        self.inspect()["state"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        let value = self.inspect();
        let pid = value["pid"].as_u64();
        u32::try_from(pid.unwrap_or_else(|| panic!("{} has no process: {value}", self.name))).unwrap()
    }

    /// Waits for its end; gives the code.
    pub(crate) fn wait(&self) -> i32 {
        self.daemons.ctl(["wait", &self.name]).ok().text().trim().parse().unwrap()
    }

    pub(crate) fn logs(&self) -> Done {
        self.daemons.ctl(["logs", &self.name]).ok()
    }

    /// Waits until its output contains this.
    pub(crate) fn await_log(&self, text: &str) -> String {
        let found =
            until(Duration::from_secs(20), || Some(self.logs().text()).filter(|logs| logs.contains(text)));
        found.unwrap_or_else(|| panic!("{} never printed {text:?}: {:?}", self.name, self.logs().text()))
    }

    /// Its records of a kind; asked until there are some, because the log is written in steps.
    pub(crate) fn records(&self, kind: &str) -> Vec<Value> {
        let ask = || {
            self.daemons.ctl(["audit", "query", "-o", "jsonl", "--agent", &self.name, "--kind", kind]).ok()
        };
        until(Duration::from_secs(10), || Some(ask().json_lines()).filter(|records| !records.is_empty()))
            .unwrap_or_default()
    }
}

/// Whether a process is there.
pub(crate) fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// A field of /proc/PID/status.
pub(crate) fn status_field(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// The host folder that a test shows to an agent, and the agent's user may use. Not in /tmp: where that is a tmpfs, kernels
/// before 6.3 cannot map its owners.
pub(crate) fn workspace() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("aion-e2e-workspace-").tempdir_in("/var/tmp").unwrap()
}

pub(crate) fn path(dir: &tempfile::TempDir) -> &str {
    dir.path().to_str().unwrap()
}
