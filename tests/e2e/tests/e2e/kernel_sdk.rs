//! The Python SDK against the real thing: over signed HTTP, and inside a sandbox over the agent's own socket.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use aion_e2e::Verdict;
use serde_json::{Value, json};

use crate::kernel::{SECRET, World};

/// The host's own Python, which is the one that a sandbox shows.
const PYTHON: &str = "/usr/bin/python3";

fn too_old() -> Option<Verdict> {
    let asked = Command::new(PYTHON).args(["-c", "import sys; assert sys.version_info >= (3, 10)"]).output();
    let new_enough = asked.is_ok_and(|output| output.status.success());
    (!new_enough).then(|| Verdict::Skipped("there is no Python of 3.10 or newer in /usr/bin".to_owned()))
}

fn run(world: &World, secret: &Path, script: &str, args: &[&str]) -> Output {
    let clone = world.daemons.clone_dir();
    Command::new(PYTHON)
        .arg("-B")
        .arg(clone.join(script))
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("PYTHONPATH", clone.join("sdk/python"))
        .env("AION_URL", format!("http://{}", world.address()))
        .env("AION_TENANT", "tenantA")
        .env("AION_SECRET_FILE", secret)
        .env("AION_AGENT", "researcher-1")
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn its_clients_and_samples_work_over_signed_http() -> Verdict {
    if let Some(skipped) = too_old() {
        return skipped;
    }
    let world = World::start();
    let secret = world.daemons.state().join("the-secret");
    let live = run(&world, &secret, "tests/e2e/peers/sdk.py", &[]);
    assert!(live.status.success(), "{}", text(&live));
    assert!(!text(&live).contains(SECRET));
    // The sample asks its memory first the second time; without the network it is denied with a rule.
    let first = run(&world, &secret, "examples/python-sdk/research.py", &["control groups"]);
    assert!(first.status.success() && text(&first).contains("tooling/web_search@1.2.0"), "{}", text(&first));
    let second = run(&world, &secret, "examples/python-sdk/research.py", &["control groups"]);
    assert!(second.status.success() && text(&second).contains("remembered since"), "{}", text(&second));
    let offline = run(&world, &secret, "examples/python-sdk/research.py", &["x", "--offline"]);
    assert_eq!(offline.status.code(), Some(5), "{}", text(&offline));
    assert!(
        text(&offline).contains("denied") && text(&offline).contains("aionctl explain sc-"),
        "{}",
        text(&offline)
    );
    world.daemons.finish().unwrap();
    Verdict::Passed
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten().filter(|file| file.path().is_file()) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

pub(crate) fn an_agent_calls_from_inside_its_sandbox() -> Verdict {
    if let Some(skipped) = too_old() {
        return skipped;
    }
    let world = World::start();
    let sample = world.daemons.clone_dir().join("examples/sdk-agent");
    let workspace = tempfile::Builder::new().prefix("aion-e2e-sdk-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(workspace.path(), fs::Permissions::from_mode(0o755)).unwrap();
    copy(&sample, workspace.path());
    copy(&world.daemons.clone_dir().join("sdk/python/aion_sdk"), &workspace.path().join("aion_sdk"));
    let run = world
        .daemons
        .ctl(["--tenant", "tenantA", "run", "-f"])
        .args([sample.join("agent.yml")])
        .args(["--name", "inside", "--workspace"])
        .args([workspace.path()])
        .ok();
    let said: Vec<Value> = run.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |key: &str| {
        let line = said.iter().find(|line| !line[key].is_null());
        line.map(|line| line[key].clone()).unwrap_or_else(|| panic!("{key}: {said:?}"))
    };
    assert_eq!(find("titles")[0], "Control groups");
    assert_eq!(find("remembered"), json!(["last"]));
    assert!(find("denied").as_str().unwrap().contains("inside"), "{said:?}");
    assert_eq!((find("heard"), find("kind")), (json!("kernel.syscalls"), json!("api.syscall")));
    assert_eq!(find("stopped"), json!(true));
    // Who it was the kernel of the host has said; it hears of nobody else.
    let records =
        world.daemons.ctl(["--tenant", "tenantA", "audit", "query", "--kind", "api.syscall", "-o", "jsonl"]);
    let records = records.ok().json_lines();
    assert!(
        records.iter().any(|record| record.to_string().contains("agent://tenantA/inside")),
        "{records:?}"
    );
    world.daemons.finish().unwrap();
    Verdict::Passed
}
