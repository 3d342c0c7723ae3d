//! An agent is in its cgroups from its first instruction on: it is born there.

use std::fs::File;
use std::path::{Path, PathBuf};

use aion_types::LayerName;

use crate::harness::{Home, sh, skip, spawner, spec};

/// A group that goes away with the test.
struct Group(PathBuf);

impl Group {
    fn new(parent: &Path) -> Option<Self> {
        let path = parent.join(format!("aion-sandbox-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process leaves shortly after it has been waited for.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} stays", self.0.display());
    }
}

#[test]
fn init_and_agent_are_born_in_their_groups() {
    if skip() {
        return;
    }
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = unified.iter().map(Path::new).find(|p| p.join("cgroup.controllers").exists());
    let Some(group) = root.and_then(Group::new) else {
        eprintln!("skipped: no cgroup v2");
        return;
    };
    let mut spec = spec();
    spec.cgroup = Some(File::open(&group.0).unwrap().into());
    let pids = Path::new("/sys/fs/cgroup/pids");
    let v1 = if pids.join("tasks").exists() { Group::new(pids) } else { None };
    if let Some(v1) = &v1 {
        let door = |path: PathBuf| File::options().write(true).open(path).unwrap().into();
        spec.v1_doors = vec![(door(v1.0.join("tasks")), door(pids.join("tasks")))];
    }
    let slot = spawner().spawn(spec).unwrap();
    let name = group.0.file_name().unwrap().to_str().unwrap().to_owned();
    let seen = std::fs::read_to_string(format!("/proc/{}/cgroup", slot.init_pid())).unwrap();
    assert!(seen.contains(&format!("0::/{name}\n")), "{seen}");
    assert_eq!(seen.contains(&format!(":pids:/{name}\n")), v1.is_some(), "{seen}");
    // Nothing of ours stays in the group.
    let home = Home::new();
    let launched = home.launch_in(slot, &sh("cat /proc/self/cgroup | cut -d: -f3 | sort -u")).unwrap();
    assert_eq!(home.finish(launched).good(), "/\n");
}

#[test]
fn a_group_that_is_gone_is_a_layer_that_fails() {
    if skip() {
        return;
    }
    let mut spec = spec();
    spec.cgroup = Some(File::open("/tmp").unwrap().into());
    let error = spawner().spawn(spec).map(drop).unwrap_err();
    assert_eq!(error.failed_layer(), Some(LayerName::Cgroup));
}
