//! A backup that is made while everything runs is a state: what was acknowledged before it is there, once. What is no whole backup, and no
//! folder for one, is refused, and nothing stays of the attempt.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aion_e2e::{Daemons, Scale, Verdict, Which, eventually, until};
use serde_json::{Value, json};

use crate::agent::detached_sh;
use crate::kernel::{SECRET, signature};
use crate::tasks_node::{Chain, Gate, Node, count, has_ended};
use crate::trouble::Small;

const SETTINGS: &str = "node: {slots: 6}";
const QUICK: Chain = Chain { steps: 2, pause_ms: 5, seed: 3 };
const HELD: Chain = Chain { steps: 20, pause_ms: 5, seed: 11 };

/// Not in /tmp: where that is a tmpfs, some kernels cannot map the owners of a tool's files.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("aion-e2e-backup-").tempdir_in("/var/tmp").unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A signed call of tenantA's.
fn signed(daemons: &Daemons, path: &str, body: &Value) -> (u16, Value) {
    let address = fs::read_to_string(daemons.state().join("run/http")).unwrap();
    let body = body.to_string();
    let mut stream = TcpStream::connect(address.trim()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\nx-tenant-id: tenantA\r\n\
         x-sig-hmac: {}\r\n\r\n{body}",
        body.len(),
        signature(SECRET, body.as_bytes())
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let number = answer.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (number, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A tenant that has stored something, a tool, a model.
fn furnish(daemons: &Daemons) {
    let tenant = ["tenant", "add", "tenantA", "--secret-file", "-"];
    daemons.ctl(tenant).stdin(format!("{SECRET}\n")).ok();
    daemons.ctl(["tool", "install"]).args([daemons.clone_dir().join("examples/web-search/tool.yml")]).ok();
    daemons.ctl(["model", "add", "local", "--url", "http://127.0.0.1:9/v1"]).ok();
    let put = json!({"type": "episodic", "key": "k", "value": {"n": 42}, "meta": {"topic": "kept"}});
    assert_eq!(signed(daemons, "/v1/memory/put", &put).0, 200);
}

fn is_furnished(daemons: &Daemons) {
    let query = json!({"type": "episodic", "filter": {"tenant": "tenantA", "topic": "kept"}});
    let (number, answer) = signed(daemons, "/v1/memory/query", &query);
    assert_eq!((number, &answer["result"]["items"][0]["value"]["n"]), (200, &json!(42)), "{answer}");
    let tools = daemons.ctl(["tool", "ls"]).json();
    assert!(tools.to_string().contains("web_search"), "{tools}");
    let models = daemons.ctl(["model", "ls"]).json();
    assert!(models.to_string().contains("local"), "{models}");
    let search =
        ["tool", "invoke", "web_search", "--params", "{\"query\": \"what limits the memory of processes\"}"];
    let found = daemons.ctl(search).ok().text();
    assert!(found.contains("Control groups"), "the tool's files are there and run: {found}");
}

/// Submits until it is told to stop; gives what was acknowledged.
fn submit_until(node: &Node, stop: &AtomicBool) -> Vec<String> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ids.push(node.submit("script", &format!("during-{}", ids.len()), "low", &QUICK.params()));
    }
    ids
}

pub(crate) fn a_state_moves_while_everything_runs() {
    let queue = Scale::current().pick(10, 40, 400);
    let (from, to, beside) = (folder(), folder(), folder());
    let node = Node::start_in(from, SETTINGS);
    let daemons = &node.daemons;
    furnish(daemons);
    let (of_worker, of_script) = (Gate::new(), Gate::new());
    node.service("worker", of_worker.spec(json!({ "concurrency": 1, "restart": "always" })));
    node.job("held", of_script.spec(json!({})));
    node.job("script", json!({}));
    let talker = detached_sh(daemons, "talker", &[], "echo first words; sleep 1000");
    talker.await_log("first words");
    let name = talker.name.clone();
    // Some have ended, two are in their middle, many wait.
    let ended: Vec<String> =
        (0..3).map(|n| node.submit("script", &format!("ended-{n}"), "normal", &QUICK.params())).collect();
    let before: Vec<Value> = ended.iter().map(|id| node.succeeds(id, &QUICK.result())).collect();
    for (agent, id, gate) in [("worker", "of-service", &of_worker), ("held", "of-job", &of_script)] {
        node.submit(agent, id, "normal", &HELD.held());
        gate.until_held();
    }
    let waiting: Vec<String> =
        (0..queue).map(|n| node.submit("script", &format!("queued-{n}"), "low", &QUICK.params())).collect();
    let stop = AtomicBool::new(false);
    let file = to.path().join("aion.backup");
    let during = std::thread::scope(|scope| {
        let submitting = scope.spawn(|| submit_until(&node, &stop));
        let made = daemons.ctl(["backup", "create", text(&file)]).ok();
        stop.store(true, Ordering::Relaxed);
        drop(made.says("not encrypted").says("not in it: managed workspaces"));
        submitting.join().unwrap()
    });
    assert!(!during.is_empty(), "nothing was submitted meanwhile");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!to.path().join("aion.backup.partial").exists());
    assert!(!daemons.state().join("tmp/backup").exists(), "links stay");
    let verified = daemons.ctl(["backup", "verify", text(&file)]).json();
    assert_eq!((&verified["ok"], &verified["encrypted"]), (&json!(true), &json!(false)), "{verified:#}");
    let records = daemons.ctl(["audit", "query", "--kind", "api.backup.create", "-o", "jsonl"]).ok();
    assert!(records.text().contains("\"allowed\""), "{}", records.text());

    // It is a state. The other pair runs on beside it.
    let state = to.path().join("state");
    let restored = daemons.ctl(["backup", "restore", text(&file), "--state", text(&state)]).json();
    assert_eq!((&restored["audit"]["ok"], &restored["backup"]["files"]), (&json!(true), &verified["files"]));
    let other = Node::start_in(to, SETTINGS);
    the_same_state(&other, &ended, &before, &name);
    other.until("of-service", "its second attempt", |task| task["attempts"].as_u64() > Some(1));
    for gate in [&of_worker, &of_script] {
        gate.open();
    }
    for id in ["of-service", "of-job"] {
        let task = other.succeeds(id, &HELD.result());
        assert!(
            count(&task, "lost") >= 1 && task["may_repeat"] == true,
            "it ran where it no longer runs: {task:#}"
        );
        assert_eq!(count(&task, "succeeded"), 1, "{task:#}");
    }
    for id in &waiting {
        let task = other.succeeds(id, &QUICK.result());
        assert_eq!(count(&task, "succeeded"), 1, "{task:#}");
    }
    // Of what came meanwhile there is a beginning, and nothing after its end.
    let known: Vec<bool> =
        during.iter().map(|id| other.daemons.ctl(["task", "inspect", id]).done().code == 0).collect();
    assert!(known.is_sorted_by(|a, b| a >= b), "a later one is there without an earlier one: {known:?}");
    for (id, _) in during.iter().zip(&known).filter(|(_, known)| **known) {
        other.succeeds(id, &QUICK.result());
    }
    is_furnished(&other.daemons);
    logs_go_on(&other.daemons, daemons, &state, &restored);
    // What was restored can be backed up again.
    let next = beside.path().join("next.backup");
    drop(other.daemons.ctl(["backup", "create", text(&next)]).ok());
    daemons.ctl(["backup", "verify", text(&next)]).ok();

    // Nothing was taken from the first one.
    for id in ["of-service", "of-job"] {
        let task = node.succeeds(id, &HELD.result());
        assert_eq!((&task["attempts"], count(&task, "lost")), (&json!(1), 0), "{task:#}");
    }
    for id in waiting.iter().chain(&during) {
        node.succeeds(id, &QUICK.result());
    }
    other.finish();
    drop(talker);
    node.finish();
}

