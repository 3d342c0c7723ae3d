//! What a group has used.

use std::path::Path;

use crate::{AgentGroup, Controller, files};

/// Use of resources. What the host cannot tell is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu_usec: u64,
    /// Time for which it had to wait because of its CPU limit.
    pub throttled_usec: u64,
    /// Memory now, page cache included.
    pub memory_bytes: u64,
    /// The most it ever had.
    pub memory_peak_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from disks.
    pub io_read_bytes: u64,
    /// Bytes written to disks.
    pub io_write_bytes: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

impl AgentGroup {
    /// Reads all counters. A file that is not there counts as 0: a sample is better than an error.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        if let Some(path) = self.unified_path() {
            // v2 accounts processor time even where the controller belongs to v1.
            let text = files::read(&path.join("cpu.stat")).unwrap_or_default();
            stats.cpu_usec = files::field(&text, "usage_usec").unwrap_or(0);
            stats.throttled_usec = files::field(&text, "throttled_usec").unwrap_or(0);
        }
        if let Some((dir, false)) = self.controller_dir(Controller::Cpu) {
            let text = files::read(&dir.join("cpu.stat")).unwrap_or_default();
            stats.throttled_usec = files::field(&text, "throttled_time").unwrap_or(0) / 1000;
            if stats.cpu_usec == 0 {
                stats.cpu_usec = files::number(&dir.join("cpuacct.usage")).unwrap_or(0) / 1000;
            }
        }
        if let Some((dir, v2)) = self.controller_dir(Controller::Memory) {
            let (current, peak) = if v2 {
                ("memory.current", "memory.peak")
            } else {
                ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
            };
            stats.memory_bytes = files::number(&dir.join(current)).unwrap_or(0);
            stats.memory_peak_bytes = files::number(&dir.join(peak)).unwrap_or(0);
            stats.oom_kills = oom_kills(&dir, v2);
        }
        if let Some((dir, _)) = self.controller_dir(Controller::Pids) {
            stats.pids = files::number(&dir.join("pids.current")).unwrap_or(0);
        }
        if let Some((dir, v2)) = self.controller_dir(Controller::Io) {
            let file = if v2 { "io.stat" } else { "blkio.throttle.io_service_bytes" };
            let text = files::read(&dir.join(file)).unwrap_or_default();
            (stats.io_read_bytes, stats.io_write_bytes) = if v2 { io_v2(&text) } else { io_v1(&text) };
        }
        stats
    }
}

pub(crate) fn oom_kills(dir: &Path, v2: bool) -> u64 {
    let file = if v2 { "memory.events" } else { "memory.oom_control" };
    files::read(&dir.join(file)).ok().and_then(|text| files::field(&text, "oom_kill")).unwrap_or(0)
}

/// `8:0 rbytes=1 wbytes=2 rios=…`, a line for each device.
fn io_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace().filter_map(|w| w.strip_prefix(key)?.parse::<u64>().ok()).sum::<u64>()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// `8:0 Read 1`, `8:0 Write 2`, …, a line for each device and kind.
fn io_v1(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let of = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            if words.next()? == key { words.next()?.parse::<u64>().ok() } else { None }
        };
        text.lines().filter_map(of).sum::<u64>()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_of_both_versions() {
        assert_eq!(io_v2("8:0 rbytes=10 wbytes=2 rios=1 wios=1\n7:0 rbytes=5 wbytes=0\n"), (15, 2));
        assert_eq!(io_v1("8:0 Read 10\n8:0 Write 2\n8:0 Sync 1\n7:0 Read 5\nTotal 18\n"), (15, 2));
    }
}
