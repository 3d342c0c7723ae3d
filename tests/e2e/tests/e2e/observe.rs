//! What can be seen of agents from outside.

use std::process::Command;
use std::time::Duration;

use aion_e2e::{Daemons, until};

use crate::Shared;
use crate::agent::{detached, detached_sh, pair};

pub(crate) fn events_tell_what_happened(shared: &Shared) {
    let daemons = pair(shared);
    let mut follower = daemons.ctl(["events", "-f", "-o", "jsonl"]).spawn();
    std::thread::sleep(Duration::from_millis(300));
    let script = "/bin/echo marker-$((40+2)) >/dev/null; /usr/bin/python3 -c \"import socket\ntry: socket.create_connection(('10.1.2.3', 80), 1)\nexcept OSError: pass\"; unshare -U true 2>/dev/null; true";
    let agent = detached_sh(daemons, "events", &[], script);
    agent.wait();
    let execs = until(Duration::from_secs(10), || {
        Some(agent.records("proc.exec"))
            .filter(|records| records.iter().any(|record| record.to_string().contains("marker-42")))
    });
    let execs = execs.expect("the program that was executed, with its arguments");
    for record in &execs {
        for field in ["seq", "time", "tenant", "agent", "task", "kind", "verdict", "rule", "detail"] {
            assert!(record.get(field).is_some(), "{field} is missing in {record}");
        }
        assert!(record["detail"].is_object());
        let time = record["time"].as_str().unwrap();
        assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
    }
    assert!(!agent.records("proc.exit").is_empty());
    for kind in ["agent.launched", "agent.exited"] {
        assert!(!agent.records(kind).is_empty(), "{kind}");
    }
    assert!(!agent.records("sys.denied").is_empty(), "the denied system call");
    // A follower saw the same, in order, each once.
    let id = agent.inspect()["id"].as_str().unwrap().to_owned();
    let seen = until(Duration::from_secs(10), || {
        Some(follower.so_far()).filter(|text| text.contains("marker-42") && text.contains("agent.exited"))
    });
    let seen = seen.expect("the follower sees it");
    let numbers: Vec<u64> = seen
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    assert!(seen.contains(&id));
}

pub(crate) fn denials_are_explained(shared: &Shared) {
    let daemons = pair(shared);
    let script = "unshare -U true 2>/dev/null; /usr/bin/python3 -c \"import socket\ntry: socket.create_connection(('10.1.2.3', 80), 1)\nexcept OSError: pass\"; true";
    let agent = detached_sh(daemons, "explained", &[], script);
    agent.wait();
    let explain = |seq: &serde_json::Value| daemons.ctl(["explain", &seq.to_string()]).json();
    let denied = |kind: &str| {
        let found = until(Duration::from_secs(10), || {
            agent.records(kind).into_iter().find(|record| record["verdict"] == "denied")
        });
        found.unwrap_or_else(|| panic!("no denied {kind} is on record"))
    };
    let call = explain(&denied("sys.denied")["seq"]);
    assert_eq!(call["layer"], "seccomp", "{call}");
    assert!(call["rule"].as_str().unwrap().contains("default-restrictive"), "{call}");
    let connect = denied("net.connect");
    let told = explain(&connect["seq"]);
    assert_eq!((&told["layer"], &told["rule"]), (&"network".into(), &"spec.network: none".into()), "{told}");
    let line = "agent.yml: spec.capabilities: [\"net:connect:10.1.2.3:80\"]";
    assert!(told["allow"].as_array().unwrap().contains(&line.into()), "{told}");
    let said = daemons.ctl(["explain", &connect["seq"].to_string()]).ok().text();
    assert!(said.contains("layer   network") && said.contains(line), "{said}");
    let newest = daemons.ctl(["explain", "--agent", &agent.name]).json();
    assert!(newest["record"]["seq"].as_u64() >= connect["seq"].as_u64(), "{newest}");
    let allowed = agent.records("agent.exited").remove(0);
    assert_eq!(explain(&allowed["seq"])["layer"], "");
    for (args, code) in [
        (&["explain", "99999999"][..], "DECISION_NOT_FOUND"),
        (&["explain", "x"], "DECISION_NOT_FOUND"),
        (&["explain", "0"], "DECISION_NOT_FOUND"),
        (&["explain", "--agent", "nobody"], "AGENT_NOT_FOUND"),
    ] {
        let done = daemons.ctl(args).done();
        assert!(done.code == 4 && done.err.contains(code), "{args:?}: {} {}", done.code, done.err);
    }
}

