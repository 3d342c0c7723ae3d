//! SIGKILL for aiond while tasks run, wait, make room and are frozen: nothing is lost, nothing happens twice, and an agent that runs
//! is neither killed nor asked to begin again.

use std::fs;
use std::time::Duration;

use aion_e2e::{Daemons, Scale, Which, eventually, slowness};
use serde_json::{Value, json};

use crate::agent::{is_alive, path, workspace};
use crate::tasks_node::{Chain, Gate, Node, SHELL, count, deaf, kinds};

/// What acts outside: each attempt says so in the workspace.
fn marks(script: &str) -> String {
    format!("echo \"$AION_TASK_ID\" >> /workspace/begun\n{script}")
}

fn lines(dir: &tempfile::TempDir, file: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn pid(daemons: &Daemons, agent: &str) -> u32 {
    u32::try_from(daemons.ctl(["inspect", agent]).json()["pid"].as_u64().unwrap()).unwrap()
}

pub(crate) fn what_runs_runs_on_and_happens_once() {
    let (rounds, jobs) = Scale::current().pick((3, 3), (5, 4), (40, 8));
    let dir = workspace();
    let node = Node::start("node: {slots: 16}");
    let daemons = &node.daemons;
    node.service("worker", json!({ "concurrency": 4, "env": { "CONCURRENCY": "4" } }));
    node.job("script", json!({ "entry": ["/bin/sh", "-c", marks(SHELL)], "workspace": path(&dir) }));
    let (long, short) =
        (Chain { steps: 400, pause_ms: 10, seed: 1 }, Chain { steps: 3, pause_ms: 5, seed: 2 });
    let ids: Vec<String> =
        (0..jobs).map(|n| format!("job-{n}")).chain((0..2).map(|n| format!("service-{n}"))).collect();
    for id in &ids {
        let agent = if id.starts_with("job") { "script" } else { "worker" };
        node.submit(agent, id, "normal", &long.params());
    }
    for id in &ids {
        node.until(id, "its start", |task| kinds(task).contains(&"started"));
    }
    let worker = pid(daemons, "worker");
    let mut attempts: Vec<Value> = ids.iter().map(|id| node.inspect(id)["attempt"].clone()).collect();
    attempts.sort_by_key(Value::to_string);
    let mut all = Vec::new();
    for round in 0..rounds {
        // One that is acknowledged right before the kill, by name and without; and one that nobody hears of.
        let named = node.submit(
            ["worker", "script"][round % 2],
            &format!("round-{round}"),
            "normal",
            &short.params(),
        );
        let fresh = daemons.ctl(["task", "submit", "--agent", "script", "--params", &short.params()]).ok();
        all.extend([named, fresh.text().trim().to_owned()]);
        daemons.kill_and_restart(Which::Aiond).unwrap();
        assert!(is_alive(worker), "the service died in round {round}");
    }
    for id in &all {
        let task = node.succeeds(id, &short.result());
        assert!(count(&task, "succeeded") == 1, "{task:#}");
    }
    for id in &ids {
        let task = node.succeeds(id, &long.result());
        assert_eq!(
            (&task["attempts"], count(&task, "succeeded")),
            (&json!(1), 1),
            "it was not run again: {task:#}"
        );
    }
    assert_eq!(pid(daemons, "worker"), worker, "the same process");
    // What had been begun was begun once, the rest as often as it was told.
    let begun = lines(&dir, "begun");
    for n in 0..jobs {
        let id = format!("job-{n}");
        assert_eq!(begun.iter().filter(|line| **line == id).count(), 1, "{id}: {begun:?}");
    }
    for id in &all {
        let task = node.inspect(id);
        let times = begun.iter().filter(|line| *line == id).count() as u64;
        assert!(times <= task["attempts"].as_u64().unwrap(), "{id}: begun {times} times: {task:#}");
    }
    node.finish();
}

/// aiond goes while a task makes room, while one is frozen, and while one ends.
pub(crate) fn in_the_middle_of_making_room() {
    let rounds = Scale::current().pick(2, 4, 20);
    let node =
        Node::start("node: {slots: 1}\npreemption: {min_run: 0s, high_cap_percent: 100, max_per_task: 1000}");
    let daemons = &node.daemons;
    let grace = 100 * u64::from(slowness());
    node.job(
        "deaf",
        json!({ "entry": ["/bin/sh", "-c", deaf()], "checkpoint": { "grace_ms": grace, "freeze": true } }),
    );
    node.job("script", json!({}));
    node.service("worker", json!({ "concurrency": 1 }));
    let low = Chain { steps: 100, pause_ms: 10, seed: 21 };
    let high = Chain { steps: 20, pause_ms: 10, seed: 22 };
    for round in 0..rounds {
        let agent = ["worker", "deaf", "script"][round % 3];
        let (slow, quick) = (format!("low-{round}"), format!("high-{round}"));
        node.submit(agent, &slow, "low", &low.params());
        node.until(&slow, "its start", |task| kinds(task).contains(&"started"));
        node.submit("script", &quick, "high", &high.params());
        // Sooner or later each time, so that it hits another moment.
        std::thread::sleep(Duration::from_millis(37 * (round as u64 % 7)) * slowness());
        daemons.kill_and_restart(Which::Aiond).unwrap();
        node.succeeds(&quick, &high.result());
        node.succeeds(&slow, &low.result());
    }
    // Frozen when it goes, frozen when it is back, and thawed when there is room.
    let long = Chain { steps: 300, ..high };
    node.submit("deaf", "still", "low", &low.params());
    node.until_deaf("still");
    node.submit("script", "above", "high", &long.params());
    node.until_state("still", "frozen");
    daemons.kill_and_restart(Which::Aiond).unwrap();
    let still = node.inspect("still");
    assert_eq!((&still["state"], &still["attempts"]), (&json!("frozen"), &json!(1)), "{still:#}");
    node.succeeds("above", &long.result());
    let still = node.succeeds("still", &low.result());
    assert_eq!(still["attempts"], 1, "{still:#}");
    node.finish();
}

/// An agent that dies loses its attempts and nothing else; both daemons gone at once change nothing.
pub(crate) fn agents_and_both_daemons() {
    let node = Node::start("node: {slots: 4}");
    let daemons = &node.daemons;
    let (of_worker, of_script) = (Gate::new(), Gate::new());
    let worker = json!({ "concurrency": 2, "restart": "always", "env": { "CONCURRENCY": "2" } });
    node.service("worker", of_worker.spec(worker));
    node.job("script", of_script.spec(json!({})));
    let chain = Chain { steps: 200, pause_ms: 10, seed: 31 };
    // Both are in their middle until all of it has happened, however long that takes.
    for (agent, id, gate) in [("worker", "of-service", &of_worker), ("script", "of-job", &of_script)] {
        node.submit(agent, id, "normal", &chain.held());
        gate.until_held();
        node.until(id, "its start", |task| kinds(task).contains(&"started"));
    }
    daemons.kill(Which::Aiond);
    daemons.kill(Which::Launcher);
    daemons.start_one(Which::Launcher).unwrap();
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    for id in ["of-service", "of-job"] {
        assert_eq!(node.inspect(id)["attempts"], 1);
    }
    // Its process dies with the task in it.
    let old = pid(daemons, "worker");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(old.try_into().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    node.until("of-service", "its loss", |task| count(task, "lost") > 0);
    of_worker.open();
    of_script.open();
    let task = node.succeeds("of-service", &chain.result());
    assert_eq!((&task["attempts"], count(&task, "lost")), (&json!(2), 1), "{task:#}");
    assert_eq!(task["may_repeat"], true);
    let task = node.succeeds("of-job", &chain.result());
    assert_eq!(task["attempts"], 1, "{task:#}");
    eventually("its processes are gone", Duration::from_secs(10), || {
        daemons.ctl(["ps", "-aq"]).ok().text().lines().count() <= 2
    });
    node.finish();
}
