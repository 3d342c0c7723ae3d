//! Tasks from submission to result, and what is refused: through the command line, with real agents.

use std::time::Duration;

use aion_e2e::{Ctl, Verdict, eventually};
use serde_json::json;

use crate::egress_live::{own_policies, policy};
use crate::tasks_node::{Chain, Node, count, kinds};

const ROOMY: &str = "node: {slots: 8}";

pub(crate) fn from_submission_to_result() {
    let node = Node::start(ROOMY);
    let daemons = &node.daemons;
    node.service("worker", json!({ "concurrency": 4, "env": { "CONCURRENCY": "4" } }));
    node.job("script", json!({}));
    for agent in ["worker", "script"] {
        let chain = Chain { steps: 5, pause_ms: 10, seed: 7 };
        let id = node.submit(agent, &format!("{agent}-1"), "normal", &chain.params());
        let task = node.succeeds(&id, &chain.result());
        // What scripts rely on.
        for field in ["id", "state", "attempts", "preemptions", "checkpoints", "result", "history"] {
            assert!(!task[field].is_null(), "{field} is missing: {task:#}");
        }
        assert_eq!(
            (&task["id"], &task["attempts"], &task["preemptions"]),
            (&json!(id), &json!(1), &json!(0))
        );
        let kinds = kinds(&task);
        assert_eq!((kinds.first(), kinds.last()), (Some(&"submitted"), Some(&"succeeded")), "{kinds:?}");
        assert!(kinds.contains(&"dispatched"), "{kinds:?}");

        // The same again is the same task; another one under its id is refused.
        assert_eq!(node.submit(agent, &id, "normal", &chain.params()), id);
        let other = daemons.ctl(["task", "submit", "--agent", agent, "--id", &id, "--params", "1"]);
        other.done().expect(1).says("TASK_EXISTS").says(&id);
        assert_eq!(node.inspect(&id)["attempts"], 1, "it was not run again");
    }
    // A file, its flags, and the result in place of the id.
    let file = "agent: script\nintent: count\nqueue: high\nlabels: {kind: file}\nparams: {\"steps\":1,\"pause_ms\":1,\"seed\":1}\n";
    let waited =
        daemons.ctl(["task", "submit", "-f", "-", "--id", "of-file", "--label", "by=test", "--wait"]);
    let done = waited.stdin(file).ok().says("succeeded");
    assert_eq!(done.text(), "of-file\n", "the id alone is printed, also by who waits");
    assert_eq!(node.inspect("of-file")["result"], Chain { steps: 1, pause_ms: 1, seed: 1 }.result());
    let task = node.inspect("of-file");
    assert_eq!(
        (&task["queue"], &task["spec"]["labels"]),
        (&json!("high"), &json!({"kind": "file", "by": "test"}))
    );
    let chain = Chain { steps: 2, pause_ms: 1, seed: 2 };
    let params = daemons.ctl(["task", "submit", "--agent", "script", "--params", "-", "--wait"]);
    assert_eq!(params.stdin(chain.params()).json()["result"], chain.result());

    // Lists, with and without what has ended.
    let ids = |args: &[&str]| daemons.ctl(["task", "ps", "-q"]).args(args).ok().text();
    assert_eq!(ids(&[]), "");
    assert_eq!(ids(&["-a", "-f", "agent=worker"]), "worker-1\n");
    assert_eq!(ids(&["-a", "-f", "label=by=test"]), "of-file\n");
    assert_eq!(ids(&["-f", "state=succeeded", "-n", "2"]).lines().count(), 2);
    // The whole story, as it is kept.
    let history = daemons.ctl(["task", "history", "script-1", "-o", "jsonl"]).ok().json_lines();
    let watched = daemons.ctl(["task", "watch", "script-1", "-o", "jsonl"]).ok().json_lines();
    assert_eq!(history, watched);
    let after = history[1]["seq"].to_string();
    let rest =
        daemons.ctl(["task", "watch", "script-1", "--cursor", &after, "-o", "jsonl"]).ok().json_lines();
    assert_eq!(rest, &history[2..], "a watch goes on after its cursor");
    let queues = daemons.ctl(["queue"]).json();
    assert_eq!((&queues["slots"], &queues["slots_used"]), (&json!(8), &json!(0)));
    let metrics = daemons.ctl(["queue", "--metrics"]).ok().text();
    for name in ["aion_kernel_scheduler_queue_depth{queue=\"high\"} 0", "aion_kernel_preemption_count 0"] {
        assert!(metrics.contains(name), "{name}: {metrics}");
    }
    node.finish();
}

