//! A backup and the archive of the journal lead to any point after it: tasks are then as they were told to be at that point, and nothing that
//! came later is there. What does not lead there is refused, and nothing stays of the attempt.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aion_e2e::Which;
use serde_json::{Value, json};

use crate::backup::{folder, text};
use crate::tasks_node::{Chain, Gate, Node};

const SETTINGS: &str = "node: {slots: 4}";
const QUICK: Chain = Chain { steps: 2, pause_ms: 5, seed: 3 };
const HELD: Chain = Chain { steps: 20, pause_ms: 5, seed: 11 };
const KEY: &str = "AGE-SECRET-KEY-1KR2YN2G7HC6X60M9W5ZSMCE25FE3A74M0AAD7TH2UJ96D3JJEUAQ0F9PJH";
const RECIPIENT: &str = "age1jrwhwj42d25yk4vkpuws4d7h82vwydssa6rg93cm495m7lvt498srpc3dl";

/// A task that waits for another one.
fn submit_after(node: &Node, before: &str, id: &str) -> String {
    let ctl = node.daemons.ctl(["task", "submit", "--agent", "script", "--id", id, "--after", before]);
    ctl.args(["--params", &QUICK.params()]).ok();
    id.to_owned()
}

/// What is said of tasks, but for what goes on by itself.
fn told(node: &Node, ids: &[String]) -> Vec<Value> {
    let of = |id: &String| {
        let task = node.inspect(id);
        let fields = ["state", "attempts", "result", "history"].map(|field| task[field].clone());
        json!([id, fields])
    };
    ids.iter().map(of).collect()
}

fn archive(node: &Node, to: &Path) -> Value {
    node.daemons.ctl(["backup", "archive", text(to), "--recipient", RECIPIENT]).json()
}

