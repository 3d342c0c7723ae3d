//! SIGKILL for aiond, again and again, under agents that run.

use std::time::Duration;

use aion_e2e::{Daemons, Scale, Which, eventually, until};

use crate::agent::{Agent, is_alive, path, workspace};

/// Counts on stdout, says its last number in a file when it is asked to end, and ends with its own code.
const COUNTER: &str = "trap 'echo $i > /workspace/last-$1; exit $1' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";

pub(crate) fn agents_and_output_survive_many_kills() {
    let scale = Scale::current();
    let (agents, rounds) = (scale.pick(5, 20, 20), scale.pick(3, 10, 100));
    let daemons = Daemons::start().unwrap();
    let dir = workspace();
    let mut running = Vec::new();
    for n in 0..agents {
        let code = (n + 1).to_string();
        let program = ["sh", "-c", COUNTER, "counter", &code];
        let agent = crate::agent::detached(
            &daemons,
            "count",
            &["--workspace", path(&dir), "--cpus", "0.2"],
            &program,
        );
        running.push(agent);
    }
    let pids: Vec<u32> = running.iter().map(Agent::pid).collect();
    let long = Duration::from_secs(600);
    let mut followers: Vec<_> =
        running.iter().map(|agent| daemons.ctl(["logs", "-f", &agent.name]).within(long).spawn()).collect();
    let mut events = daemons.ctl(["events", "-f", "--cursor", "0", "-o", "jsonl"]).within(long).spawn();
    let waiter = daemons.ctl(["wait", &running[0].name]).within(long).spawn();
    // Whoever has not connected yet is right to give up when nobody listens.
    eventually("all have connected", Duration::from_secs(20), || {
        let all = || daemons.connections() >= agents + 2;
        // Twice: a connection of a command that has just ended may be counted once more.
        all() && {
            std::thread::sleep(Duration::from_millis(200));
            all()
        }
    });
    for round in 0..rounds {
        daemons.kill_and_restart(Which::Aiond).unwrap();
        for (agent, &pid) in running.iter().zip(&pids) {
            assert!(is_alive(pid), "{} died in round {round}", agent.name);
        }
    }
    for (agent, &pid) in running.iter().zip(&pids) {
        let value = agent.inspect();
        assert_eq!((value["state"].as_str(), value["pid"].as_u64()), (Some("running"), Some(u64::from(pid))));
        assert_eq!(value["restarts"], 0);
    }
    // The last kill comes while they end.
    let names: Vec<&str> = running.iter().map(|agent| agent.name.as_str()).collect();
    for &pid in &pids[..agents / 2] {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.try_into().unwrap()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
    }
    daemons.kill_and_restart(Which::Aiond).unwrap();
    for name in &names[agents / 2..] {
        daemons.ctl(["kill", "-s", "TERM", name]).ok();
    }
    for (n, agent) in running.iter().enumerate() {
        assert_eq!(agent.wait(), i32::try_from(n + 1).unwrap(), "every exit code is right");
    }
    assert_eq!(waiter.done().expect(0).text(), "1\n", "a wait goes on across all of it");
    for (n, (agent, follower)) in running.iter().zip(followers.drain(..)).enumerate() {
        let followed = follower.done().expect(0).text();
        let last: u64 = std::fs::read_to_string(dir.path().join(format!("last-{}", n + 1)))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let expected: String = (1..=last).map(|i| format!("{i}\n")).collect();
        assert!(
            followed == expected,
            "{}: {} bytes followed, {} written",
            agent.name,
            followed.len(),
            expected.len()
        );
        assert!(agent.logs().text() == expected, "{}: the journal is whole", agent.name);
    }
    // The follower of events saw every number once, and all the ends.
    let id = running[agents - 1].inspect()["id"].as_str().unwrap().to_owned();
    let text = until(Duration::from_secs(20), || {
        let text = events.so_far();
        text.lines().any(|line| line.contains("agent.exited") && line.contains(&id)).then_some(text)
    });
    let text = text.expect("the follower of events sees the last end");
    let numbers: Vec<u64> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] > pair[0]), "no record twice");
    let last = *numbers.last().unwrap();
    let kept = daemons.ctl(["audit", "query", "-o", "jsonl"]).ok().json_lines();
    let kept: Vec<u64> =
        kept.iter().filter_map(|record| record["seq"].as_u64()).filter(|&seq| seq <= last).collect();
    assert_eq!(numbers, kept, "the follower has what the log has");
    drop(events);
    drop(running);
    daemons.ctl(["audit", "verify"]).ok();
    daemons.finish().unwrap();
}