/// What a job's process was launched with counts, whatever its agent is registered with by then.
pub(crate) fn what_a_running_job_keeps_is_told_by_its_launch() {
    let node = Node::start(ROOMY);
    let folder = own_policies(&node.daemons);
    let entry = json!(["/bin/sleep", "600"]);
    let open = json!({ "subprocess": true, "network": true });
    node.job("keeps", json!({ "entry": entry, "network": "host", "capabilities": open }));
    node.submit("keeps", "keeps", "normal", "1");
    node.until_state("keeps", "running");
    node.job("keeps", json!({ "entry": entry }));
    policy(&folder, "  - network\n");
    let held = node.daemons.ctl(["policy", "reload"]).json();
    assert_eq!(held[0]["error"], "", "{held:#}");
    assert!(held[0]["name"].as_str().unwrap().starts_with("keeps-"), "{held:#}");
    let told = held[0]["until_restart"].to_string();
    assert!(told.contains("net:connect:") && told.contains("agent.capabilities.yaml:"), "{held:#}");
    node.daemons.ctl(["task", "cancel", "keeps"]).ok();
    node.until_state("keeps", "cancelled");
    node.finish();
}

pub(crate) fn what_a_process_leaves_behind() {
    let node = Node::start(ROOMY);
    let daemons = &node.daemons;
    let job = |name: &str, script: &str| {
        node.job(name, json!({ "entry": ["/usr/bin/python3", "-c", script] }));
        node.submit(name, name, "normal", "1");
    };
    // A name that somebody has already is no reason to fail.
    for name in ["named-1-1", "named-1-2"] {
        daemons.ctl(["run", "-d", "--name", name, "--", "true"]).ok();
    }
    job("named", "");
    node.until_state("named", "succeeded");
    assert_eq!(node.inspect("named")["attempts"], 3);
    // A result that is there and cannot be taken is not the same as none.
    job("large", "import os; open(os.environ['AION_RESULT'], 'w').write('\\\"' + 'x' * (2 << 20) + '\\\"')");
    job("folder", "import os; os.mkdir(os.environ['AION_RESULT'])");
    // What a checkpoint cannot hold is named; whoever asks for another run gets it, later.
    let links = "import os, sys; os.chdir(os.environ['AION_CHECKPOINT_DIR'])\n\
                 if os.environ['AION_TASK_ATTEMPT'] != '1': sys.exit(0)\n\
                 open('f', 'w').write('x'); os.symlink('f', 'current'); sys.exit(75)";
    job("links", links);
    job("again", "import sys; sys.exit(75)");
    for name in ["large", "folder"] {
        node.until_state(name, "failed");
        assert_eq!(node.inspect(name)["error"]["code"], "RESULT_INVALID", "{name}");
    }
    node.until_state("links", "succeeded");
    let history = daemons.ctl(["task", "history", "links"]).ok().text();
    assert!(history.contains("noted") && history.contains("current"), "{history}");
    let again = node.inspect("again");
    assert!(again["attempts"].as_u64().unwrap() < 10, "{again:#}");
    assert!(kinds(&again).contains(&"retried"), "{again:#}");
    daemons.ctl(["task", "cancel", "again"]).ok();
    // Who stops a process by hand does not fail its task: it goes on from what it left.
    let stopped = "import os, signal, sys, time; os.chdir(os.environ['AION_CHECKPOINT_DIR'])\n\
                   if os.path.exists('f'): sys.exit(0)\n\
                   def leave(*_): open('f', 'w').write('x'); sys.exit(143)\n\
                   signal.signal(signal.SIGTERM, leave); open('.commit', 'w'); time.sleep(60)";
    job("stopped", stopped);
    node.until("stopped", "its first checkpoint", |task| task["checkpoints"].as_u64() > Some(0));
    let running = daemons.ctl(["ps", "-o", "name"]).ok().text();
    let process = running.lines().find(|name| name.starts_with("stopped-")).unwrap();
    daemons.ctl(["stop", process]).ok();
    let task = node.until_state("stopped", "succeeded");
    assert_eq!((&task["attempts"], &task["checkpoints"]), (&json!(2), &json!(2)), "{task:#}");
    daemons.ctl(["rm", "-a"]).ok();
    node.finish();
}