/// What had ended has ended; what ran is told truly.
fn the_same_state(other: &Node, ended: &[String], before: &[Value], talker: &str) {
    for (id, before) in ended.iter().zip(before) {
        let task = other.inspect(id);
        for field in ["state", "attempts", "result", "history"] {
            assert_eq!(task[field], before[field], "{id}: {field}");
        }
    }
    let daemons = &other.daemons;
    eventually("the agent is known to be lost", Duration::from_secs(30), || {
        let agent = daemons.ctl(["inspect", talker]).json();
        agent["state"] == "exited" && agent["exit"]["reason"] == "lost"
    });
    assert_eq!(daemons.ctl(["logs", talker]).ok().text(), "first words\n");
    eventually("the service runs again", Duration::from_secs(30), || {
        let agent = daemons.ctl(["inspect", "worker"]).json();
        agent["state"] == "running" && agent["pid"].as_u64() > Some(0)
    });
}

/// The old log verifies where it is, the new one where it goes on, and the index has both.
fn logs_go_on(daemons: &Daemons, first: &Daemons, state: &Path, restored: &Value) {
    let old = restored["audit"]["folder"].as_str().unwrap();
    assert!(Path::new(old).starts_with(state), "{restored:#}");
    let anchor =
        format!("{}:{}", restored["audit"]["last_seq"], restored["audit"]["last_hash"].as_str().unwrap());
    let key = restored["audit"]["public_key"].as_str().unwrap();
    let verify = ["audit", "verify", "--dir", old, "--key", key, "--anchor", &anchor];
    assert_eq!(daemons.ctl(verify).json()["ok"], true);
    let new = daemons.ctl(["audit", "verify"]).json();
    let next = restored["audit"]["last_seq"].as_u64().unwrap() + 1;
    assert_eq!((&new["ok"], &new["first_seq"]), (&json!(true), &json!(next)), "{new:#}");
    assert_ne!(new["public_key"], key);
    // Nothing of before is missing, also of what the copy of the database did not know yet.
    let records = |daemons: &Daemons| daemons.ctl(["audit", "query", "-o", "jsonl"]).ok().json_lines();
    let before = |records: &[Value]| -> Vec<Value> {
        records.iter().filter(|record| record["seq"].as_u64() < Some(next)).cloned().collect()
    };
    let all = records(daemons);
    let (kept, expected) = (before(&all), before(&records(first)));
    assert!(kept == expected && !kept.is_empty(), "{} records of {}", kept.len(), expected.len());
    let joint = all.iter().find(|record| record["seq"].as_u64() == Some(next)).unwrap();
    assert_eq!(joint["kind"], "audit.continued", "{joint:#}");
}

