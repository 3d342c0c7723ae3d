//! Stopping, freezing, signalling, listing.

use std::time::{Duration, Instant};

use aion_e2e::{Daemons, eventually, slowness};

use crate::Shared;
use crate::agent::{Agent, detached, detached_sh, is_alive, pair, path, workspace};

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

pub(crate) fn pause_and_resume(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached_sh(daemons, "pause", &[], COUNT);
    agent.await_log("3\n");
    assert_eq!(daemons.ctl(["pause", &agent.name]).ok().text(), format!("{}\n", agent.name));
    assert_eq!(agent.state(), "paused");
    let frozen = agent.logs().out.len();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(agent.logs().out.len(), frozen, "it does not move");
    assert!(daemons.ctl(["ps"]).ok().text().contains("(paused)"));
    daemons.ctl(["resume", &agent.name]).ok();
    assert_eq!(agent.state(), "running");
    eventually("it goes on", Duration::from_secs(10), || agent.logs().out.len() > frozen);
    // A frozen agent can be stopped.
    daemons.ctl(["pause", &agent.name]).ok();
    daemons.ctl(["stop", "-t", "2", &agent.name]).ok();
    assert_eq!(agent.state(), "exited");
    let numbers: Vec<u64> = agent.logs().text().lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing was lost or doubled");
}

pub(crate) fn stop_is_gentle_first(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached_sh(
        daemons,
        "stop",
        &[],
        "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done",
    );
    agent.await_log("ready");
    daemons.ctl(["stop", &agent.name]).ok();
    assert!(agent.logs().text().ends_with("bye\n"));
    assert_eq!(agent.inspect()["exit"]["code"], 5);
    assert_eq!(daemons.ctl(["wait", &agent.name]).ok().text(), "5\n");
}

pub(crate) fn stop_kills_after_its_time(shared: &Shared) {
    let daemons = pair(shared);
    let agent =
        detached_sh(daemons, "stubborn", &[], "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    agent.await_log("ready");
    let pid = agent.pid();
    let begun = Instant::now();
    daemons.ctl(["stop", "-t", "1", &agent.name]).ok();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8) * slowness(), "{took:?}");
    let exit = agent.inspect()["exit"].clone();
    assert_eq!((exit["code"].as_i64(), exit["reason"].as_str()), (Some(137), Some("killed")));
    assert!(!is_alive(pid));
}

pub(crate) fn stop_of_a_hundred_processes(shared: &Shared) {
    let daemons = pair(shared);
    let script =
        "for i in $(seq 100); do (trap '' TERM HUP; while :; do sleep 60; done) & done; echo ready; wait";
    let agent = detached_sh(daemons, "hundred", &[], script);
    agent.await_log("ready");
    let group = agent.inspect()["cgroup"].as_str().unwrap().to_owned();
    let inside = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .filter(|entry| {
                std::fs::read_to_string(entry.path().join("cgroup"))
                    .is_ok_and(|text| text.contains(group.trim_matches('/')))
            })
            .count()
    };
    assert!(inside() >= 100, "{} processes in {group}", inside());
    daemons.ctl(["kill", &agent.name]).ok();
    eventually("no survivor", Duration::from_secs(10), || inside() == 0);
}

pub(crate) fn kill_sends_signals(shared: &Shared) {
    let daemons = pair(shared);
    let script = "trap 'echo usr1' USR1; trap 'exit 9' USR2; echo ready; while :; do sleep 0.05; done";
    let agent = detached_sh(daemons, "kill", &[], script);
    agent.await_log("ready");
    daemons.ctl(["kill", "-s", "USR1", &agent.name]).ok();
    agent.await_log("usr1");
    daemons.ctl(["kill", "-s", "12", &agent.name]).ok();
    assert_eq!(agent.wait(), 9);
    let agent = detached(daemons, "kill", &[], &["sleep", "60"]);
    daemons.ctl(["kill", &agent.name]).ok();
    assert_eq!(agent.wait(), 137);
}

pub(crate) fn states_are_told_apart(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "ended", &[], &["true"]);
    agent.wait();
    for line in [["stop"], ["kill"], ["pause"], ["resume"]] {
        daemons.ctl(line).args([&agent.name]).done().expect(3).says("AGENT_NOT_RUNNING");
    }
    for line in ["stop", "kill", "pause", "inspect", "logs", "wait", "rm", "start"] {
        daemons.ctl([line, "nobody-at-all"]).done().expect(4).says("AGENT_NOT_FOUND");
    }
    let running = detached(daemons, "runs", &[], &["sleep", "60"]);
    daemons.ctl(["start", &running.name]).done().expect(1).says("AGENT_RUNNING");
    // It can be started again, and its output goes on.
    daemons.ctl(["start", &agent.name]).ok();
    assert_eq!(agent.wait(), 0);
}

