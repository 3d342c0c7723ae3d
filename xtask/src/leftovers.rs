//! What agents and daemons of a state folder might leave behind in the kernel, looked for from outside.
//!
//! Deliberately ignorant of how the launcher cleans up: it reads /proc and /sys as anybody could.

use std::fs;
use std::path::{Path, PathBuf};

/// Everything of this state that is still there, in words.
pub(crate) fn find(state: &Path) -> Vec<String> {
    let state = &state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let mut left = mounts(state);
    left.extend(processes(state));
    left.extend(groups(state));
    left.extend(pins(state));
    left
}

/// Mounts of folders below the state, in our own mount namespace.
fn mounts(state: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = |path: &str| Path::new(path).starts_with(state);
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(3);
            let (root, point) = (words.next()?, words.next()?);
            (below(point) || (root.len() > 1 && below(root))).then(|| format!("mount {point}"))
        })
        .collect()
}

/// Daemons that were started with this folder, and whatever runs in its control groups.
fn processes(state: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let name = marker(state);
    entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let pid: u32 = folder.file_name()?.to_str()?.parse().ok()?;
            let comm = fs::read_to_string(folder.join("comm")).ok()?;
            let comm = comm.trim();
            // What is dead has none, and is nobody's leftover; on some hosts it waits forever to be reaped.
            let cmdline = fs::read(folder.join("cmdline")).ok().filter(|words| !words.is_empty())?;
            let daemon = ["aiond", "aion-launcher"].contains(&comm)
                && cmdline.split(|&byte| byte == 0).any(|word| word == state.as_os_str().as_encoded_bytes());
            let inside = fs::read_to_string(folder.join("cgroup"))
                .is_ok_and(|groups| name.as_ref().is_some_and(|name| groups.contains(name.as_str())));
            (daemon || inside).then(|| format!("process {pid} ({comm})"))
        })
        .collect()
}

/// Control groups of this state, in every hierarchy.
fn groups(state: &Path) -> Vec<String> {
    let Some(name) = marker(state) else { return Vec::new() };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (words.next(), words.next()) else { continue };
        let group = PathBuf::from(point).join(&name);
        if kind.starts_with("cgroup") && group.is_dir() {
            let text = format!("cgroup {}", group.display());
            if !found.contains(&text) {
                found.push(text);
            }
        }
    }
    found
}

/// Pinned maps and links.
fn pins(state: &Path) -> Vec<String> {
    let Some(name) = marker(state) else { return Vec::new() };
    // The pins' folder is named after the state alone, the group may be a slice's.
    let hash = name.rsplit(['-', '/']).next().unwrap_or_default();
    let folder = Path::new("/sys/fs/bpf/aion").join(hash);
    if !hash.is_empty() && folder.exists() {
        vec![format!("pinned objects in {}", folder.display())]
    } else {
        Vec::new()
    }
}

/// The name of this state's control group, as the launcher notes it down.
fn marker(state: &Path) -> Option<String> {
    let name = fs::read_to_string(state.join("launcher/instance")).ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}