/// Some megabytes of state, so that no pipe holds a backup whole.
fn with_output(daemons: &Daemons) {
    let script = "head -c 6000000 /dev/zero | tr '\\0' x; echo; echo written";
    let agent = ["run", "-d", "--name", "wordy", "--", "sh", "-c", script];
    daemons.ctl(agent).ok();
    daemons.ctl(["wait", "wordy"]).ok();
}

pub(crate) fn what_is_not_whole_or_not_for_us_is_refused() {
    let folder = folder();
    let daemons = Daemons::start_in(folder.path()).unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, bytes: &[u8]| {
        fs::write(path(name), bytes).unwrap();
        path(name)
    };
    let (right, wrong) = (write("right", b"correct horse battery staple\n"), write("wrong", b"another\n"));
    let (plain, sealed) = (path("plain"), path("sealed"));
    daemons.ctl(["backup", "create", text(&plain)]).ok();
    let encrypted = daemons.ctl(["backup", "create", text(&sealed), "--passphrase-file", text(&right)]).ok();
    assert!(!encrypted.err.contains("not encrypted"), "{}", encrypted.err);
    // A file is never written over.
    drop(daemons.ctl(["backup", "create", text(&plain)]).done().expect(1).says("is there already"));

    let good = fs::read(&plain).unwrap();
    let mut flipped = good.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 4;
    let flipped = write("flipped", &flipped);
    let cut = write("cut", &good[..good.len() - 700]);
    let other = write("other", b"#!/bin/sh\n");
    let half = write("half", &fs::read(&sealed).unwrap()[..3000]);
    let state = path("restored");
    let restore = |file: &Path, more: &[&str]| {
        daemons.ctl(["backup", "restore", text(file), "--state", text(&state)]).args(more).done()
    };
    let right = ["--passphrase-file", text(&right)];
    let wrong = ["--passphrase-file", text(&wrong)];
    for (file, keys, code, says) in [
        (&flipped, &[][..], 1, "BACKUP_BROKEN"),
        (&cut, &[], 1, "cut off"),
        (&other, &[], 1, "it is not a backup"),
        (&half, &right, 1, "BACKUP_BROKEN"),
        (&sealed, &wrong, 5, "BACKUP_LOCKED"),
        (&sealed, &[], 5, "--passphrase-file"),
    ] {
        drop(daemons.ctl(["backup", "verify", text(file)]).args(keys).done().expect(code).says(says));
        drop(restore(file, keys).expect(code).says(says));
        assert!(
            !state.exists() && !path(".restored.restoring").exists(),
            "{} left something",
            file.display()
        );
    }
    let verified = daemons.ctl(["backup", "verify", text(&sealed)]).args(right).json();
    assert_eq!(verified["encrypted"], true);
    drop(restore(&plain, &["--user", "nobody-of-this-name"]).expect(1).says("--user"));

    // A folder that somebody needs.
    let own = daemons.ctl(["backup", "restore", text(&plain), "--state", text(daemons.state())]).done();
    drop(own.expect(1).says("STATE_NOT_EMPTY").says("aiond runs on").says("systemctl stop"));
    fs::create_dir_all(state.join("db")).unwrap();
    fs::write(state.join("db/CURRENT"), "mine").unwrap();
    drop(restore(&plain, &[]).expect(1).says("STATE_NOT_EMPTY").says("db/CURRENT"));
    assert_eq!(fs::read_to_string(state.join("db/CURRENT")).unwrap(), "mine");
    fs::remove_dir_all(&state).unwrap();
    assert_eq!(restore(&sealed, &right).code, 0);
    assert!(state.join("db/CURRENT").is_file());

    // Through a pipe, as to another machine.
    let piped = daemons.ctl(["backup", "create", "-"]).ok();
    daemons.ctl(["backup", "verify", "-"]).stdin(piped.out).ok();
    the_standard_programs_read_it(&path("tar"), &plain);
    daemons.finish().unwrap();
}