pub(crate) fn several_at_once(shared: &Shared) {
    let daemons = pair(shared);
    let a = detached(daemons, "several", &[], &["sleep", "60"]);
    let b = detached(daemons, "several", &[], &["true"]);
    b.wait();
    let done = daemons.ctl(["stop", "-t", "1", "nobody-at-all", &b.name, &a.name]).done().expect(4);
    assert_eq!(done.text(), format!("{}\n", a.name), "what was done is on stdout");
    assert!(done.err.contains("AGENT_NOT_FOUND") && done.err.contains("AGENT_NOT_RUNNING"), "{}", done.err);
    assert_eq!(a.state(), "exited");
}

pub(crate) fn rm_needs_force_for_a_running_agent(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "force", &[], &["sleep", "60"]);
    let pid = agent.pid();
    daemons.ctl(["rm", &agent.name]).done().expect(1).says("AGENT_RUNNING");
    assert!(is_alive(pid));
    daemons.ctl(["rm", "-f", &agent.name]).ok();
    assert!(!is_alive(pid));
    daemons.ctl(["inspect", &agent.name]).done().expect(4);
}

pub(crate) fn ps_filters(shared: &Shared) {
    let daemons = pair(shared);
    let stem = daemons.name("filter");
    let a = detached(daemons, &stem, &["--label", "team=red"], &["sleep", "60"]);
    let b = detached(daemons, &stem, &["--label", "team=blue"], &["true"]);
    b.wait();
    let names = |args: &[&str]| -> Vec<String> {
        let out = daemons.ctl(["ps", "-o", "name", "--filter", &format!("name={stem}")]).args(args).ok();
        out.text().lines().map(str::to_owned).collect()
    };
    assert_eq!(names(&[]).join(" "), a.name);
    assert_eq!(names(&["-a"]).len(), 2);
    assert_eq!(names(&["-a", "--filter", "label=team=blue"]).join(" "), b.name);
    assert_eq!(names(&["--filter", "state=exited"]).join(" "), b.name);
    let all = daemons.ctl(["ps", "-a", "--filter", &format!("name={stem}")]).json();
    for agent in all.as_array().unwrap() {
        for field in
            ["id", "name", "tenant", "state", "pid", "cgroup", "exit", "restarts", "layers", "dropped_events"]
        {
            assert!(agent.get(field).is_some(), "{field} is missing");
        }
        assert_eq!(agent["tenant"], "default");
        assert_eq!(agent["exit"].is_null(), agent["state"] == "running");
    }
}

pub(crate) fn apply_is_idempotent(shared: &Shared) {
    let daemons = pair(shared);
    let dir = workspace();
    let name = daemons.name("apply");
    let manifest = |seconds: u32| {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: {name}, version: \"1.{seconds}\"}}\n\
             spec: {{entry: [sleep, \"{seconds}\"], stop_grace_ms: 100}}\n"
        );
        let file = dir.path().join(format!("{seconds}.yml"));
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let agent = Agent { daemons, name: name.clone() };
    assert!(path(&dir).starts_with('/'));
    assert_eq!(daemons.ctl(["apply", "-f", &manifest(61)]).ok().text(), format!("{name} created\n"));
    let pid = agent.pid();
    assert_eq!(daemons.ctl(["apply", "-f", &manifest(61)]).ok().text(), format!("{name} unchanged\n"));
    assert_eq!(agent.pid(), pid, "it was left alone");
    assert_eq!(daemons.ctl(["apply", "-f", &manifest(62)]).ok().text(), format!("{name} configured\n"));
    assert_eq!(agent.inspect()["version"], "1.62");
    assert!(!is_alive(pid));
    // A manifest that cannot be used does not even stop what runs.
    let bad = dir.path().join("bad.yml");
    std::fs::write(&bad, std::fs::read_to_string(manifest(63)).unwrap().replace("sleep", "sleep, ["))
        .unwrap();
    daemons.ctl(["apply", "-f", bad.to_str().unwrap()]).done().expect(2);
    assert_eq!(agent.state(), "running");
}

pub(crate) fn what_never_ran_has_not_ended() {
    let daemons = Daemons::start().unwrap();
    let dir = workspace();
    let file = dir.path().join("job.yml");
    let manifest = |seconds: u32| {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: job}}\nspec: {{entry: [sleep, \"{seconds}\"]}}\n"
        );
        std::fs::write(&file, text).unwrap();
    };
    let apply = |flags: &[&str]| daemons.ctl(["apply", "-f", file.to_str().unwrap()]).args(flags);
    manifest(60);
    apply(&["--no-start"]).ok();
    daemons.ctl(["run", "--name", "ended", "--", "true"]).ok();
    assert_eq!(daemons.ctl(["rm", "-a"]).ok().text(), "ended\n");
    // Registering alone does not stop what runs.
    apply(&[]).ok();
    let agent = Agent { daemons: &daemons, name: "job".to_owned() };
    let pid = agent.pid();
    manifest(61);
    apply(&["--no-start"]).done().expect(1).says("AGENT_RUNNING");
    assert_eq!(agent.pid(), pid);
    drop(agent);
    assert_eq!(daemons.ctl(["ps", "-a", "-o", "name"]).ok().text(), "");
    daemons.finish().unwrap();
}
