//! Rules and budgets that change, and calls that are cut off.

use std::fs;
use std::time::Duration;

use aion_e2e::{Which, eventually};
use serde_json::{Value, json};

use crate::agent::workspace;
use crate::kernel::{AGENT, World};

/// Whether a process with this argument runs, in whatever sandbox.
fn is_running(argument: &str) -> bool {
    let lines = fs::read_dir("/proc").unwrap().flatten().map(|entry| fs::read(entry.path().join("cmdline")));
    lines.flatten().any(|line| line.split(|byte| *byte == 0).any(|one| one == argument.as_bytes()))
}

/// What an agent was registered under counts no longer than it holds: it is looked at again when the agent is started again.
pub(crate) fn a_tenant_s_bounds_hold_at_the_next_start() {
    let world = World::start();
    let folder = workspace();
    let place = folder.path().to_str().unwrap();
    let manifest = json!({
        "apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": "keeper"},
        "spec": {
            "entry": ["sh", "-c", "while ! test -e end; do sleep 0.1; done; rm end; exit 3"],
            "capabilities": {"subprocess": true}, "workspace": place,
            "restart": {"policy": "always", "max_restarts": 9, "backoff_ms": 10},
        }
    });
    let ctl = |args: &[&str]| world.daemons.ctl(["--tenant", "tenantA"]).args(args);
    ctl(&["apply", "-f", "-"]).stdin(manifest.to_string()).ok();
    let inspect = || ctl(&["inspect", "keeper", "-o", "json"]).json();
    let state = |name: &str, restarts: u64| {
        let seen = inspect();
        seen["state"] == name && seen["restarts"] == restarts
    };
    eventually("it runs", Duration::from_secs(20), || state("running", 0));
    // Rules that leave it what it has change nothing.
    ctl(&["tenant", "set", "tenantA", "--deny", "fs:write:/opt/**"]).ok();
    fs::write(folder.path().join("end"), "").unwrap();
    eventually("it runs again", Duration::from_secs(20), || state("running", 1));
    ctl(&["tenant", "set", "tenantA", "--deny", &format!("fs:write:{place}/**")]).ok();
    fs::write(folder.path().join("end"), "").unwrap();
    eventually("it is not started again", Duration::from_secs(20), || inspect()["state"] == "failed");
    let told = inspect();
    assert!(told.to_string().contains("tenant tenantA"), "{told}");
    let again = ctl(&["apply", "-f", "-"]).stdin(manifest.to_string()).done().expect(5);
    again.says("spec.workspace");
    world.daemons.finish().unwrap();
}

const SLOW: &str = "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: slow}\nspec:\n  entry: \"exec:sleep 4711\"\n  \
                    timeout: 60s\n  price: 0.25\n";

fn spent(world: &World) -> f64 {
    let usage = world.daemons.ctl(["usage", "-o", "json"]).json();
    let rows = usage.as_array().cloned().or_else(|| usage["items"].as_array().cloned()).unwrap_or_default();
    let of = |row: &&Value| row["kind"] == "tenant" && row["tenant"] == "tenantA";
    rows.iter().find(of).and_then(|row| row["usd"].as_f64()).unwrap_or(0.0)
}

/// The tool ends with its caller; a call that the daemon's death cut off is charged.
pub(crate) fn nobody_leaves_a_call_behind_or_unpaid() {
    let mut world = World::start();
    let manifest = world.daemons.state().join("slow.yml");
    fs::write(&manifest, SLOW).unwrap();
    world.daemons.ctl(["tool", "install"]).args([manifest]).ok();
    let body = json!({"agent_id": AGENT, "params": {"tool": "slow"}});
    let begin = || world.begin("/v1/syscall/tool.invoke", &body);
    let stream = begin();
    eventually("the tool runs", Duration::from_secs(20), || is_running("4711"));
    drop(stream);
    eventually("it is gone", Duration::from_secs(20), || !is_running("4711"));
    eventually("the attempt is paid", Duration::from_secs(20), || (spent(&world) - 0.25).abs() < 1e-6);
    let stream = begin();
    eventually("the tool runs", Duration::from_secs(20), || is_running("4711"));
    world.daemons.kill(Which::Aiond);
    drop(stream);
    for _ in 0..2 {
        world.restart();
        assert!((spent(&world) - 0.5).abs() < 1e-6, "it is charged once: {}", spent(&world));
    }
    eventually("nothing is left", Duration::from_secs(20), || !is_running("4711"));
    world.daemons.finish().unwrap();
}