pub(crate) fn run_survives_a_restart() {
    let daemons = Daemons::start().unwrap();
    let script = "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo end >&2; exit 33";
    let mut live = daemons.ctl(["run", "--rm", "--name", "survivor", "--", "sh", "-c", script]).spawn();
    live.await_text("10\n");
    for _ in 0..3 {
        daemons.kill(Which::Aiond);
        std::thread::sleep(Duration::from_millis(150));
        daemons.start_one(Which::Aiond).unwrap();
        daemons.await_ready().unwrap();
    }
    let done = live.done().expect(33);
    let expected: String = (1..=150).map(|i| format!("{i}\n")).collect();
    assert_eq!(done.text(), expected);
    // Where aiond takes long to come back, the command line says so between the lines.
    assert!(done.err.lines().any(|line| line == "end"), "{}", done.err);
    daemons.ctl(["inspect", "survivor"]).done().expect(4);

    // Its end comes while nobody is there, and a signal that is sent then arrives later.
    let mut live = daemons.ctl(["run", "--", "sh", "-c", "echo ready; sleep 0.3; exit 8"]).spawn();
    live.await_text("ready");
    daemons.kill(Which::Aiond);
    std::thread::sleep(Duration::from_millis(700));
    daemons.start_one(Which::Aiond).unwrap();
    live.done().expect(8);
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut live = daemons.ctl(["run", "--", "sh", "-c", script]).spawn();
    live.await_text("ready");
    daemons.kill(Which::Aiond);
    live.signal(nix::sys::signal::Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    daemons.start_one(Which::Aiond).unwrap();
    live.done().expect(9);

    // A good-natured restart is no different.
    let mut live = daemons.ctl(["run", "--", "sh", "-c", "echo ready; sleep 1; echo end; exit 7"]).spawn();
    live.await_text("ready");
    daemons.stop(Which::Aiond);
    daemons.start_one(Which::Aiond).unwrap();
    assert_eq!(live.done().expect(7).text(), "ready\nend\n");
    daemons.finish().unwrap();
}

pub(crate) fn starts_happen_once() {
    let daemons = Daemons::start().unwrap();
    let dir = workspace();
    let rounds = Scale::current().pick(3u32, 8, 40);
    for round in 0..rounds {
        let name = format!("once-{round}");
        let script = format!("echo x >> /workspace/{name}; sleep 60");
        let live = daemons
            .ctl(["run", "-d", "--name", &name, "--workspace", path(&dir), "--", "sh", "-c", &script])
            .spawn();
        // Somewhere between the connection and the answer.
        let _ = until(Duration::from_secs(1), || (daemons.connections() > 0).then_some(()));
        std::thread::sleep(Duration::from_millis(3 * u64::from(round)));
        daemons.kill_and_restart(Which::Aiond).unwrap();
        live.done().expect(0);
        let file = dir.path().join(&name);
        eventually("it runs", Duration::from_secs(20), || file.exists());
        assert_eq!(daemons.ctl(["inspect", &name]).json()["state"], "running");
    }
    std::thread::sleep(Duration::from_millis(500));
    for round in 0..rounds {
        let text = std::fs::read_to_string(dir.path().join(format!("once-{round}"))).unwrap();
        assert_eq!(text, "x\n", "started once, in round {round}");
    }
    daemons.finish().unwrap();
}
