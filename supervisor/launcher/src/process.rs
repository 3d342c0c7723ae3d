//! Processes by number and start time: a number alone may mean another process by now.

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The name before it may hold anything but ends with
/// the last `)`.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// Whether a process is in a v2 group with this path.
pub(crate) fn is_in_group(pid: u32, path: &std::path::Path) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
    let wanted = format!("0::/{}", path.display());
    text.lines().any(|line| line == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(u32::MAX), None);
    }
}
