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

/// Where an agent only reads, unless a folder that it may write to is shown there: what is gone from there was replaced by whoever maintains the system.
const SYSTEM: [&str; 5] = ["/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/"];

/// Processes of an agent whose programs are looked at, each time.
const MOST: usize = 1024;

/// How many of an agent's processes, of the first of them, run a program that was deleted since they began it. Its init is ours, and may be the one of
/// before an upgrade; memory never had a name. The link alone is read: a file system that hangs holds nobody up.
pub(crate) fn deleted_programs(init: u32, pids: &[i32]) -> u64 {
    let program = |pid: String| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(init.to_string());
    let gone = pids
        .iter()
        .take(MOST)
        .filter_map(|pid| program(pid.to_string()))
        .filter(|found| own.as_ref() != Some(found) && is_deleted(&found.to_string_lossy()))
        .count();
    u64::try_from(gone).unwrap_or(u64::MAX)
}

/// As the kernel writes it. A program that an agent names like this is its own affair: it is told of as deleted.
fn is_deleted(program: &str) -> bool {
    program.ends_with(" (deleted)")
        && !program.starts_with("/memfd:")
        && !SYSTEM.iter().any(|folder| program.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_its_process_outlived_is_told_from_what_was_upgraded() {
        assert!(is_deleted("/workspace/x (deleted)") && is_deleted("/tmp/x (deleted)"));
        for kept in ["/workspace/x", "/usr/bin/python3.11 (deleted)", "/memfd:x (deleted)", ""] {
            assert!(!is_deleted(kept), "{kept}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sleeper");
        std::fs::copy("/bin/sleep", &file).unwrap();
        let mut child = std::process::Command::new(&file).arg("60").spawn().unwrap();
        let pids = [i32::try_from(child.id()).unwrap()];
        let before = deleted_programs(std::process::id(), &pids);
        std::fs::remove_file(&file).unwrap();
        let after = deleted_programs(std::process::id(), &pids);
        let behind: Vec<i32> = std::iter::repeat_n(i32::MAX, MOST).chain(pids).collect();
        assert_eq!(deleted_programs(std::process::id(), &behind), 0, "the first are looked at");
        let as_init = deleted_programs(child.id(), &pids);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((before, after, as_init), (0, 1, 0));
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(u32::MAX), None);
    }
}
