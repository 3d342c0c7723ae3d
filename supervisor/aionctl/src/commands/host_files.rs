//! What the files below /proc and /sys tell about the kernel, for when no daemon is there to try things out.

use std::fs;
use std::path::Path;

use crate::view::host::CheckView;

/// Looks at the host whose root is `root`.
pub(super) fn look(root: &Path) -> Vec<CheckView> {
    let at = |path: &str| root.join(path);
    let modules = read(at("sys/kernel/security/lsm"));
    vec![
        cgroups(root),
        user_namespaces(root),
        match read(at("proc/sys/kernel/seccomp/actions_avail")) {
            actions if actions.split(' ').any(|action| action == "errno") => {
                CheckView::new("seccomp", "ok", actions, "")
            }
            _ => CheckView::new(
                "seccomp",
                "missing",
                "no seccomp filters",
                "a kernel with CONFIG_SECCOMP_FILTER",
            ),
        },
        security_module("landlock", "landlock", &modules, "add landlock to the kernel's lsm= parameter"),
        security_module(
            "bpf-lsm",
            "bpf",
            &modules,
            "add bpf to the kernel's lsm= parameter, with CONFIG_BPF_LSM",
        ),
        if at("sys/kernel/btf/vmlinux").exists() {
            CheckView::new("btf", "ok", "/sys/kernel/btf/vmlinux", "")
        } else {
            let fix = "a kernel with CONFIG_DEBUG_INFO_BTF";
            CheckView::new("btf", "missing", "the kernel does not describe its types", fix)
        },
    ]
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn security_module(name: &str, module: &str, modules: &str, fix: &str) -> CheckView {
    if modules.is_empty() {
        let detail = "/sys/kernel/security/lsm cannot be read from here";
        return CheckView::new(name, "degraded", detail, "mount -t securityfs none /sys/kernel/security");
    }
    if modules.split(',').any(|entry| entry == module) {
        return CheckView::new(name, "ok", "in the kernel's list of security modules", "");
    }
    CheckView::new(name, "missing", format!("the kernel's list is {modules}"), fix)
}

fn cgroups(root: &Path) -> CheckView {
    let base = root.join("sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        let controllers = read(base.join("cgroup.controllers"));
        let there = |wanted: &&str| controllers.split(' ').any(|controller| controller == *wanted);
        let missing: Vec<&str> =
            ["cpu", "memory", "pids", "io"].into_iter().filter(|wanted| !there(wanted)).collect();
        if missing.is_empty() {
            return CheckView::new("cgroup", "ok", format!("unified, with {controllers}"), "");
        }
        let detail = format!("unified, without {}", missing.join(", "));
        return CheckView::new(
            "cgroup",
            "degraded",
            detail,
            "enable them for the root's cgroup.subtree_control",
        );
    }
    if base.join("unified/cgroup.procs").exists() {
        return CheckView::new("cgroup", "ok", "hybrid: controllers in v1, identity in v2", "");
    }
    let fix = "boot with systemd.unified_cgroup_hierarchy=1";
    CheckView::new("cgroup", "missing", "no cgroup v2 below /sys/fs/cgroup", fix)
}

fn user_namespaces(root: &Path) -> CheckView {
    let most = read(root.join("proc/sys/user/max_user_namespaces"));
    match most.parse::<u64>() {
        Ok(0) => CheckView::new(
            "user-namespaces",
            "missing",
            "none are allowed",
            "sysctl user.max_user_namespaces=15000",
        ),
        Ok(most) => CheckView::new("user-namespaces", "ok", format!("at most {most}"), ""),
        Err(_) => {
            CheckView::new("user-namespaces", "missing", "not in this kernel", "a kernel with CONFIG_USER_NS")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_modern_host() {
        let dir = host(&[
            ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("proc/sys/user/max_user_namespaces", "15000\n"),
            ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno log allow\n"),
            ("sys/kernel/security/lsm", "capability,landlock,bpf"),
            ("sys/kernel/btf/vmlinux", ""),
        ]);
        for check in look(dir.path()) {
            assert_eq!((check.state.as_str(), check.fix.as_str()), ("ok", ""), "{}", check.name);
        }
    }

    #[test]
    fn a_hybrid_host_without_security_modules() {
        let dir = host(&[
            ("sys/fs/cgroup/unified/cgroup.procs", ""),
            ("sys/kernel/security/lsm", "capability,yama"),
        ]);
        let checks = look(dir.path());
        let state = |name: &str| checks.iter().find(|check| check.name == name).unwrap().state.clone();
        assert_eq!(state("cgroup"), "ok");
        assert_eq!(state("landlock"), "missing");
    }

    #[test]
    fn an_empty_host_is_told_what_it_lacks_and_how_to_get_it() {
        for check in look(host(&[]).path()) {
            assert_ne!(check.state, "ok", "{}", check.name);
            assert!(!check.fix.is_empty(), "{}", check.name);
        }
    }
}
