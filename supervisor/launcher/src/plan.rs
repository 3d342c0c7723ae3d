//! From what was asked to the plan that init performs. Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aion_sandbox::{BindTarget, Landlock, Plan, Resource, Rlimit, RootfsKind, Seccomp};
use aion_types::LayerName;

use crate::request::{Launch, Rootfs};

/// `/tmp`, `/run` and `/dev/shm` together.
const SCRATCH: u64 = 64 << 20;

/// The plan of an agent. `directories` says of each bind whether it is a folder. With probes it is they who refuse
/// connections, because they record them; Landlock would refuse first, and silently, and loopback too.
pub(crate) fn of(launch: &Launch, seccomp: &Seccomp, directories: &[bool], probed: bool) -> Plan {
    let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let mut plan = Plan::new(launch.argv.clone());
    plan.env.clone_from(&launch.env);
    plan.cwd = bytes(&launch.cwd);
    plan.hostname.clone_from(&launch.hostname);
    plan.rootfs = match launch.rootfs {
        Rootfs::HostSystem => RootfsKind::HostSystem,
        Rootfs::Directory(_) => RootfsKind::Directory,
    };
    // They count towards the memory limit, so more than half of it would be a trap.
    plan.scratch_bytes = launch.limits.mem_bytes.map_or(SCRATCH, |m| SCRATCH.min(m / 2));
    plan.workspace_read_only = launch.workspace.read_only;
    plan.binds = launch
        .binds
        .iter()
        .zip(directories)
        .map(|(b, directory)| BindTarget {
            path: bytes(&b.path),
            writable: b.writable,
            directory: *directory,
        })
        .collect();
    plan.devices = !launch.devices.is_empty();
    plan.secrets.clone_from(&launch.secrets);
    plan.tty = launch.tty;
    plan.rlimits = Some(rlimits(launch));
    plan.landlock = Some(Landlock {
        restrict_exec: launch.restrict_exec,
        exec_allow: launch.exec_allow.iter().map(|p| bytes(p)).collect(),
        deny_tcp: !probed,
        allow_degraded: launch.may_degrade(LayerName::Landlock),
    });
    plan.seccomp = Some(seccomp.clone());
    plan.journal_limit = launch.log_max_bytes;
    plan.incarnation = launch.incarnation;
    plan.door = launch.door;
    if let Some(job) = &launch.job {
        plan.env.extend(job.env());
        plan.job = Some(job.plan());
    }
    plan
}

fn rlimits(launch: &Launch) -> Vec<Rlimit> {
    let mut limits = Rlimit::defaults();
    let mut set = |resource, value: u64| {
        limits.retain(|l| l.resource != resource);
        limits.push(Rlimit { resource, soft: value, hard: value });
    };
    if let Some(files) = launch.limits.open_files {
        set(Resource::OpenFiles, u64::from(files));
    }
    if let Some(bytes) = launch.limits.file_size_bytes {
        set(Resource::FileSize, bytes);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_the_manifest_replace_the_defaults() {
        let mut raw = crate::request::tests_usual();
        raw.limits = Some(aion_launcher_proto::v1::Limits {
            mem_bytes: 32 << 20,
            open_files: 64,
            file_size_bytes: 1 << 20,
            ..Default::default()
        });
        let launch = Launch::check(&raw).unwrap();
        let seccomp = Seccomp { profile: "p".into(), program: vec![0; 8], notify: None };
        let plan = of(&launch, &seccomp, &[], true);
        assert_eq!(plan.scratch_bytes, 16 << 20);
        let of = |r| {
            plan.rlimits
                .as_ref()
                .unwrap()
                .iter()
                .filter(|l| l.resource == r)
                .map(|l| l.hard)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(Resource::OpenFiles), [64]);
        assert_eq!(of(Resource::FileSize), [1 << 20]);
        assert_eq!(of(Resource::Core), [0]);
        plan.check().unwrap();
    }
}