/// What an operator has without AION.
fn the_standard_programs_read_it(into: &Path, backup: &Path) {
    fs::create_dir(into).unwrap();
    let command = format!("tar -xf {} && sha256sum --quiet -c aion-backup.sums", backup.display());
    let done = Command::new("sh").arg("-c").arg(command).current_dir(into).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn staged(daemons: &Daemons) -> PathBuf {
    daemons.state().join("tmp/backup")
}

pub(crate) fn one_at_a_time_and_nothing_stays_of_one_that_was_cut_off() {
    let folder = folder();
    let daemons = Daemons::start_in(folder.path()).unwrap();
    with_output(&daemons);
    // It writes into a pipe that nobody reads.
    let stuck = || {
        let mut command = daemons.ctl(["backup", "create", "-"]).into_command();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        eventually("a backup is being made", Duration::from_secs(20), || staged(&daemons).exists());
        child
    };
    let mut first = stuck();
    let second = daemons.ctl(["backup", "create", text(&folder.path().join("second"))]).done();
    drop(second.expect(1).says("RESOURCE_EXHAUSTED").says("another backup"));
    assert!(!folder.path().join("second.partial").exists());
    first.kill().unwrap();
    first.wait().unwrap();
    eventually("its links are gone", Duration::from_secs(20), || !staged(&daemons).exists());

    let mut cut = stuck();
    daemons.kill(Which::Aiond);
    assert!(staged(&daemons).exists(), "a killed daemon has no last chance");
    daemons.start_one(Which::Aiond).unwrap();
    daemons.await_ready().unwrap();
    assert!(!staged(&daemons).exists(), "what the crash left is gone");
    cut.kill().unwrap();
    cut.wait().unwrap();
    let whole = folder.path().join("third");
    let made = until(Duration::from_secs(20), || {
        (daemons.ctl(["backup", "create", text(&whole)]).done().code == 0).then_some(())
    });
    assert!(made.is_some(), "no backup any more");
    daemons.ctl(["backup", "verify", text(&whole)]).ok();

    // A daemon that finds a state which is not whole does not run on it.
    let half = folder.path().join("half");
    fs::create_dir_all(half.join(".restoring")).unwrap();
    for program in ["aiond", "aion-launcher"] {
        let mut command = Command::new(daemons.bin().join(program));
        let done = command.arg("--state").arg(&half).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains("restore"), "{program}: {said}");
    }
    daemons.finish().unwrap();
}

