//! A high task takes the slot of a low one, which goes on later as if nothing had happened: by its own checkpoint, frozen in place,
//! or stopped and done again from its last checkpoint.

use std::time::Duration;

use aion_e2e::{eventually, slowness};
use serde_json::{Value, json};

use crate::tasks_node::{Chain, Gate, Node, PYTHON, count, deaf, details, kinds};

const ONE_SLOT: &str =
    "node: {slots: 1}\npreemption: {min_run: 0s, high_cap_percent: 100, max_per_task: 100}";
const LOW: Chain = Chain { steps: 150, pause_ms: 10, seed: 11 };
const HIGH: Chain = Chain { steps: 3, pause_ms: 5, seed: 12 };

/// A low task, then a high one on the same slot; gives the low one at its end.
fn disturbed(node: &Node, low: &str, gate: &Gate, high: &str) -> Value {
    node.submit(low, "low", "low", &LOW.held());
    // Some of it is done already: that is what must not be lost. It cannot end before the other one either.
    gate.until_held();
    node.submit(high, "high", "high", &HIGH.params());
    let high = node.succeeds("high", &HIGH.result());
    assert_eq!((&high["attempts"], &high["preemptions"]), (&json!(1), &json!(0)), "{high:#}");
    gate.open();
    let low = node.succeeds("low", &LOW.result());
    assert_eq!(low["preemptions"], 1, "{low:#}");
    assert_eq!(count(&low, "preempting"), 1, "{low:#}");
    assert_eq!(details(&low, "preempting")[0]["by"], "high", "{low:#}");
    assert!(high["finished"].as_str() < low["finished"].as_str());
    low
}

/// What its history says of how it made room.
fn rung(task: &Value) -> Vec<&str> {
    let made_room = [details(task, "preempted"), details(task, "frozen")].concat();
    made_room.into_iter().filter_map(|detail| detail["rung"].as_str()).collect()
}

pub(crate) fn a_service_and_a_job_leave_checkpoints_and_go_on() {
    let node = Node::start(ONE_SLOT);
    let (of_worker, of_script) = (Gate::new(), Gate::new());
    // Nobody is late with a checkpoint here: this is about those who leave one.
    let patient = json!({ "grace_ms": 120_000, "freeze": false });
    node.service("worker", of_worker.spec(json!({ "concurrency": 1, "checkpoint": patient })));
    node.job("script", of_script.spec(json!({ "checkpoint": patient })));
    let low = disturbed(&node, "worker", &of_worker, "script");
    assert_eq!((rung(&low), &low["attempts"]), (vec!["checkpoint"], &json!(2)), "{low:#}");
    assert!(low["checkpoints"].as_u64() >= Some(1), "{low:#}");
    let resumed = details(&low, "dispatched");
    assert_eq!(resumed.len(), 2);
    assert!(!resumed[1]["from_checkpoint"].is_null(), "{low:#}");
    assert_eq!(low["may_repeat"], false, "what it left it goes on from: {low:#}");
    let metrics = node.daemons.ctl(["queue", "--metrics"]).ok().text();
    assert!(metrics.contains("aion_kernel_preemption_count 1\n"), "{metrics}");
    assert!(metrics.contains("aion_kernel_preemption_rung_total{rung=\"checkpoint\"} 1"), "{metrics}");

    // The other way round, with other tasks.
    node.submit("script", "low-job", "low", &LOW.held());
    of_script.until_held();
    node.submit("worker", "high-service", "high", &HIGH.params());
    node.succeeds("high-service", &HIGH.result());
    // Its checkpoint can be looked at while it is not needed any more: here it is the folder, packed.
    let again = node.until_state("low-job", "running");
    let kept = node.daemons.ctl(["task", "checkpoint", "low-job"]).ok();
    assert_eq!(Some(kept.out.len() as u64), again["checkpoint_bytes"].as_u64(), "{again:#}");
    of_script.open();
    let low = node.succeeds("low-job", &LOW.result());
    assert_eq!(
        (rung(&low), &low["preemptions"], &low["attempts"]),
        (vec!["checkpoint"], &json!(1), &json!(2)),
        "{low:#}"
    );
    assert!(!details(&low, "dispatched")[1]["from_checkpoint"].is_null(), "{low:#}");
    node.finish();
}