/// The wall clock, as RFC 3339 with milliseconds.
fn now() -> String {
    let said = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn last_event(node: &Node, id: &str) -> u64 {
    let task = node.inspect(id);
    task["history"]
        .as_array()
        .and_then(|events| events.last())
        .and_then(|event| event["seq"].as_u64())
        .unwrap()
}

/// Restores to a point, starts daemons there, and compares.
fn is_as_it_was(node: &Node, from: &[&str], point: &[&str], then: &[Value], later: &[&str]) -> (Node, Value) {
    let to = folder();
    let state = to.path().join("state");
    let restore = node.daemons.ctl(["backup", "restore"]).args(from).args(point);
    let restored = restore.args(["--state", text(&state)]).json();
    let other = Node::start_in(to, SETTINGS);
    let ids: Vec<String> = then.iter().map(|told| told[0].as_str().unwrap().to_owned()).collect();
    assert_eq!(told(&other, &ids), then, "after {point:?}: {restored:#}");
    let listed = other.daemons.ctl(["task", "ps", "-a"]).json().to_string();
    for id in later {
        drop(other.daemons.ctl(["task", "inspect", id]).done().expect(4).says("TASK_NOT_FOUND"));
        assert!(!listed.contains(id), "{id} is of later: {listed}");
    }
    (other, restored)
}

pub(crate) fn tasks_are_as_they_were_at_an_event_and_at_a_moment() {
    let keep = folder();
    let (file, pieces) = (keep.path().join("aion.backup"), keep.path().join("journal"));
    let key = keep.path().join("key");
    fs::write(&key, KEY).unwrap();
    let node = Node::start_in(folder(), SETTINGS);
    let gate = Gate::new();
    node.job("held", gate.spec(json!({})));
    node.job("script", json!({}));
    let begun = archive(&node, &pieces);
    assert_eq!((&begun["begins"], &begun["commits"]), (&json!(true), &json!(0)), "{begun:#}");
    node.submit("held", "holder", "normal", &HELD.held());
    gate.until_held();
    let mut ids = vec![node.submit("script", "done-before", "normal", &QUICK.params())];
    node.succeeds("done-before", &QUICK.result());
    node.daemons.ctl(["backup", "create", text(&file)]).ok();

    // What is good.
    ids.push(node.submit("script", "done-after", "normal", &QUICK.params()));
    node.succeeds("done-after", &QUICK.result());
    archive(&node, &pieces);
    node.daemons.kill_and_restart(Which::Aiond).unwrap();
    ids.extend((0..5).map(|n| submit_after(&node, "holder", &format!("waits-{n}"))));
    node.daemons.ctl(["task", "cancel", "waits-4"]).ok();
    let event = last_event(&node, "waits-4");
    let then = told(&node, &ids);
    let moment = now();
    std::thread::sleep(Duration::from_millis(10));

    // What is not.
    node.daemons.ctl(["task", "cancel", "waits-0", "waits-1", "waits-2"]).ok();
    submit_after(&node, "holder", "of-later");
    let taken = archive(&node, &pieces);
    assert_eq!(taken["begins"], false, "a restart of the daemon is no gap: {taken:#}");
    assert_eq!(archive(&node, &pieces)["piece"], Value::Null, "nothing is new");
    let identity = ["--identity", text(&key)];
    let verified = node.daemons.ctl(["backup", "verify", text(&pieces)]).args(identity).json();
    assert_eq!((verified["runs"].as_array().unwrap().len(), &verified["encrypted"]), (1, &json!(true)));
    for entry in fs::read_dir(&pieces).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&pieces).unwrap().permissions().mode() & 0o777, 0o700);
    // Whoever finds a piece cannot read it.
    let locked = node.daemons.ctl(["backup", "verify", text(&pieces)]).done();
    drop(locked.expect(5).says("BACKUP_LOCKED"));

    let from = [text(&file), "--journal", text(&pieces), "--identity", text(&key)];
    let number = event.to_string();
    let (first, restored) = is_as_it_was(&node, &from, &["--to-seq", &number], &then, &["of-later"]);
    assert_eq!(restored["journal"]["event"], json!(event), "{restored:#}");
    assert!(restored["journal"]["commits"].as_u64() > Some(0), "{restored:#}");
    let (second, _) = is_as_it_was(&node, &from, &["--to-time", &moment], &then, &["of-later"]);
    // Without a point it is what there is now.
    let now = told(&node, &ids);
    assert_ne!(now, then);
    let (third, _) = is_as_it_was(&node, &from, &[], &now, &[]);
    assert_eq!(third.inspect("of-later")["state"], "blocked");

    // They go on from there.
    gate.open();
    for (one, waiting) in
        [(&first, "waits-0"), (&second, "waits-1"), (&third, "of-later"), (&node, "waits-3")]
    {
        one.succeeds("holder", &HELD.result());
        one.succeeds(waiting, &QUICK.result());
    }
    for one in [first, second, third, node] {
        one.finish();
    }
}

/// The pieces of an archive, in order.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    names.sort();
    names
}

