//! What the probes need.

use std::fs;
use std::path::Path;

use crate::Check;

pub(crate) fn all() -> Vec<Check> {
    vec![btf(), bpffs(), tracepoints(), lsm(&lsm_list())]
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        return Check::ok("btf", path);
    }
    Check::missing(
        "btf",
        format!("no {path}: the probes cannot be fitted to this kernel"),
        "use a kernel with CONFIG_DEBUG_INFO_BTF",
    )
}

fn bpffs() -> Check {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let at = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    if let Some((path, _)) = at.into_iter().find(|(_, kind)| *kind == "bpf") {
        return Check::ok("bpffs", path);
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if filesystems.split_whitespace().any(|name| name == "bpf") {
        return Check::ok("bpffs", "not mounted yet; the launcher mounts it on /sys/fs/bpf");
    }
    Check::missing("bpffs", "the kernel has no BPF file system", "use a kernel with CONFIG_BPF_SYSCALL")
}

fn tracepoints() -> Check {
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    if jit.trim() == "0" {
        return Check::degraded(
            "bpf-jit",
            "programs are interpreted, several times slower",
            "sysctl net.core.bpf_jit_enable=1",
        );
    }
    Check::ok("bpf-jit", "programs are compiled")
}

/// The kernel's LSM list; empty when it cannot be read.
fn lsm_list() -> String {
    fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default().trim().to_owned()
}

fn lsm(list: &str) -> Check {
    const NAME: &str = "bpf-lsm";
    const FIX: &str = "add bpf to the list in lsm= on the kernel's command line, then reboot; the other layers hold without it, and fs: and exec: rules of running agents change at their next start";
    if list.is_empty() {
        let why = "the LSM list cannot be read (securityfs is not mounted)";
        return Check::degraded(
            NAME,
            why,
            "mount -t securityfs securityfs /sys/kernel/security, then look again",
        );
    }
    if list.split(',').any(|name| name == "bpf") {
        return Check::ok(NAME, list);
    }
    Check::degraded(NAME, format!("not in the LSM list: {list}"), FIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::State;

    #[test]
    fn the_lsm_list_decides() {
        assert_eq!(lsm("landlock,bpf").state, State::Ok);
        assert_eq!(lsm("landlock,apparmor").state, State::Degraded);
        assert!(lsm("").detail.contains("securityfs"));
    }
}
