//! Bad input: a clear error with its place, and nothing left behind.

use aion_e2e::{Ctl, Daemons};

use crate::Shared;
use crate::agent::{detached, pair, run};

const HEAD: &str =
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: NAME}\nspec:\n  entry: [\"true\"]\n";

/// Runs what must fail, and looks that no agent of this name and no cgroup of it came of it.
fn refused(daemons: &Daemons, name: &str, ctl: Ctl, exit: i32, parts: &[&str]) {
    let mut done = ctl.done().expect(exit);
    for part in parts {
        done = done.says(part);
    }
    assert!(done.took.as_secs() < 10 * u64::from(aion_e2e::slowness()), "{:?}", done.took);
    daemons.ctl(["inspect", name]).done().expect(4);
}

pub(crate) fn manifests(shared: &Shared) {
    let daemons = pair(shared);
    let with = |line: &str| format!("{HEAD}{line}\n").into_bytes();
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (with("  entyr: x"), &[":6:3", "entyr", "MANIFEST_INVALID"]),
        (with("  resources: {mem: 12Q}"), &["6:", "12Q", "MANIFEST_INVALID"]),
        (with("  resources: {cpu: 1e9}"), &["6:", "cpu"]),
        (with("  resources: {mem: 99999Ti}"), &["6:", "mem"]),
        (with("  resources: {pids: 99999999999999999999}"), &["6:", "pids"]),
        (with("  timeout_ms: -1"), &["6:", "timeout_ms"]),
        (with("  workspace: ../../etc"), &["6:", "workspace"]),
        (with("  workspace: /srv/../etc"), &["6:", "workspace"]),
        (with("  rootfs: /"), &["rootfs"]),
        (with("  secrets: [../../etc/shadow]"), &["6:", "secrets"]),
        (with("  seccomp_profile: ../../etc/passwd"), &["6:", "seccomp_profile"]),
        (with("  capabilities: {allow: [\"fs:read:/data/../etc\"]}"), &["6:"]),
        (with("  env: {\"A=B\": x}"), &["6:", "env"]),
        (with("  network: everything"), &["6:", "network"]),
        (with(&format!("  env: {{X: {}}}", "x".repeat(300 << 10))), &["TOO_LARGE"]),
        (with(&"[".repeat(100_000)), &[":6:", "deeper", "TOO_LARGE"]),
        (with("  entry: [sleep]"), &["6:", "entry"]),
        (b"\xff\xfe\x00apiVersion".to_vec(), &["UTF-8"]),
        (b"".to_vec(), &["MANIFEST_INVALID"]),
        (b"kind: Agent\n".to_vec(), &["apiVersion"]),
        (HEAD.replace("Agent", "Pod").into_bytes(), &["Pod"]),
        (HEAD.replace("{name: NAME}", "{name: ../evil}").into_bytes(), &["3:", "name"]),
        (HEAD.replace("NAME", &"x".repeat(64)).into_bytes(), &["3:", "name"]),
    ];
    for (manifest, parts) in cases {
        let name = daemons.name("bad");
        // Only text can have its name put in.
        let manifest = match String::from_utf8(manifest) {
            Ok(text) => text.replace("NAME", &name).into_bytes(),
            Err(error) => error.into_bytes(),
        };
        refused(daemons, &name, daemons.ctl(["run", "-f", "-"]).stdin(manifest.clone()), 125, parts);
        refused(daemons, &name, daemons.ctl(["apply", "-f", "-"]).stdin(manifest.clone()), 2, parts);
        refused(daemons, &name, daemons.ctl(["validate", "-f", "-"]).stdin(manifest), 2, parts);
    }
}