/// A job that does not hear SIGTERM, and a service that does not answer: their processes stand still and go on, in one attempt.
pub(crate) fn who_does_not_answer_is_frozen_in_place() {
    let node = Node::start(ONE_SLOT);
    // Nobody answers, so the grace need not be longer on a slow machine; the work must be, or it ends first.
    let may_freeze = json!({ "grace_ms": 150, "freeze": true });
    let low_work = Chain { pause_ms: LOW.pause_ms * u64::from(slowness().min(4)), ..LOW };
    node.job("deaf", json!({ "entry": ["/bin/sh", "-c", deaf()], "checkpoint": may_freeze }));
    let silent = PYTHON.replace("task.yields.set()", "pass");
    assert_ne!(silent, PYTHON);
    let entry = json!(["/usr/bin/python3", "-B", "-c", silent]);
    node.service("silent", json!({ "entry": entry, "concurrency": 1, "checkpoint": may_freeze }));
    node.job("script", json!({}));
    for (agent, low) in [("deaf", "low-deaf"), ("silent", "low-silent")] {
        node.submit(agent, low, "low", &low_work.params());
        if agent == "deaf" {
            node.until_deaf(low);
        }
        node.until(low, "its start", |task| kinds(task).contains(&"started"));
        let high = format!("high-{agent}");
        let long = Chain { steps: 60, ..HIGH };
        node.submit("script", &high, "high", &long.params());
        let frozen = node.until_state(low, "frozen");
        assert!(frozen["why"].is_string(), "{frozen:#}");
        let queues = node.daemons.ctl(["queue"]).json();
        assert!(queues["frozen_bytes"].as_u64() > Some(0), "{queues:#}");
        node.succeeds(&high, &long.result());
        let task = node.succeeds(low, &low_work.result());
        assert_eq!((&task["attempts"], &task["preemptions"]), (&json!(1), &json!(1)), "{task:#}");
        let kinds = kinds(&task);
        for kind in ["preempting", "frozen", "thawed", "succeeded"] {
            assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
        }
        assert_eq!(rung(&task), ["freeze"], "{task:#}");
    }
    assert_eq!(node.daemons.ctl(["queue"]).json()["frozen_bytes"], 0);
    node.finish();
}

/// A job that neither answers nor may be frozen is stopped, and goes on from the checkpoint that it last left.
pub(crate) fn who_may_not_be_frozen_is_stopped() {
    let node = Node::start(ONE_SLOT);
    // Leaves a checkpoint by itself, and ignores SIGTERM.
    let saves = crate::tasks_node::SHELL.replace("trap 'stop=1' TERM", "trap '' TERM").replace(
        "    sleep \"$pause\"\n",
        "    sleep \"$pause\"\n    if [ $((step % 10)) = 0 ]; then\n        \
         echo \"$step $value\" >\"$AION_CHECKPOINT_DIR/new\" && mv \"$AION_CHECKPOINT_DIR/new\" \"$AION_CHECKPOINT_DIR/state\"\n        \
         : >\"$AION_CHECKPOINT_DIR/.commit\"\n    fi\n",
    );
    let stubborn = json!({ "grace_ms": 100, "freeze": false });
    node.job("stubborn", json!({ "entry": ["/bin/sh", "-c", saves], "checkpoint": stubborn }));
    node.job("script", json!({}));
    node.submit("stubborn", "low", "low", &LOW.params());
    let saved = node.until("low", "a checkpoint", |task| task["checkpoints"].as_u64() > Some(0));
    assert_eq!(saved["state"], "running");
    node.submit("script", "high", "high", &HIGH.params());
    node.succeeds("high", &HIGH.result());
    let low = node.succeeds("low", &LOW.result());
    assert_eq!((rung(&low), &low["attempts"]), (vec!["stop"], &json!(2)), "{low:#}");
    assert!(!details(&low, "dispatched")[1]["from_checkpoint"].is_null(), "{low:#}");
    assert_eq!(low["may_repeat"], true, "{low:#}");
    node.finish();
}

/// Many, at random: each ends with the result of an undisturbed run.
pub(crate) fn under_pressure_all_results_are_right() {
    let scale = aion_e2e::Scale::current();
    let (lows, highs) = (scale.pick(4, 8, 40), scale.pick(4, 12, 100));
    let node = Node::start(
        "node: {slots: 2}\npreemption: {min_run: 20ms, high_cap_percent: 100, max_per_task: 100}",
    );
    node.service("worker", json!({ "concurrency": 2, "env": { "CONCURRENCY": "2" } }));
    node.job("script", json!({}));
    let agents = ["worker", "script"];
    let chain = |seed: u64| Chain { steps: 40, pause_ms: 10, seed };
    for n in 0..lows {
        node.submit(agents[n % 2], &format!("low-{n}"), "low", &chain(n as u64).params());
    }
    for n in 0..highs {
        let high = Chain { seed: n as u64, ..HIGH };
        let id = node.submit(agents[(n / 2) % 2], &format!("high-{n}"), "high", &high.params());
        node.succeeds(&id, &high.result());
    }
    let mut preemptions = 0;
    for n in 0..lows {
        let task = node.succeeds(&format!("low-{n}"), &chain(n as u64).result());
        preemptions += task["preemptions"].as_u64().unwrap();
    }
    assert!(preemptions > 0, "nobody had to make room");
    eventually("all slots are free", Duration::from_secs(10), || {
        node.daemons.ctl(["queue"]).json()["slots_used"] == 0
    });
    node.finish();
}