pub(crate) fn a_full_disk_leaves_nothing_of_it() -> Verdict {
    let (Some(small), Some(tiny)) = (Small::mount(1), Small::mount(64)) else {
        return Verdict::Skipped("no tmpfs can be mounted here".to_owned());
    };
    let folder = folder();
    let daemons = Daemons::start_in(folder.path()).unwrap();
    with_output(&daemons);
    let to = small.path().join("aion.backup");
    let done = daemons.ctl(["backup", "create", text(&to)]).done().expect(1);
    drop(done.says("DISK_FULL").says("--without-output"));
    assert_eq!(fs::read_dir(small.path()).unwrap().count(), 0, "something stayed");
    // The same state without what fills it.
    let (whole, less) = (folder.path().join("whole"), folder.path().join("less"));
    daemons.ctl(["backup", "create", text(&whole)]).ok();
    daemons.ctl(["backup", "create", text(&less), "--without-output"]).ok();
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(size(&less) + 5_000_000 < size(&whole), "{} and {}", size(&less), size(&whole));
    // A disk of its own, on which a state does not find room.
    let done = daemons.ctl(["backup", "restore", text(&whole), "--state", text(tiny.path())]).done();
    drop(done.expect(1).says("DISK_FULL"));
    assert_eq!(fs::read_dir(tiny.path()).unwrap().count(), 0, "something stayed");
    let tasks = daemons.ctl(["task", "ps", "-a"]).json();
    assert!(tasks.as_array().is_none_or(|tasks| tasks.iter().all(has_ended)), "{tasks}");
    daemons.finish().unwrap();
    Verdict::Passed
}

/// A state of which the disk is its own is filled and not renamed over.
pub(crate) fn a_disk_of_its_own_is_filled() -> Verdict {
    let Some(disk) = Small::mount(600) else {
        return Verdict::Skipped("no tmpfs can be mounted here".to_owned());
    };
    let folder = folder();
    let daemons = Daemons::start_in(folder.path()).unwrap();
    let file = folder.path().join("aion.backup");
    daemons.ctl(["backup", "create", text(&file)]).ok();
    for made in ["db", "lost+found", "run"] {
        fs::create_dir(disk.path().join(made)).unwrap();
    }
    daemons.ctl(["backup", "restore", text(&file), "--state", text(disk.path())]).ok();
    assert!(disk.path().join("db/CURRENT").is_file() && !disk.path().join(".restoring").exists());
    let again = daemons.ctl(["backup", "restore", text(&file), "--state", text(disk.path())]).done();
    drop(again.expect(1).says("STATE_NOT_EMPTY"));
    daemons.finish().unwrap();
    Verdict::Passed
}
