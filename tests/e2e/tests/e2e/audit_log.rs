//! Nothing is lost uncounted, and nothing is changed unseen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aion_e2e::{Daemons, Scale, Which, until};
use serde_json::Value;

use crate::agent::{Agent, detached};

/// Forks and executes so many programs, one after the other.
const STORM: &str = "i=0; while [ $i -lt $1 ]; do /bin/true; i=$((i+1)); done";

fn storm<'a>(daemons: &'a Daemons, count: u64, flags: &[&str]) -> Agent<'a> {
    let agent = detached(daemons, "storm", flags, &["sh", "-c", STORM, "storm", &count.to_string()]);
    let done = daemons.ctl(["wait", &agent.name]).within(Duration::from_secs(300)).ok();
    assert_eq!(done.text(), "0\n");
    agent
}

/// Records of the three kinds, and what was counted as dropped; asked until nothing more comes.
fn settle(agent: &Agent<'_>) -> (usize, usize, usize, u64) {
    let count = |kind: &str| {
        let query = ["audit", "query", "-o", "jsonl", "--agent", &agent.name, "--kind", kind];
        agent.daemons.ctl(query).ok().text().lines().count()
    };
    let ask = || {
        let dropped = agent.inspect()["dropped_events"].as_u64().unwrap();
        (count("proc.exec"), count("proc.fork"), count("proc.exit"), dropped)
    };
    let mut last = ask();
    let calm = until(Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(400));
        let now = ask();
        let same = now == last;
        last = now;
        same.then_some(())
    });
    assert!(calm.is_some(), "records still come");
    last
}

pub(crate) fn a_storm_is_counted_to_the_last_process() {
    let daemons = Daemons::start().unwrap();
    let count = Scale::current().pick(300u64, 2000, 10_000);
    // What there is around the storm: the shell's own life.
    let (exec, fork, exit, dropped) = settle(&storm(&daemons, 10, &[]));
    assert_eq!(dropped, 0);
    let around = u64::try_from(exec + fork + exit).unwrap() - 30;
    let agent = storm(&daemons, count, &[]);
    let (exec, fork, exit, dropped) = settle(&agent);
    let recorded = u64::try_from(exec + fork + exit).unwrap();
    assert_eq!(
        recorded + dropped,
        3 * count + around,
        "{exec} exec, {fork} fork, {exit} exit, {dropped} dropped"
    );
    if dropped > 0 {
        assert!(!agent.records("events.dropped").is_empty(), "every drop is itself in the log");
    }
    daemons.ctl(["audit", "verify"]).ok();
    drop(agent);
    daemons.finish().unwrap();
}

pub(crate) fn strict_loses_nothing() {
    let daemons = Daemons::start().unwrap();
    let count = Scale::current().pick(300u64, 2000, 10_000);
    let agent = storm(&daemons, count, &["--audit", "strict"]);
    let (exec, fork, exit, dropped) = settle(&agent);
    assert_eq!(dropped, 0);
    let count = usize::try_from(count).unwrap();
    assert_eq!(
        (exec, fork >= count, exit > count),
        (count + 1, true, true),
        "{exec} exec, {fork} fork, {exit} exit"
    );
    drop(agent);
    daemons.finish().unwrap();
}

fn segments(state: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(state.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    all.sort();
    all
}

pub(crate) fn tampering_is_found() {
    let daemons = Daemons::start().unwrap();
    let agent = storm(&daemons, 20, &[]);
    settle(&agent);
    drop(agent);
    let whole = daemons.ctl(["audit", "verify"]).json();
    assert_eq!(whole["ok"], true);
    assert!(whole["records"].as_u64().unwrap() > 60, "{whole}");
    let anchor = format!("{}:{}", whole["last_seq"], whole["last_hash"].as_str().unwrap());
    let noted = ["audit", "verify", "--key", whole["public_key"].as_str().unwrap(), "--anchor", &anchor];
    let said = daemons.ctl(noted).ok().text();
    assert!(said.contains("to note down elsewhere: --key "), "{said}");
    daemons
        .ctl(["audit", "verify", "--anchor", &anchor.replacen(':', "0:", 1)])
        .done()
        .expect(1)
        .says("AUDIT_BROKEN");
    let path = segments(daemons.state()).remove(0);
    // Only the launcher writes the log; without it nothing moves under our hands.
    daemons.stop(Which::Launcher);
    let original = fs::read(&path).unwrap();
    let lines: Vec<Vec<u8>> = original.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    let record = |n: usize| {
        lines.iter().enumerate().filter(|(_, line)| line.starts_with(b"{\"seq\"")).nth(n).unwrap().0
    };
    let (a, b) = (record(20), record(21));
    let seq = |line: usize| serde_json::from_slice::<Value>(&lines[line]).unwrap()["seq"].as_u64().unwrap();
    let flipped = || {
        let mut all = lines.clone();
        let at = all[a].iter().position(|&byte| byte == b'p').unwrap();
        all[a][at] ^= 1;
        all
    };
    let removed = || {
        let mut all = lines.clone();
        all.remove(a);
        all
    };
    let swapped = || {
        let mut all = lines.clone();
        all.swap(a, b);
        all
    };
    let doubled = || {
        let mut all = lines.clone();
        all.insert(a, lines[a].clone());
        all
    };
    let name = path.file_name().unwrap().to_str().unwrap();
    let number = name.split('.').next().unwrap();
    for (what, made) in
        [("flipped", flipped()), ("removed", removed()), ("swapped", swapped()), ("added", doubled())]
    {
        fs::write(&path, made.concat()).unwrap();
        let done = daemons.ctl(["audit", "verify", "-o", "json"]).done().expect(1).says("AUDIT_BROKEN");
        let value = done.json();
        assert_eq!(value["ok"], false, "{what}");
        let fault = &value["faults"][0];
        assert!(
            fault["segment"].as_str().unwrap().contains(number.trim_start_matches('0')),
            "{what}: {fault}"
        );
        let place = fault["seq"].as_u64().unwrap();
        assert!((seq(a).saturating_sub(1)..=seq(b)).contains(&place), "{what} at {}: {fault}", seq(a));
    }
    // A cut tail, too.
    fs::write(&path, lines[..lines.len() - 5].concat()).unwrap();
    let cut = daemons.ctl(["audit", "verify", "-o", "json"]).done();
    assert!(cut.code == 1 || !cut.json()["notes"].is_null(), "{}", cut.text());
    fs::write(&path, &original).unwrap();
    daemons.ctl(["audit", "verify"]).ok();
    daemons.start_one(Which::Launcher).unwrap();
    daemons.await_ready().unwrap();
    daemons.ctl(["run", "--rm", "--", "true"]).ok();
    daemons.ctl(["audit", "verify"]).ok();
    daemons.finish().unwrap();
}
