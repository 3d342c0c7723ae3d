//! What a launcher might leave in the kernel, looked for from outside.

use std::path::Path;

pub(crate) fn find(cgroup: &str) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next().unwrap(), words.next().unwrap());
        let group = Path::new(point).join(cgroup);
        if kind.starts_with("cgroup") && group.exists() {
            left.push(format!("cgroup {}", group.display()));
        }
        if point.contains("aion-it-") {
            left.push(format!("mount {point}"));
        }
    }
    let pins = Path::new("/sys/fs/bpf/aion").join(cgroup.trim_start_matches("aion-"));
    if pins.exists() {
        left.push(format!("pins {}", pins.display()));
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        // A zombie waits for the host's init, and holds nothing.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')) {
            continue;
        }
        let inside =
            std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(cgroup));
        if inside {
            let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            left.push(format!("process {} {}", entry.path().display(), comm.trim()));
        }
    }
    left
}

/// Loop devices whose file is below a folder.
pub(crate) fn loops(state: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
        if let Ok(file) = std::fs::read_to_string(entry.path().join("loop/backing_file"))
            && Path::new(file.trim()).starts_with(state)
        {
            found.push(file.trim().to_owned());
        }
    }
    found
}
