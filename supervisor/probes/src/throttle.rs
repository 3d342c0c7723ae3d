//! Lets processes of strict agents go on that the programs stopped because the ring buffer was nearly full.
//!
//! The programs enter a process into `THROTTLED`, then send it SIGSTOP. It is continued only when it is seen
//! stopped, so that a stop still on its way is not overtaken; and its entry goes first, so that a stop that
//! comes after the continue keeps its own.

use std::fs;

use aion_probe_types::layout::Throttled;
use aya::maps::{HashMap, MapData, MapError};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::Error;
use crate::maps;

#[derive(Debug)]
pub(crate) struct Throttle {
    map: HashMap<MapData, u32, [u64; 2]>,
}

/// Clock ticks per second in `/proc/PID/stat`: USER_HZ, fixed in the kernel's ABI on x86-64.
const TICK_NS: u64 = 10_000_000;

impl Throttle {
    pub(crate) const fn new(map: HashMap<MapData, u32, [u64; 2]>) -> Self {
        Self { map }
    }

    /// Continues every process that is held back. Gives how many.
    pub(crate) fn resume(&mut self) -> Result<usize, Error> {
        let mut resumed = 0;
        let failed = |source| maps::error("THROTTLED", "read", source);
        let held: Vec<(u32, Throttled)> = self
            .map
            .iter()
            .map(|entry| entry.map(|(tgid, [cgroup, start_ns])| (tgid, Throttled { cgroup, start_ns })))
            .collect::<Result<_, MapError>>()
            .map_err(failed)?;
        for (tgid, entry) in held {
            if self.resume_one(tgid, entry)? {
                resumed += 1;
            }
        }
        Ok(resumed)
    }

    fn resume_one(&mut self, tgid: u32, entry: Throttled) -> Result<bool, Error> {
        let pid = i32::try_from(tgid).ok().and_then(Pid::from_raw);
        // The pidfd pins the identity before it is checked.
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let found = pidfd.zip(stat(tgid)).filter(|(_, stat)| stat.start_ticks == entry.start_ns / TICK_NS);
        let Some((pidfd, stat)) = found else {
            self.forget(tgid)?;
            return Ok(false);
        };
        // A dead leader with living threads shows as Z; its threads may well be stopped.
        if !matches!(stat.state, b'T' | b'Z') {
            return Ok(false);
        }
        self.forget(tgid)?;
        Ok(pidfd_send_signal(&pidfd, Signal::CONT).is_ok())
    }

    fn forget(&mut self, tgid: u32) -> Result<(), Error> {
        match self.map.remove(&tgid) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(maps::error("THROTTLED", "delete from", source)),
        }
    }
}

struct Stat {
    state: u8,
    start_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time; the name in parentheses may hold anything, so the last one ends it.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|&b| b == b')')?;
    let text = std::str::from_utf8(bytes.get(end + 2..)?).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // starttime is field 22 of the file, the state is field 3.
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_hostile_name() {
        let line = b"17 (a) T (b) S 1 17 17 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 0 0\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.start_ticks), (b'S', 4711));
        assert!(parse_stat(b"17 (a").is_none());
        assert!(parse_stat(b"").is_none());
    }
}