pub(crate) fn stats_and_top(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(
        daemons,
        "stats",
        &["--memory", "100Mi"],
        &[
            "/usr/bin/python3",
            "-c",
            "b = bytearray(30 << 20)\nimport time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)",
        ],
    );
    agent.await_log("ready");
    let samples = daemons.ctl(["stats", "--no-stream", &agent.name]).json();
    let sample = &samples[0];
    assert_eq!(sample["name"], agent.name.as_str());
    assert!(sample["mem_bytes"].as_u64().unwrap() > 20 << 20, "{sample}");
    assert!((90 << 20..=130 << 20).contains(&sample["mem_limit_bytes"].as_u64().unwrap()), "{sample}");
    assert!(sample["pids"].as_u64().unwrap() >= 1, "{sample}");
    let top = daemons.ctl(["top", "-b", "-n", "2", &agent.name]).ok().text();
    assert_eq!(top.matches(&agent.name).count(), 2, "{top}");
    assert!(top.contains("running"), "{top}");
}

pub(crate) fn top_of_nothing() {
    let daemons = Daemons::start().unwrap();
    let top = daemons.ctl(["top", "-b", "-n", "2"]).within(Duration::from_secs(20)).ok().text();
    assert_eq!(top.matches("agents: 0 running").count(), 2, "{top}");
    assert_eq!(daemons.ctl(["top", "-b", "-n", "0"]).ok().text(), "");
    daemons.finish().unwrap();
}

pub(crate) fn system_calls_are_counted(shared: &Shared) {
    let daemons = pair(shared);
    let program =
        "import os, time\nfor i in range(5000): os.getppid()\nprint('done', flush=True)\ntime.sleep(60)";
    let agent = detached(daemons, "count", &["--audit", "latency"], &["/usr/bin/python3", "-c", program]);
    agent.await_log("done");
    let found = until(Duration::from_secs(10), || {
        let samples = daemons.ctl(["stats", "--no-stream", "--syscalls", &agent.name]).json();
        let calls = samples[0]["syscalls"].as_array().cloned().unwrap_or_default();
        calls.into_iter().find(|call| call["name"] == "getppid" && call["count"].as_u64() >= Some(5000))
    });
    let call = found.expect("5000 calls of getppid");
    assert_eq!(call["count"], 5000, "exactly");
    assert!(call["p50_ns"].as_u64().is_some_and(|ns| ns > 0), "{call}");
    // The same for Prometheus, by agent.
    let of = format!("{{tenant=\"default\",agent=\"{}\"", agent.name);
    let seen = until(Duration::from_secs(40), || {
        let all = figure(daemons, &format!("aion_agent_syscall_latency_seconds_count{of}}}"))?;
        let written = figure(daemons, &format!("aion_agent_io_latency_seconds_count{of},op=\"write\"}}"))?;
        (all >= 5000.0 && written >= 1.0).then_some(())
    });
    seen.expect("histograms of the agent's calls");
}

/// What the daemon tells Prometheus of a figure, by its name and labels.
pub(crate) fn figure(daemons: &Daemons, name: &str) -> Option<f64> {
    let text = daemons.ctl(["queue", "--metrics"]).ok().text();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

pub(crate) fn doctor_and_version(shared: &Shared) {
    let daemons = pair(shared);
    let value = daemons.ctl(["doctor"]).json();
    assert_eq!(value["daemon"], true);
    let checks = value["checks"].as_array().unwrap();
    assert!(checks.len() >= 8, "{checks:?}");
    for check in checks {
        let state = check["state"].as_str().unwrap();
        assert!(["ok", "degraded", "missing"].contains(&state), "{check}");
        assert_eq!(state == "ok", check["fix"] == "", "{check}");
    }
    let version = daemons.ctl(["version"]).json();
    for part in ["client", "aiond", "launcher"] {
        assert!(version[part].as_str().is_some_and(|text| text.contains('.')), "{version}");
    }
}

pub(crate) fn bystanders_are_never_recorded(shared: &Shared) {
    let daemons = pair(shared);
    let marker = format!("aion-bystander-{}", std::process::id());
    let agent = detached_sh(
        daemons,
        "stander",
        &[],
        "for i in $(seq 50); do /bin/true; done; /bin/echo inside >/dev/null",
    );
    for _ in 0..50 {
        assert!(Command::new("/bin/true").arg(&marker).status().unwrap().success());
    }
    agent.wait();
    let own = until(Duration::from_secs(10), || (agent.records("proc.exec").len() >= 51).then_some(()));
    assert!(own.is_some(), "the agent's are: {}", agent.records("proc.exec").len());
    let all = daemons.ctl(["audit", "query", "-o", "jsonl", "--kind", "proc.*"]).ok();
    assert!(!all.text().contains(&marker), "a process outside was recorded");
    for record in all.json_lines() {
        assert_ne!(record["agent"], "", "{record}");
    }
}
