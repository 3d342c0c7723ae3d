//! What agents and daemons may leave behind, looked for from outside: it reads /proc and /sys as anybody could, and
//! knows only where the launcher notes down the name of its control group.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What was there before, so that what is there after can be told apart.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    interfaces: BTreeSet<String>,
    loops: BTreeSet<String>,
    netns: BTreeSet<String>,
}

impl Leftovers {
    /// Looks at the host before anything is started.
    #[must_use]
    pub fn before() -> Self {
        Self { interfaces: names("/sys/class/net"), loops: loops(), netns: names("/run/netns") }
    }

    /// What is there now and was not before, in words, beside what belongs to `state`.
    #[must_use]
    pub fn after(&self, state: &Path) -> Vec<String> {
        let mut left = leftovers(state);
        let mut new = |what: &str, now: BTreeSet<String>, then: &BTreeSet<String>| {
            left.extend(now.difference(then).map(|name| format!("{what} {name}")));
        };
        // Others use loop devices and interfaces too; only what looks like ours is held against us.
        let ours = |name: &String| name.starts_with("aion") || name.starts_with("veth");
        new("interface", names("/sys/class/net").into_iter().filter(ours).collect(), &self.interfaces);
        new("network namespace", names("/run/netns"), &self.netns);
        let text = state.to_string_lossy().into_owned();
        let below = |name: &String| name.contains(text.as_str());
        new("loop device", loops().into_iter().filter(below).collect(), &self.loops);
        left
    }
}

/// Everything of this state folder that is still there, in words.
#[must_use]
pub fn leftovers(state: &Path) -> Vec<String> {
    let group = group_name(state);
    let mut left = mounts(state);
    left.extend(processes(state, group.as_deref()));
    if let Some(group) = group {
        left.extend(groups(&group).into_iter().map(|path| format!("cgroup {}", path.display())));
        let pins = Path::new("/sys/fs/bpf/aion").join(group.trim_start_matches("aion-"));
        if pins.exists() {
            left.push(format!("pinned objects in {}", pins.display()));
        }
    }
    left
}

/// The name of this state's control group, as the launcher notes it down.
pub(crate) fn group_name(state: &Path) -> Option<String> {
    let name = fs::read_to_string(state.join("launcher/instance")).ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The control group's folder in every hierarchy that has it.
pub(crate) fn groups(name: &str) -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (point, kind) = (words.next()?, words.next()?);
            let group = Path::new(point).join(name);
            (kind.starts_with("cgroup") && group.is_dir()).then_some(group)
        })
        .collect()
}

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

/// Daemons of this folder, and whatever runs in its control groups. What is dead and only waits for whoever
/// inherited it to take note is nobody's leftover: on some hosts the first process never does.
fn processes(state: &Path, group: Option<&str>) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let state = state.as_os_str().as_encoded_bytes();
    entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            let pid: u32 = folder.file_name()?.to_str()?.parse().ok()?;
            let comm = fs::read_to_string(folder.join("comm")).ok()?;
            let comm = comm.trim();
            let stat = fs::read_to_string(folder.join("stat")).ok()?;
            if stat.rsplit(") ").next()?.starts_with(['Z', 'X']) {
                return None;
            }
            let cmdline = fs::read(folder.join("cmdline")).unwrap_or_default();
            let daemon = ["aiond", "aion-launcher"].contains(&comm)
                && cmdline.split(|&byte| byte == 0).any(|word| word == state);
            let inside = fs::read_to_string(folder.join("cgroup"))
                .is_ok_and(|groups| group.is_some_and(|group| groups.contains(group)));
            (daemon || inside).then(|| format!("process {pid} ({comm})"))
        })
        .collect()
}

fn names(dir: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Loop devices that have a file, with it.
fn loops() -> BTreeSet<String> {
    names("/sys/block")
        .into_iter()
        .filter_map(|name| {
            let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok()?;
            Some(format!("{name} on {}", file.trim()))
        })
        .collect()
}
