//! What the kernel holds for agents: entries of AION's maps, as the launcher's descriptors tell of them, and all of it, as
//! /proc/meminfo does.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

use crate::report::Report;

/// `BPF_MAP_TYPE_LPM_TRIE`.
const TRIE: u32 = 11;
/// Entries of an agent at most, names' addresses among them.
const MOST_ENTRIES: f64 = 320.0;
const GOAL_KIB: f64 = 64.0;
/// What is added up as the kernel's memory; page tables and what of Slab cannot be reclaimed are told beside it.
const KERNEL: [&str; 3] = ["Slab", "KernelStack", "Percpu"];
const BESIDE: [&str; 2] = ["SUnreclaim", "PageTables"];

/// At a moment.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// Bytes of tries, which are told of without their branches, and of other maps.
    tries: f64,
    maps: f64,
    /// In KiB, by the names of /proc/meminfo.
    meminfo: BTreeMap<&'static str, f64>,
}

impl Held {
    /// Now; the maps are those that this process has open.
    pub(crate) fn now(pid: u32) -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let mut meminfo = BTreeMap::new();
        for name in KERNEL.into_iter().chain(BESIDE) {
            meminfo
                .insert(name, kibibytes(&text, name).with_context(|| format!("no {name} in /proc/meminfo"))?);
        }
        let mut seen = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed meanwhile.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            if let Some((id, kind, bytes)) = map(&info) {
                seen.insert(id, (kind, bytes));
            }
        }
        let of = |is_trie: bool| {
            seen.values().filter(|(kind, _)| (*kind == TRIE) == is_trie).map(|(_, bytes)| bytes).sum::<f64>()
        };
        Ok(Self { tries: of(true), maps: of(false), meminfo })
    }

    /// KiB that came since, of one of so many agents.
    fn each(&self, before: &Self, agents: f64, name: &str) -> f64 {
        let of = |held: &Self| held.meminfo.get(name).copied().unwrap_or(f64::NAN);
        (of(self) - of(before)) / agents
    }

    fn kernel_each(&self, before: &Self, agents: f64) -> f64 {
        KERNEL.into_iter().map(|name| self.each(before, agents, name)).sum()
    }
}

/// What agents without rules took, and then agents with rules, with so many entries each.
pub(crate) fn tell(moments: [&Held; 3], plain: u32, agents: u32, entries: u32, report: &mut Report) {
    let [before, between, after] = moments;
    let (plain, agents) = (f64::from(plain), f64::from(agents));
    let name = format!("kernel memory of an agent with {entries} rules");
    let (tries, maps) = (after.tries - between.tries, after.maps - between.maps);
    // Before Linux 6.4 it is told what a map may grow to.
    if tries > 0.0 {
        report.value(format!("{name}: BPF maps"), "KiB", (tries + maps) / agents / 1024.0);
        // At most a branch for each entry, as large as the entry.
        let most = (2.0 * tries / f64::from(entries) * MOST_ENTRIES + maps) / agents / 1024.0;
        report.at_most("kernel memory of an agent with 320 entries: BPF maps", "KiB", most, GOAL_KIB);
    } else {
        report.skip(format!("{name}: this kernel does not tell what BPF maps hold"));
    }
    let (none, with) = (between.kernel_each(before, plain), after.kernel_each(between, agents));
    report.value("kernel memory of an agent, network none: all of it", "KiB", none);
    report.value(format!("{name}, network egress: all of it"), "KiB", with);
    report.value("of it, what network egress and its rules add", "KiB", with - none);
    let part = |name: &&str| format!("{name} {:.0} KiB", after.each(between, agents, name));
    let parts: Vec<String> = KERNEL.iter().map(part).collect();
    let beside: Vec<String> = BESIDE.iter().map(part).collect();
    report.text("all of it, with egress", format!("{}; beside it {}", parts.join(", "), beside.join(", ")));
}

fn kibibytes(meminfo: &str, name: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// A map's number, type and bytes; none: it is no map.
fn map(fdinfo: &str) -> Option<(u32, u32, f64)> {
    let field = |name: &str| {
        fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    Some((field("map_id")?.parse().ok()?, field("map_type")?.parse().ok()?, field("memlock")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_told_from_other_descriptors() {
        let trie = "pos:\t0\nmap_type:\t11\nkey_size:\t36\nmemlock:\t960\nmap_id:\t 42\nfrozen:\t0\n";
        assert_eq!(map(trie), Some((42, TRIE, 960.0)));
        assert_eq!(map("pos:\t0\nprog_type:\t18\nmemlock:\t4096\nprog_id:\t7\n"), None);
        let text = "Slab:  800 kB\nSReclaimable:   700 kB\nSUnreclaim:    100 kB\n";
        assert_eq!(kibibytes(text, "Slab"), Some(800.0));
        assert_eq!((kibibytes(text, "SUnreclaim"), kibibytes(text, "Percpu")), (Some(100.0), None));
    }
}