pub(crate) fn command_lines(shared: &Shared) {
    let daemons = pair(shared);
    for (flags, part) in [
        (&["--memory", "1"][..], "mem"),
        (&["--memory", "9999999Ti"], "9999999Ti"),
        (&["--cpus", "0"], "0"),
        (&["--pids", "0"], "pids"),
        (&["--pids", "1"], "pids"),
        (&["--disk", "1Mi"], "disk"),
        (&["--workspace", "/etc"], "workspace"),
        (&["--workspace", "/"], "workspace"),
        (&["--rootfs", "/no/such/root"], "rootfs"),
        (&["--env", "LD_PRELOAD\n=x"], "env"),
        (&["--network", "everything"], "network"),
        (&["--allow", "fs:read:relative"], "relative"),
        (&["--allow", "fly:/moon"], "fly"),
    ] {
        let name = daemons.name("flags");
        let ctl = daemons.ctl(["run", "--name", &name]).args(flags).args(["--", "true"]);
        refused(daemons, &name, ctl, 125, &[part]);
    }
    // Nobody has seen the lines of the manifest that flags make.
    let done = daemons.ctl(["run", "--allow", "fs:read:/etc/shadow", "--", "true"]).done().expect(125);
    done.says("POLICY_DENIED").says("error: command line: spec.capabilities: ");
}

pub(crate) fn missing_programs(shared: &Shared) {
    let daemons = pair(shared);
    let groups = || -> usize { daemons.groups().iter().map(|group| folders(group)).sum() };
    run(daemons, &[], &["true"]).ok();
    let before = (daemons.ctl(["ps", "-a", "-q"]).ok().text(), groups());
    for _ in 0..5 {
        run(daemons, &[], &["/no/such/program"]).done().expect(127);
        run(daemons, &[], &["/etc/hostname"]).done().expect(126);
    }
    // Other tests come and go meanwhile: what counts is that these ten did not stay.
    let after = daemons.ctl(["ps", "-a"]).json();
    let stayed =
        after.as_array().unwrap().iter().filter(|agent| {
            agent["command"][0] == "/no/such/program" || agent["command"][0] == "/etc/hostname"
        });
    assert_eq!(stayed.count(), 0);
    drop(before);
}

fn folders(group: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(group) else { return 0 };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| 1 + folders(&entry.path()))
        .sum()
}

pub(crate) fn profiles_and_secrets(shared: &Shared) {
    let daemons = pair(shared);
    for (flags, parts) in [
        (&["--seccomp-profile", "no-such-profile"][..], &["PROFILE_NOT_FOUND", "no-such-profile"][..]),
        (&["--cgroup-profile", "no-such-class"], &["no-such-class"]),
        (&["--secret", "no-such-secret"], &["SECRET_NOT_FOUND", "no-such-secret"]),
    ] {
        let name = daemons.name("profile");
        let ctl = daemons.ctl(["run", "--name", &name]).args(flags).args(["--", "true"]);
        refused(daemons, &name, ctl, 125, parts);
    }
    // One that is there is shown to the agent alone, and is in no list.
    let secrets = daemons.state().join("secrets");
    let file = secrets.join("token");
    std::fs::write(&file, "s3cr3t-value").unwrap();
    let owner = std::fs::metadata(&secrets).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let agent = detached(
        daemons,
        "secret",
        &["--secret", "token"],
        &["sh", "-c", "cat /run/secrets/token; env | grep -c s3cr3t; sleep 30"],
    );
    agent.await_log("s3cr3t-value0");
    let cmdline = std::fs::read_to_string(format!("/proc/{}/cmdline", agent.pid())).unwrap();
    assert!(!cmdline.contains("s3cr3t-value"));
    assert!(!daemons.ctl(["inspect", &agent.name]).ok().text().contains("s3cr3t-value"));
    assert!(!daemons.ctl(["audit", "query", "-o", "jsonl"]).ok().text().contains("s3cr3t-value"));
}

pub(crate) fn a_taken_name_leaves_nothing(shared: &Shared) {
    let daemons = pair(shared);
    let agent = detached(daemons, "first", &[], &["sleep", "60"]);
    let id = agent.inspect()["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        daemons.ctl(["run", "--name", &agent.name, "--", "true"]).done().expect(125).says("NAME_TAKEN");
    }
    let named: Vec<String> = daemons
        .ctl(["ps", "-a", "--filter", &format!("name={}", agent.name)])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, [id]);
}
