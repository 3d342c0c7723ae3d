//! Each layer of isolation: listed as it was set up, and really there.

use aion_e2e::{Daemons, Verdict};
use serde_json::Value;

use crate::Shared;
use crate::agent::{detached, pair, status_field};

const ALL: [&str; 15] = [
    "cgroup",
    "namespaces",
    "probes",
    "rootfs",
    "devices",
    "workspace",
    "disk",
    "network",
    "rlimits",
    "session",
    "capabilities",
    "no-new-privs",
    "landlock",
    "seccomp",
    "lsm",
];
/// What no kernel that AION runs on lacks.
const EVERYWHERE: [&str; 9] = [
    "cgroup",
    "namespaces",
    "rootfs",
    "workspace",
    "rlimits",
    "session",
    "capabilities",
    "no-new-privs",
    "seccomp",
];

fn state<'a>(layers: &'a [Value], name: &str) -> &'a str {
    let layer = layers.iter().find(|layer| layer["name"] == name);
    layer.unwrap_or_else(|| panic!("no layer {name}"))["state"].as_str().unwrap()
}

pub(crate) fn inspect_lists_each_layer_as_set_up(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "layers", &[], &["sleep", "60"]);
    let value = agent.inspect();
    let layers = value["layers"].as_array().unwrap();
    let names: Vec<&str> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
    assert_eq!(names, ALL, "each once, in the order of set-up");
    for layer in layers {
        let state = layer["state"].as_str().unwrap();
        assert!(["active", "degraded", "unavailable", "off"].contains(&state), "{layer}");
        assert!(!layer["detail"].as_str().unwrap().is_empty(), "{layer}");
    }
    for name in EVERYWHERE {
        assert_eq!(state(layers, name), "active", "{name}");
    }
    let text = daemons.ctl(["inspect", &agent.name]).ok().text();
    for name in ALL {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
    }
}

pub(crate) fn layers_are_true(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "true", &["--memory", "77Mi", "--pids", "33"], &["sleep", "60"]);
    let (pid, value) = (agent.pid(), agent.inspect());
    assert_eq!(status_field(pid, "Seccomp"), "2");
    assert_eq!(status_field(pid, "NoNewPrivs"), "1");
    assert_eq!(status_field(pid, "CapEff"), "0000000000000000");
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        let link = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{namespace}")).unwrap();
        assert_ne!(link(&pid.to_string()), link("self"), "{namespace}");
    }
    let group = value["cgroup"].as_str().unwrap().trim_matches('/');
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(own.contains(group), "{own} has no {group}");
    assert!(limit(daemons, group, &["memory.max", "memory.limit_in_bytes"], 77 << 20), "memory");
    assert!(limit(daemons, group, &["pids.max"], 33), "pids");
}

/// Whether the group has this limit, in whichever hierarchy has the controller.
fn limit(daemons: &Daemons, group: &str, files: &[&str], expected: u64) -> bool {
    let tail = group.rsplit('/').next().unwrap();
    daemons.groups().iter().any(|base| {
        let found = find(base, tail).unwrap_or_else(|| base.join(tail));
        files.iter().any(|file| {
            // AION's own process inside may be allowed for.
            let text = std::fs::read_to_string(found.join(file)).unwrap_or_default();
            text.trim()
                .parse::<u64>()
                .is_ok_and(|value| value >= expected && value <= expected + expected / 4 + 2)
        })
    })
}

fn find(base: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(base).ok()?.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|own| own == name) {
                return Some(path);
            }
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        }
    }
    None
}

pub(crate) fn what_is_missing_is_said(shared: &Shared) -> Verdict {
    let daemons = pair(shared);
    let probe = detached(daemons, "probe", &[], &["true"]);
    let value = probe.inspect();
    let layers = value["layers"].as_array().unwrap();
    let lacking = layers.iter().find(|layer| layer["state"] == "degraded" || layer["state"] == "unavailable");
    match lacking {
        None => Verdict::Skipped("this kernel has every layer".to_owned()),
        Some(layer) => {
            // What is not as it could be is said in the list, too.
            let name = layer["name"].as_str().unwrap();
            let degraded = value["degraded"].as_array().unwrap().iter().any(|entry| entry == name);
            assert!(degraded, "{layer}");
            Verdict::Passed
        }
    }
}

/// Where a kernel is asked for a layer that it must have, it must be used: the machines of `cargo xtask vm` boot with all of them.
pub(crate) fn a_kernel_that_has_them_all_gives_them_all(shared: &Shared) -> Verdict {
    if std::env::var_os("AION_IN_VM").is_none() {
        return Verdict::Skipped("this host promises nothing".to_owned());
    }
    let agent = detached(pair(shared), "whole", &[], &["sleep", "60"]);
    let value = agent.inspect();
    for layer in value["layers"].as_array().unwrap() {
        assert_eq!(layer["state"], "active", "{layer}");
    }
    Verdict::Passed
}

pub(crate) fn the_kernel_refuses_what_seccomp_lets_pass(shared: &Shared) -> Verdict {
    // Such a file makes the kernel look for a module that knows its format: with root's rights, in the host's folders,
    // because of an execve that any program may do.
    let script = "printf '\\001\\002\\003\\004 no program' > x; chmod 755 x; ./x; echo $?; sleep 60";
    let agent = detached(pair(shared), "module", &[], &["sh", "-c", script]);
    let value = agent.inspect();
    if state(value["layers"].as_array().unwrap(), "lsm") != "active" {
        return Verdict::Skipped("no BPF LSM here".to_owned());
    }
    assert_eq!(agent.await_log("\n").trim(), "126");
    let denied = agent.records("lsm.denied");
    let hit = denied.iter().find(|record| record["detail"].to_string().contains("kernel_module_request"));
    assert!(hit.is_some_and(|record| record["verdict"] == "denied"), "{denied:?}");
    Verdict::Passed
}