pub(crate) fn an_archive_that_does_not_lead_there_is_refused() {
    let keep = folder();
    let path = |name: &str| keep.path().join(name);
    let (file, pieces, state) = (path("aion.backup"), path("journal"), path("restored"));
    let node = Node::start_in(folder(), SETTINGS);
    node.job("script", json!({}));
    let take = || node.daemons.ctl(["backup", "archive", text(&pieces)]).ok();
    drop(take().says("not encrypted").says("make a backup now"));
    let done = |id: &str| {
        node.submit("script", id, "normal", &QUICK.params());
        node.succeeds(id, &QUICK.result());
    };
    done("first");
    node.daemons.ctl(["backup", "create", text(&file)]).ok();
    for id in ["second", "third", "fourth"] {
        done(id);
        take();
    }
    let all = names(&pieces);
    assert_eq!(all.len(), 4, "{all:?}");
    let restore = |more: &[&str]| {
        let restore = node.daemons.ctl(["backup", "restore", text(&file), "--state", text(&state)]);
        restore.args(["--journal", text(&pieces)]).args(more).done()
    };
    let refused = |more: &[&str], code: i32, says: &str| {
        let done = restore(more).expect(code).says(says);
        let left = state.exists() || path(".restored.restoring").exists();
        assert!(!left, "something is left after {more:?}");
        done
    };
    let whole = fs::read(&all[2]).unwrap();
    let name = all[2].file_name().unwrap().to_str().unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(&all[2], &flipped).unwrap();
    drop(refused(&[], 1, "BACKUP_BROKEN").says(name).says("at byte"));
    drop(node.daemons.ctl(["backup", "verify", text(&pieces)]).done().expect(1).says(name));
    fs::write(&all[2], &whole[..whole.len() - 9]).unwrap();
    drop(refused(&[], 1, "cut off"));
    fs::remove_file(&all[2]).unwrap();
    drop(refused(&[], 1, "does not go on"));
    let verify = |more: &[&str]| node.daemons.ctl(["backup", "verify", text(&pieces)]).args(more).done();
    let found = verify(&["-o", "json"]).expect(1).says("BACKUP_BROKEN").says("has a gap after commit");
    let gaps = found.json()["gaps"].clone();
    assert_eq!(
        (gaps.as_array().unwrap().len(), &gaps[0]["missing"], &gaps[0]["harmless"]),
        (1, &json!(true), &json!(false))
    );
    assert!(String::from_utf8_lossy(&verify(&[]).out).contains("GAP after commit"));
    // A backup from before it is no help, and one from behind it makes it harmless.
    drop(verify(&["--backup", text(&file)]).expect(1).says("has a gap"));
    let behind = path("behind.backup");
    node.daemons.ctl(["backup", "create", text(&behind)]).ok();
    take();
    let found = verify(&["--backup", text(&file), "--backup", text(&behind), "-o", "json"]).expect(0).json();
    assert_eq!((&found["ok"], &found["gaps"][0]["harmless"]), (&json!(true), &json!(true)), "{found:#}");
    assert!(
        found["backups"][1]["leads_to_event"].as_u64() > found["backups"][0]["leads_to_event"].as_u64(),
        "{found:#}"
    );
    drop(verify(&["--backup", text(&path("none"))]).expect(1));
    fs::write(&all[2], &whole).unwrap();
    assert_eq!(verify(&["-o", "json"]).expect(0).json()["gaps"], json!([]));

    for (point, says) in [
        (["--to-seq", "1"], "before the backup"),
        (["--to-seq", "1000000"], "after its end"),
        (["--to-time", "2001-01-01T00:00:00Z"], "before the backup"),
        (["--to-time", "2999-01-01T00:00:00Z"], "after its end"),
    ] {
        drop(refused(&point, 2, says).says("INVALID_FIELD"));
    }
    drop(refused(&["--to-time", "yesterday"], 2, "--to-time"));
    drop(refused(&["--to-time", "10m", "--to-seq", "3"], 2, "cannot be used with"));
    let empty = path("empty");
    fs::create_dir(&empty).unwrap();
    let other = node.daemons.ctl(["backup", "restore", text(&file), "--state", text(&state), "--journal"]);
    drop(other.args([text(&empty)]).done().expect(1).says("no piece"));
    // An archive of another journal has other numbers, or the same ones of another history.
    let stranger = Node::start_in(folder(), SETTINGS);
    stranger.job("script", json!({}));
    let strange = path("strange");
    stranger.daemons.ctl(["backup", "archive", text(&strange)]).ok();
    for n in 0..6 {
        let id = stranger.submit("script", &format!("strange-{n}"), "normal", &QUICK.params());
        stranger.succeeds(&id, &QUICK.result());
    }
    stranger.daemons.ctl(["backup", "archive", text(&strange)]).ok();
    let other = node.daemons.ctl(["backup", "restore", text(&file), "--state", text(&state), "--journal"]);
    drop(other.args([text(&strange)]).done().expect(1).says("another history"));
    assert!(!state.exists());

    // And whole again it leads there.
    assert_eq!(restore(&[]).code, 0);
    assert!(state.join("journal/db/CURRENT").is_file());
    stranger.finish();
    node.finish();
}