pub(crate) fn order_dependencies_retries_and_cancelling() {
    let node = Node::start("node: {slots: 1}\npreemption: {high_cap_percent: 0}");
    let daemons = &node.daemons;
    node.job("script", json!({}));
    let fails = "read params; [ -e \"$AION_CHECKPOINT_DIR/once\" ] && exit 0; [ \"$AION_TASK_ATTEMPT\" = 3 ] || exit 9";
    node.job("fails", json!({ "entry": ["/bin/sh", "-c", fails] }));
    let long = Chain { steps: 100_000, pause_ms: 10, seed: 1 }.params();
    let short = Chain { steps: 1, pause_ms: 1, seed: 3 };
    node.submit("script", "runs", "normal", &long);
    node.until_state("runs", "running");
    node.submit("script", "waits", "normal", &short.params());
    let after = daemons.ctl(["task", "submit", "--agent", "script", "--id", "after", "--after", "waits"]);
    after.args(["--params", &short.params()]).ok();
    let waits = node.inspect("waits");
    assert_eq!(
        (&waits["state"], &waits["why"]),
        (&json!("queued"), &json!("all slots are taken")),
        "{waits:#}"
    );
    let blocked = node.inspect("after");
    assert_eq!(blocked["state"], "blocked");
    assert!(blocked["why"].as_str().unwrap().contains("waits"), "{blocked:#}");
    // One that waits is gone at once, one that runs when its process is.
    node.submit("script", "unwanted", "low", &short.params());
    daemons.ctl(["task", "cancel", "unwanted", "--reason", "no need"]).ok();
    let unwanted = node.inspect("unwanted");
    assert_eq!((&unwanted["state"], &unwanted["why"]), (&json!("cancelled"), &json!("no need")));
    let mut watch = daemons.ctl(["task", "watch", "runs", "-o", "name"]).spawn();
    watch.await_text("started");
    assert_eq!(daemons.ctl(["task", "cancel", "runs"]).ok().text(), "runs\n");
    assert!(watch.done().expect(0).text().ends_with("cancelled\n"));
    node.until_state("runs", "cancelled");
    daemons.ctl(["task", "cancel", "runs"]).ok();
    node.succeeds("after", &short.result());
    let done = node.inspect("waits");
    assert!(done["finished"].as_str() < node.inspect("after")["started"].as_str(), "{done:#}");
    daemons.ctl(["task", "cancel", "after"]).done().expect(3).says("TASK_ENDED").says("succeeded");

    let task = "agent: fails\ntask_id: stubborn\nretry: {max_attempts: 3, backoff: 20ms}\n";
    daemons.ctl(["task", "submit", "-f", "-", "--wait"]).stdin(task).ok();
    let stubborn = node.inspect("stubborn");
    assert_eq!((&stubborn["attempts"], count(&stubborn, "retried")), (&json!(3), 2), "{stubborn:#}");
    let once = daemons.ctl(["task", "submit", "--agent", "fails", "--id", "hopeless", "--wait"]).done();
    once.expect(1).says("hopeless failed").says("EXIT_9");
    assert_eq!(node.inspect("hopeless")["error"]["code"], "EXIT_9");
    let waits = daemons.ctl(["task", "submit", "--agent", "script", "--after", "hopeless"]);
    waits.done().expect(1).says("DEPENDENCY_FAILED").says("hopeless");
    node.finish();
}

