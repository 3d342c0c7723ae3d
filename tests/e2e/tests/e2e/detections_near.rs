//! Detections: what no work does is found, and what only comes near to it is not. The programs are those of `cargo xtask soak detect`,
//! which also waits for the windows that are minutes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agent::{Agent, detached, path, workspace};
use crate::detections::{HOST, World, restraint, restraints};

/// An agent and its workspace, which goes after it.
struct Staged<'a> {
    agent: Agent<'a>,
    _folder: tempfile::TempDir,
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o644)).unwrap();
}

/// One that does what a rule is for (`act`), or comes near (`near`).
fn staged<'a>(world: &'a World, rule: &str, role: &str, flags: &[&str]) -> Staged<'a> {
    let clone = world.daemons.clone_dir();
    let folder = workspace();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    copy(&clone.join("tests/bench/src/detect/attack.py"), &folder.path().join("attack.py"));
    let sdk = folder.path().join("aion_sdk");
    std::fs::create_dir(&sdk).unwrap();
    std::fs::set_permissions(&sdk, std::fs::Permissions::from_mode(0o755)).unwrap();
    for file in std::fs::read_dir(clone.join("sdk/python/aion_sdk")).unwrap().flatten() {
        if file.path().is_file() {
            copy(&file.path(), &sdk.join(file.file_name()));
        }
    }
    let name = rule.replace('-', "_");
    let program = ["/usr/bin/python3", "-B", "/workspace/attack.py", &name, role];
    let mut all = flags.to_vec();
    all.extend(["--workspace", path(&folder), "--audit", "count"]);
    let agent = detached(&world.daemons, &format!("{rule}-{role}"), &all, &program);
    Staged { agent, _folder: folder }
}

/// The group's folder in the hierarchy that the probes go by.
fn group(agent: &Agent<'_>) -> PathBuf {
    let name = agent.inspect()["cgroup"].as_str().unwrap().trim_start_matches('/').to_owned();
    let found = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(|root| Path::new(root).join(&name))
        .find(|folder| folder.join("cgroup.procs").is_file());
    found.unwrap_or_else(|| panic!("there is no group {name}"))
}

pub(crate) fn what_no_work_does_is_found() {
    World::shipped().check(|world| {
        let one = staged(world, "mass-encrypt", "act", &[]);
        let found = world.finding(&one.agent, "mass-encrypt");
        assert_eq!((&found["severity"], &found["result"]), (&"high".into(), &"done".into()), "{found}");
        assert_eq!(restraints(&one.agent), restraint("frozen", "detection mass-encrypt"));

        let one = staged(world, "deleted-running", "act", &[]);
        let found = world.finding(&one.agent, "deleted-running");
        assert_eq!(found["severity"], "low");
        assert_eq!(found["detail"]["evidence"]["detail"]["deleted_programs"], 1, "{found}");
        assert_eq!(one.agent.state(), "running");

        // Asked for over the kernel API, from inside.
        let manifest = world.rules.with_file_name("canary.yml");
        let text = "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: canary, version: \"1.0.0\"}\nspec:\n  entry: [/usr/bin/true]\n  \
                    mode: service\n  restart: never\n  syscalls: [fs.read]\n  capabilities: {filesystem: true, subprocess: true}\n  \
                    allow_degraded: [disk]\n";
        std::fs::write(&manifest, text).unwrap();
        let from = ["-f", manifest.to_str().unwrap()];
        let near = staged(world, "canary-touched", "near", &from);
        let one = staged(world, "canary-touched", "act", &from);
        let found = world.finding(&one.agent, "canary-touched");
        assert_eq!((&found["action"], &found["result"]), (&"isolate_network".into(), &"done".into()), "{found}");
        assert_eq!(restraints(&one.agent), restraint("isolated", "detection canary-touched"));
        near.agent.await_log("done");

        // In the sandbox nobody gains privileges. A process of the host in the agent's group is one that no layer holds.
        let one = staged(world, "privilege-change", "near", &[]);
        one.agent.await_log("done");
        assert!(world.history(&one.agent.name).is_empty(), "{:?}", world.history(&one.agent.name));
        let script = "echo $$ > \"$1/cgroup.procs\" && exec setpriv --reuid 65534 --clear-groups su --version";
        let done = Command::new("sh").args(["-c", script, "sh"]).arg(group(&one.agent)).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let found = world.finding(&one.agent, "privilege-change");
        assert_eq!((&found["action"], &found["result"]), (&"freeze".into(), &"done".into()), "{found}");
        assert!(world.history(&near.agent.name).is_empty(), "{:?}", world.history(&near.agent.name));
    });
}

pub(crate) fn what_comes_near_is_not_found() {
    const RULES: [&str; 10] = [
        "credential-access",
        "crypto-miner",
        "deleted-binary",
        "deleted-running",
        "denied-burst",
        "escape-attempt",
        "exec-writable",
        "mass-encrypt",
        "mass-write",
        "memfd-exec",
    ];
    World::shipped().check(|world| {
        let mut all: Vec<(&str, Staged<'_>)> =
            RULES.iter().map(|rule| (*rule, staged(world, rule, "near", &[]))).collect();
        all.push(("reverse-shell", staged(world, "reverse-shell", "near", HOST)));
        for (_, one) in &all {
            one.agent.await_log("done");
        }
        // What happened before is told by then, samples too.
        let last = staged(world, "deleted-running", "act", &[]);
        world.finding(&last.agent, "deleted-running");
        for (rule, one) in &all {
            let found = world.history(&one.agent.name);
            assert!(found.iter().all(|found| found["rule"] != *rule), "{rule}: {found:#?}");
        }
    });
}
