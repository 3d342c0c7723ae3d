//! What happens when an agent ends.

use std::time::Duration;

use aion_e2e::eventually;

use crate::Shared;
use crate::agent::{Agent, pair, path, workspace};

fn start<'a>(shared: &'a Shared, dir: &tempfile::TempDir, policy: &str, script: &str) -> Agent<'a> {
    let daemons = pair(shared);
    let name = daemons.name("restart");
    let manifest = format!(
        "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n  entry: [sh, -c, {script:?}]\n  \
         capabilities: {{subprocess: true}}\n  workspace: {}\n  restart: {{policy: {policy}, max_restarts: 3, backoff_ms: 50}}\n",
        path(dir)
    );
    daemons.ctl(["run", "-d", "-f", "-"]).stdin(manifest).ok();
    Agent { daemons, name }
}

fn times(dir: &tempfile::TempDir) -> usize {
    std::fs::read_to_string(dir.path().join("ran")).unwrap_or_default().lines().count()
}

pub(crate) fn on_failure_until_its_limit(shared: &Shared) {
    let dir = workspace();
    let agent = start(shared, &dir, "on-failure", "echo x >> ran; echo out; exit 4");
    assert_eq!(agent.wait(), 4);
    assert_eq!(times(&dir), 4, "once and three times again");
    assert_eq!(agent.inspect()["restarts"], 3);
    assert_eq!(agent.logs().text(), "out\n".repeat(4), "the output of all of them is there");

    let dir = workspace();
    let agent = start(shared, &dir, "on-failure", "echo x >> ran; test $(wc -l < ran) -ge 3");
    assert_eq!(agent.wait(), 0);
    assert_eq!(times(&dir), 3, "until it succeeds");
}

pub(crate) fn always_until_stopped(shared: &Shared) {
    let dir = workspace();
    let agent = start(shared, &dir, "always", "echo x >> ran; sleep 60");
    let first = agent.pid();
    agent.daemons.ctl(["kill", "-s", "TERM", &agent.name]).ok();
    eventually("it runs again", Duration::from_secs(20), || {
        let value = agent.inspect();
        value["state"] == "running" && value["pid"].as_u64() != Some(u64::from(first))
    });
    eventually("it has begun again", Duration::from_secs(20), || times(&dir) == 2);
    agent.daemons.ctl(["stop", "-t", "1", &agent.name]).ok();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(agent.state(), "exited", "a stop is a stop");
    assert_eq!(times(&dir), 2);
}

pub(crate) fn never(shared: &Shared) {
    let dir = workspace();
    let agent = start(shared, &dir, "never", "echo x >> ran; exit 1");
    assert_eq!(agent.wait(), 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((times(&dir), agent.inspect()["restarts"].as_u64()), (1, Some(0)));
}