pub(crate) fn bad_input_changes_nothing() {
    let node = Node::start("node: {slots: 2}\nquotas: {max_queued: 3}");
    let daemons = &node.daemons;
    node.job("script", json!({ "concurrency": 1 }));
    node.agent("plain", json!({ "mode": "service", "entry": ["/bin/sleep", "1000"] }));
    let submit =
        |args: &[&str]| daemons.ctl(["task", "submit", "--agent", "script", "--id", "bad"]).args(args);
    let refused = |ctl: Ctl, exit: i32, parts: &[&str]| {
        let mut done = ctl.done().expect(exit);
        assert!(done.out.is_empty(), "nothing is printed for a task that there is not");
        for part in parts {
            done = done.says(part);
        }
        daemons.ctl(["task", "inspect", "bad"]).done().expect(4).says("TASK_NOT_FOUND");
    };
    refused(submit(&["--queue", "urgent"]), 2, &["queue", "urgent", "high, normal, low"]);
    refused(submit(&["--priority", "10"]), 2, &["priority", "0 to 9"]);
    refused(submit(&["--priority", "x"]), 2, &["priority"]);
    refused(submit(&["--deadline", "2001-01-01T00:00:00Z"]), 2, &["deadline", "past"]);
    refused(submit(&["--deadline", "soon"]), 2, &["deadline", "soon"]);
    refused(submit(&["--timeout", "0s"]), 2, &["timeout"]);
    refused(submit(&["--params", "{"]), 2, &["params", "JSON"]);
    refused(submit(&["--after", "bad"]), 2, &["after", "DEPENDENCY_CYCLE", "itself"]);
    refused(submit(&["--after", "nobody"]), 4, &["after", "DEPENDENCY_NOT_FOUND", "nobody"]);
    refused(submit(&["--agent", "nobody"]), 4, &["AGENT_NOT_FOUND", "nobody"]);
    refused(submit(&["--agent", "plain"]), 1, &["NOT_SERVED", "plain", "mode: job"]);
    refused(submit(&["--agent", "../x"]), 2, &["agent"]);
    refused(submit(&["--intent", &"x".repeat(5000)]), 2, &["intent", "TOO_LARGE"]);
    refused(daemons.ctl(["task", "submit", "--id", "bad"]), 2, &["--agent", "--selector"]);
    refused(
        submit(&["--params", "-"]).stdin("\"".to_owned() + &"x".repeat(4 << 20)),
        2,
        &["params", "TOO_LARGE"],
    );
    let file = |text: &str| daemons.ctl(["task", "submit", "-f", "-"]).stdin(format!("task_id: bad\n{text}"));
    refused(file("agent: script\nqueue: urgent\n"), 2, &[":3:", "queue"]);
    refused(file("agent: script\npriorty: 3\n"), 2, &[":3:", "priorty"]);
    refused(file("agent: script\nretry: {max_attempts: 0}\n"), 2, &[":3:", "max_attempts"]);
    refused(file("agent: script\nneeds: {slots: 3}\n"), 1, &["NOT_SERVED", "slots"]);
    daemons.ctl(["task", "submit", "--agent", "script", "--id", "a/b"]).done().expect(2).says("id");
    daemons.ctl(["task", "ps", "-f", "state=asleep"]).done().expect(2).says("asleep");
    for command in ["inspect", "cancel", "history", "watch", "checkpoint"] {
        daemons.ctl(["task", command, "nobody"]).done().expect(4).says("TASK_NOT_FOUND");
    }
    // Not one of them was taken in, and all were counted.
    assert_eq!(daemons.ctl(["task", "ps", "-a", "-q"]).ok().text(), "");
    let metrics = daemons.ctl(["queue", "--metrics"]).ok().text();
    for code in ["INVALID_FIELD", "DEPENDENCY_CYCLE", "AGENT_NOT_FOUND", "NOT_SERVED"] {
        let line = format!("refused_total{{code=\"{code}\"}}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    // A full queue says when to come back.
    let long = Chain { steps: 100_000, pause_ms: 10, seed: 1 }.params();
    node.submit("script", "runs", "normal", &long);
    node.until_state("runs", "running");
    for n in 0..3 {
        node.submit("script", &format!("waits-{n}"), "normal", &long);
    }
    refused(submit(&[]), 1, &["RESOURCE_EXHAUSTED", "3 tasks", "again in"]);
    // A result that is no JSON.
    daemons.ctl(["task", "cancel", "waits-0", "waits-1", "waits-2", "runs"]).ok();
    node.job("babbles", json!({ "entry": ["/bin/sh", "-c", "echo oops > $AION_RESULT"] }));
    let babbles = daemons.ctl(["task", "submit", "--agent", "babbles", "--wait"]);
    babbles.done().expect(1).says("RESULT_INVALID").says("JSON");
    node.finish();
}

pub(crate) fn quotas_say_why_and_when() {
    let node = Node::start("node: {slots: 4}\nquotas: {tasks_per_minute: 2}");
    let daemons = &node.daemons;
    node.job("script", json!({}));
    let short = Chain { steps: 1, pause_ms: 1, seed: 1 };
    for n in 0..3 {
        node.submit("script", &format!("t-{n}"), "normal", &short.params());
    }
    node.succeeds("t-1", &short.result());
    let waits =
        node.until("t-2", "a quota", |task| task["why"].as_str().is_some_and(|why| why.contains("quota")));
    let why = waits["why"].as_str().unwrap();
    assert!(why.contains("tasks_per_minute") && why.contains("frees up in"), "{why}");
    assert!(waits["retry_at"].is_string(), "{waits:#}");
    let queues = daemons.ctl(["queue"]).json();
    let limited = queues["tenants"][0]["limited_by"].as_str().unwrap_or_default();
    assert!(limited.contains("tasks_per_minute"), "{queues:#}");
    let metrics = daemons.ctl(["queue", "--metrics"]).ok().text();
    assert!(metrics.contains("aion_kernel_scheduler_quota_waits 1"), "{metrics}");
    // Settings that are not valid change nothing; those that are take effect while it waits.
    let done = node.reload("node: {slots: 4}\nquotas: {tasks_per_minute: lots}").done().expect(1);
    done.says("scheduler.yaml:4:").says("tasks_per_minute");
    assert_eq!(node.inspect("t-2")["state"], "waiting");
    node.reload("node: {slots: 4}").ok();
    node.succeeds("t-2", &short.result());

    node.reload("node: {slots: 4}\nquotas: {max_concurrency: 1}").ok();
    let long = Chain { steps: 100_000, pause_ms: 10, seed: 1 }.params();
    node.submit("script", "runs", "normal", &long);
    node.until_state("runs", "running");
    node.submit("script", "second", "normal", &short.params());
    let second = node.inspect("second");
    assert!(second["why"].as_str().unwrap().contains("max_concurrency"), "{second:#}");
    daemons.ctl(["task", "cancel", "runs"]).ok();
    node.succeeds("second", &short.result());
    node.finish();
}

/// Each agent has its own door and its own tasks; who is no operator has none.
pub(crate) fn everybody_has_their_own() {
    let node = Node::start(ROOMY);
    let daemons = &node.daemons;
    let looks = "ls /run/aion > $AION_CHECKPOINT_DIR/doors 2>&1; \
        ls -d /var/lib/aion \"$1\" > $AION_CHECKPOINT_DIR/state 2>/dev/null; \
        printf '{\"doors\":\"%s\",\"state\":\"%s\"}' \"$(cat $AION_CHECKPOINT_DIR/doors)\" \"$(cat $AION_CHECKPOINT_DIR/state)\" > $AION_RESULT";
    let state = daemons.state().to_str().unwrap().to_owned();
    let entry = json!(["/bin/sh", "-c", looks, "look", state]);
    node.job("looks", json!({ "entry": entry }));
    let seen = daemons.ctl(["task", "submit", "--agent", "looks", "--wait"]).json();
    let seen = &seen["result"];
    assert_eq!(seen["state"], "", "no agent sees the journal: {seen}");
    // An agent that speaks of another's attempt is told that it does not count.
    node.service("worker", json!({}));
    let chain = Chain { steps: 100_000, pause_ms: 10, seed: 1 };
    node.submit("worker", "mine", "normal", &chain.params());
    let mine = node.until_state("mine", "running");
    let token = mine["attempt"].as_str().unwrap().to_owned();
    let (epoch, seq) = token.split_once('-').unwrap_or((&token, "0"));
    let steals = crate::tasks_node::PYTHON.replace(
        "                    self.handle(stream, kind, body)",
        "                    self.handle(stream, kind, body)\n                    if kind == 1:\n                        \
         stream.send(field(5, field(1, field(1, field(1, EPOCH) + field(2, SEQ)) + field(2, b'666'))))\n                    \
         if kind == 7:\n                        print('refused', body, flush=True)",
    );
    assert_ne!(steals, crate::tasks_node::PYTHON);
    let steals = steals.replace("EPOCH)", &format!("{epoch})")).replace("SEQ)", &format!("{seq})"));
    node.service("thief", json!({ "entry": ["/usr/bin/python3", "-B", "-c", steals] }));
    eventually("the thief is refused", Duration::from_secs(30), || {
        daemons.ctl(["logs", "thief"]).ok().text().contains("ATTEMPT_STALE")
    });
    let mine = node.inspect("mine");
    assert_eq!((&mine["state"], &mine["attempts"]), (&json!("running"), &json!(1)));
    // Another user has nothing to ask for.
    let mut stranger = std::process::Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(daemons.bin().join("aionctl"));
    stranger
        .args(["task", "inspect", "mine"])
        .env("AION_SOCKET", daemons.socket())
        .env("AION_RECONNECT_SECONDS", "0");
    if let Ok(output) = stranger.output() {
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
    daemons.ctl(["task", "cancel", "mine"]).ok();
    node.finish();
}

/// From one node to another, and what is kept of it.
pub(crate) fn a_journal_moves() {
    let (node, other) = (Node::start("node: {slots: 1}"), Node::start(ROOMY));
    for node in [&node, &other] {
        node.job("script", json!({}));
    }
    let (long, short) =
        (Chain { steps: 100_000, pause_ms: 10, seed: 1 }, Chain { steps: 2, pause_ms: 1, seed: 5 });
    node.submit("script", "done", "normal", &short.params());
    node.succeeds("done", &short.result());
    node.submit("script", "runs", "normal", &long.params());
    node.until_state("runs", "running");
    node.submit("script", "waits", "normal", &short.params());
    let file = node.folder.path().join("export");
    let file = file.to_str().unwrap();
    node.daemons.ctl(["journal", "export", file]).ok();
    node.daemons.ctl(["journal", "export", file]).done().expect(1).says("export");
    node.daemons.ctl(["journal", "import", file]).done().expect(1).says("TASK_EXISTS");

    let bytes = std::fs::read(file).unwrap();
    for damaged in [&bytes[..bytes.len() / 2], b"something else", &[&bytes[..100], &bytes[101..]].concat()] {
        other.daemons.ctl(["journal", "import", "-"]).stdin(damaged).done().expect(1).says("JOURNAL_BROKEN");
    }
    assert_eq!(other.daemons.ctl(["task", "ps", "-aq"]).ok().text(), "");
    other.daemons.ctl(["journal", "import", file]).ok();
    assert_eq!(other.inspect("done")["result"], short.result());
    other.succeeds("waits", &short.result());
    // What ran there is lost here, and runs again.
    other.until_state("runs", "running");
    assert_eq!(other.inspect("runs")["attempts"], 2);
    for node in [&node, &other] {
        node.daemons.ctl(["task", "cancel", "runs"]).ok();
        node.until_state("runs", "cancelled");
    }
    // What has ended goes when it is no longer kept.
    other.reload("retention: {max_ended: 1}").ok();
    let compacted = other.daemons.ctl(["journal", "compact"]).json();
    assert_eq!((&compacted["removed"], &compacted["tasks"]), (&json!(2), &json!(1)), "{compacted:#}");
    other.daemons.ctl(["task", "inspect", "done"]).done().expect(4);
    other.finish();
    node.finish();
}

/// New work is refused and what was taken in comes to its end.
pub(crate) fn a_full_disk_refuses_new_tasks() -> Verdict {
    let Some(small) = crate::trouble::Small::mount(256) else {
        return Verdict::Skipped("no tmpfs can be mounted here".to_owned());
    };
    let folder = tempfile::Builder::new().prefix("state-").tempdir_in(small.path()).unwrap();
    let node = Node::start_in(folder, "node: {slots: 1}");
    let daemons = &node.daemons;
    node.job("script", json!({ "resources": { "disk": "16Mi" } }));
    let chain = Chain { steps: 300, pause_ms: 10, seed: 4 };
    node.submit("script", "runs", "normal", &chain.params());
    node.until_state("runs", "running");
    node.submit("script", "waits", "normal", &Chain { steps: 1, pause_ms: 1, seed: 9 }.params());
    let ballast = crate::trouble::fill(small.path());
    let refused = daemons.ctl(["task", "submit", "--agent", "script", "--id", "late"]).done();
    refused.expect(1).says("DISK_FULL").says("free space");
    daemons.ctl(["task", "inspect", "late"]).done().expect(4);
    node.succeeds("runs", &chain.result());
    assert_eq!(daemons.ctl(["journal", "check"]).json()["ok"], true);
    std::fs::remove_file(ballast).unwrap();
    eventually("there is room again", Duration::from_secs(20), || {
        daemons.ctl(["task", "submit", "--agent", "script", "--id", "late"]).done().code == 0
    });
    node.until_state("waits", "succeeded");
    daemons.ctl(["task", "cancel", "late"]).spawn().done_quietly();
    node.finish();
    Verdict::Passed
}
