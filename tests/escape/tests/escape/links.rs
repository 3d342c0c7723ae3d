//! Symbolic links laid where the launcher mounts: what it makes must never appear outside the sandbox.
//!
//! The agent of yesterday made the links; the operator of today names the folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use aion_e2e::{Daemons, Suite};
use serde_json::{Value, json};

pub(crate) fn add<'a>(suite: &mut Suite<'a>, daemons: &'a Daemons) {
    suite.test("links::workspace", || {
        refused(daemons, |inside, outside| {
            symlink(outside, inside.join("link")).unwrap();
            json!({"workspace": inside.join("link").to_string_lossy()})
        });
    });
    suite.test("links::parent-of-workspace", || {
        refused(daemons, |inside, outside| {
            fs::create_dir(outside.join("folder")).unwrap();
            symlink(outside, inside.join("link")).unwrap();
            json!({"workspace": inside.join("link/folder").to_string_lossy()})
        });
    });
    suite.test("links::bind", || {
        refused(daemons, |inside, outside| {
            symlink(outside, inside.join("link")).unwrap();
            let rule = format!("fs:write:{}/**", inside.join("link").display());
            json!({"capabilities": ["filesystem", "exec:/**", rule]})
        });
    });
    for place in ["proc", "dev", "tmp", "run", "workspace", "etc", "usr"] {
        suite.test(&format!("links::rootfs-{place}"), move || {
            let _ = contained(daemons, |inside, outside| {
                let root = inside.join("root");
                for folder in ["proc", "dev", "tmp", "run", "workspace", "etc", "usr", "bin"] {
                    fs::create_dir_all(root.join(folder)).unwrap();
                }
                fs::remove_dir(root.join(place)).unwrap();
                symlink(outside, root.join(place)).unwrap();
                json!({"rootfs": root.to_string_lossy()})
            });
        });
    }
}

/// The launch fails, and says why.
fn refused(daemons: &Daemons, prepare: impl FnOnce(&Path, &Path) -> Value) {
    let (code, said) = contained(daemons, prepare);
    assert_eq!(code, 125, "a folder behind a symbolic link was used: {said}");
    assert!(said.contains("symbolic link"), "it was refused for another reason: {said}");
}

/// Whatever becomes of the launch, nothing of it is seen in the folder that the links lead to.
fn contained(daemons: &Daemons, prepare: impl FnOnce(&Path, &Path) -> Value) -> (i32, String) {
    let folder = tempfile::Builder::new().prefix("aion-escape-links-").tempdir_in("/var/tmp").unwrap();
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "as it was").unwrap();
    let mut spec = json!({
        "entry": ["/bin/sh", "-c", "echo hello > /workspace/made; rm -f /workspace/kept; ls /"],
        "capabilities": ["filesystem", "exec:/**"],
        "allow_degraded": ["disk"],
    });
    for (key, value) in prepare(&inside, &outside).as_object().unwrap() {
        spec[key] = value.clone();
    }
    let before = names(&outside);
    let manifest = folder.path().join("agent.yml");
    let name = daemons.name("links");
    let document =
        json!({"apiVersion": "aion.os/v1", "kind": "Agent", "metadata": {"name": name}, "spec": spec});
    fs::write(&manifest, document.to_string()).unwrap();
    let done = daemons.ctl(["run", "--rm", "-f", manifest.to_str().unwrap()]).done();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let shown = outside.to_string_lossy().into_owned();
    assert!(!mounts.contains(&shown), "a mount appeared in {shown}");
    assert_eq!(names(&outside), before, "files appeared or went in {shown}; the launch said {}", done.err);
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "as it was");
    (done.code, done.err)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
