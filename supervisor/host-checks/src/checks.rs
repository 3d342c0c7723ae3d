//! Everything but BPF: one function a check.

use std::fs;
use std::path::Path;

use aion_cgroup::{Controller, Hierarchy, Mode};

use crate::{Check, Release};

const ALL_NAMESPACES: [&str; 8] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];

pub(crate) fn kernel(release: &Release) -> Check {
    if release.at_least(6, 1) {
        return Check::ok("kernel", release.to_string());
    }
    Check::degraded(
        "kernel",
        format!("{release} is older than 6.1, the oldest that is tested"),
        "install Linux 6.1 or later",
    )
}

pub(crate) fn cgroup() -> Check {
    const FIX: &str =
        "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 on /sys/fs/cgroup/unified";
    match Hierarchy::detect() {
        Err(error) => Check::missing("cgroup", error.to_string(), FIX),
        Ok(found) if found.unified_root().is_none() => {
            Check::missing("cgroup", "no cgroup v2 hierarchy, which identifies agents to the probes", FIX)
        }
        Ok(found) => {
            let root = found.unified_root().map(|root| root.display().to_string()).unwrap_or_default();
            let kind = match found.mode() {
                Mode::Unified => "unified",
                _ => "hybrid: controllers in v1",
            };
            Check::ok("cgroup", format!("v2 at {root}, {kind}"))
        }
    }
}

pub(crate) fn limits() -> Check {
    let Ok(found) = Hierarchy::detect() else {
        return Check::missing("limits", "no cgroup hierarchy", "see the check `cgroup`");
    };
    let missing: Vec<&str> =
        Controller::ALL.into_iter().filter(|c| !found.has(*c)).map(Controller::v2_name).collect();
    if missing.is_empty() {
        return Check::ok("limits", found.describe());
    }
    let kernel = "enable the controllers in the kernel (memory on some boards: cgroup_enable=memory)";
    Check::degraded("limits", format!("no controller for {}", missing.join(", ")), kernel)
}

pub(crate) fn namespaces() -> Check {
    let lacks: Vec<&str> =
        ALL_NAMESPACES.into_iter().filter(|name| !Path::new("/proc/self/ns").join(name).exists()).collect();
    if lacks.is_empty() {
        return Check::ok("namespaces", ALL_NAMESPACES.join(", "));
    }
    Check::missing(
        "namespaces",
        format!("the kernel lacks {}", lacks.join(", ")),
        "use a kernel with CONFIG_NAMESPACES and all its kinds",
    )
}

pub(crate) fn user_namespaces() -> Check {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    match limit.trim().parse::<u64>() {
        Ok(0) => Check::missing(
            "user-namespaces",
            "user.max_user_namespaces is 0",
            "sysctl user.max_user_namespaces=15000",
        ),
        Ok(count) => Check::ok("user-namespaces", format!("at most {count}")),
        Err(_) => {
            Check::missing("user-namespaces", "the kernel has none", "use a kernel with CONFIG_USER_NS")
        }
    }
}

pub(crate) fn id_mapped_mounts(release: &Release) -> Check {
    const NAME: &str = "id-mapped-mounts";
    if !release.at_least(5, 12) {
        return Check::missing(NAME, "workspaces on host folders need them", "use Linux 5.12 or later");
    }
    if !release.at_least(6, 3) {
        return Check::degraded(
            NAME,
            "ext4, xfs and btrfs; not yet tmpfs",
            "keep workspaces off tmpfs, or use Linux 6.3 or later",
        );
    }
    Check::ok(NAME, "ext4, xfs, btrfs, tmpfs")
}

pub(crate) fn landlock(abi: u32) -> Check {
    const NAME: &str = "landlock";
    match abi {
        0 => Check::missing(
            NAME,
            "not in this kernel, or not in its LSM list",
            "add landlock to lsm= on the kernel's command line",
        ),
        1..=3 => Check::degraded(
            NAME,
            format!("ABI {abi}: files, no network rules"),
            "Linux 6.7 brings network rules, 6.12 scopes for signals and abstract sockets",
        ),
        4 | 5 => Check::degraded(
            NAME,
            format!("ABI {abi}: files and TCP, no scopes"),
            "Linux 6.12 brings scopes for signals and abstract sockets",
        ),
        _ => Check::ok(NAME, format!("ABI {abi}: files, TCP, scopes")),
    }
}

pub(crate) fn seccomp() -> Check {
    const NAME: &str = "seccomp";
    let Ok(actions) = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") else {
        return Check::missing(NAME, "no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER");
    };
    if actions.split_whitespace().any(|action| action == "user_notif") {
        return Check::ok(NAME, "filters, and user notification of denied calls");
    }
    Check::missing(NAME, "no user notification, which reports denied calls", "use Linux 5.0 or later")
}

pub(crate) fn volumes() -> Check {
    const NAME: &str = "volumes";
    let loops = Path::new("/dev/loop-control").exists();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let ext4 = filesystems.split_whitespace().any(|name| name == "ext4");
    if loops && ext4 {
        return Check::ok(NAME, "managed workspaces are ext4 images with a size of their own");
    }
    let what = if loops { "ext4" } else { "loop devices" };
    Check::degraded(
        NAME,
        format!("no {what}: managed workspaces cannot have a hard size"),
        format!("modprobe {}", if loops { "ext4" } else { "loop" }),
    )
}

pub(crate) fn capabilities() -> Check {
    const NAME: &str = "capabilities";
    // (bit, name, what it is for)
    const WANTED: [(u32, &str, &str); 7] = [
        (0, "CAP_CHOWN", "workspaces"),
        (1, "CAP_DAC_OVERRIDE", "workspaces"),
        (5, "CAP_KILL", "stopping agents"),
        (7, "CAP_SETUID", "id maps"),
        (6, "CAP_SETGID", "id maps"),
        (21, "CAP_SYS_ADMIN", "namespaces, mounts, BPF"),
        (24, "CAP_SYS_RESOURCE", "lowering a badness and raising limits"),
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim).unwrap_or_default();
    let Ok(set) = u64::from_str_radix(effective, 16) else {
        return Check::degraded(NAME, "CapEff cannot be read", "mount /proc");
    };
    let lacks: Vec<&(u32, &str, &str)> = WANTED.iter().filter(|(bit, ..)| set & (1 << bit) == 0).collect();
    let told: Vec<String> = lacks.iter().map(|(_, name, use_)| format!("{name} ({use_})")).collect();
    match lacks.as_slice() {
        [] => Check::ok(NAME, "all that the launcher needs"),
        // Kernels that account BPF memory to cgroups need no raised limits.
        [(24, ..)] => Check::degraded(
            NAME,
            format!("lacks {}", told.join(", ")),
            "nothing on Linux 5.11 or later; else run the launcher with it",
        ),
        _ => Check::missing(
            NAME,
            format!("lacks {}", told.join(", ")),
            "run aion-launcher as root with its full bounding set",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    #[test]
    fn landlock_by_abi() {
        assert_eq!(landlock(0).state, State::Missing);
        assert_eq!(landlock(2).state, State::Degraded);
        assert_eq!(landlock(4).state, State::Degraded);
        assert_eq!(landlock(7).state, State::Ok);
    }

    #[test]
    fn old_kernels_are_named() {
        assert_eq!(kernel(&Release::parse("5.10.0")).state, State::Degraded);
        assert_eq!(id_mapped_mounts(&Release::parse("5.10.0")).state, State::Missing);
        assert_eq!(id_mapped_mounts(&Release::parse("6.1.0")).state, State::Degraded);
    }
}
