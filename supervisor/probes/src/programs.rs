//! The table of programs: where each is attached, and what it means when it cannot be.

use aya::programs::cgroup_skb::CgroupSkbAttachType;

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attach {
    /// A tracepoint with typed arguments.
    BtfTracepoint(&'static str),
    /// A tracepoint with raw arguments.
    RawTracepoint(&'static str),
    /// connect, bind, sendmsg below the agents' cgroup.
    SockAddr,
    /// Uses of device nodes below the agents' cgroup.
    Devices,
    /// Packets below the agents' cgroup.
    Skb(CgroupSkbDirection),
    /// A BPF LSM hook.
    Lsm(&'static str),
}

/// Which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CgroupSkbDirection {
    Ingress,
    Egress,
}

impl From<CgroupSkbDirection> for CgroupSkbAttachType {
    fn from(direction: CgroupSkbDirection) -> Self {
        match direction {
            CgroupSkbDirection::Ingress => Self::Ingress,
            CgroupSkbDirection::Egress => Self::Egress,
        }
    }
}

/// What it means when a program cannot be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The probes do not open without it.
    Required,
    /// Reported as unavailable.
    Optional,
    /// Loaded and pinned, attached while an agent asks for it.
    OnDemand,
}

/// One program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) attach: Attach,
    pub(crate) need: Need,
}

const fn spec(name: &'static str, attach: Attach, need: Need) -> Spec {
    Spec { name, attach, need }
}

const fn lsm(name: &'static str, hook: &'static str) -> Spec {
    spec(name, Attach::Lsm(hook), Need::Optional)
}

/// The program that counts, and traces returns.
pub(crate) const SYS_EXIT: &str = "sys_exit";
/// The program that times entries.
pub(crate) const SYS_ENTER: &str = "sys_enter";
/// The LSM program that records opens for writing.
pub(crate) const FILE_OPEN: &str = "lsm_file_open";
/// The one that sees what is executed.
const BPRM_CHECK_SECURITY: &str = "lsm_bprm_check_security";

/// All programs, in the order in which they are attached: enforcement first.
pub(crate) const ALL: &[Spec] = &[
    spec("connect4", Attach::SockAddr, Need::Required),
    spec("connect6", Attach::SockAddr, Need::Required),
    spec("bind4", Attach::SockAddr, Need::Required),
    spec("bind6", Attach::SockAddr, Need::Required),
    spec("sendmsg4", Attach::SockAddr, Need::Required),
    spec("sendmsg6", Attach::SockAddr, Need::Required),
    spec("ingress", Attach::Skb(CgroupSkbDirection::Ingress), Need::Required),
    spec("egress", Attach::Skb(CgroupSkbDirection::Egress), Need::Required),
    spec("device", Attach::Devices, Need::Required),
    spec("sched_process_fork", Attach::BtfTracepoint("sched_process_fork"), Need::Required),
    spec("sched_process_exec", Attach::BtfTracepoint("sched_process_exec"), Need::Required),
    spec("sched_process_exit", Attach::BtfTracepoint("sched_process_exit"), Need::Required),
    spec("mark_victim", Attach::RawTracepoint("mark_victim"), Need::Optional),
    spec(SYS_EXIT, Attach::BtfTracepoint("sys_exit"), Need::OnDemand),
    spec(SYS_ENTER, Attach::BtfTracepoint("sys_enter"), Need::OnDemand),
    lsm("lsm_bpf", "bpf"),
    lsm("lsm_sb_mount", "sb_mount"),
    lsm("lsm_move_mount", "move_mount"),
    lsm("lsm_sb_umount", "sb_umount"),
    lsm("lsm_sb_pivotroot", "sb_pivotroot"),
    lsm("lsm_sb_remount", "sb_remount"),
    lsm("lsm_kernel_module_request", "kernel_module_request"),
    lsm("lsm_kernel_read_file", "kernel_read_file"),
    lsm("lsm_kernel_load_data", "kernel_load_data"),
    lsm("lsm_userns_create", "userns_create"),
    lsm("lsm_ptrace_access_check", "ptrace_access_check"),
    lsm("lsm_perf_event_open", "perf_event_open"),
    lsm("lsm_settime", "settime"),
    lsm("lsm_syslog", "syslog"),
    lsm("lsm_inode_mknod", "inode_mknod"),
    lsm("lsm_uring_override_creds", "uring_override_creds"),
    lsm("lsm_uring_sqpoll", "uring_sqpoll"),
    lsm("lsm_task_kill", "task_kill"),
    lsm("lsm_task_fix_setuid", "task_fix_setuid"),
    lsm("lsm_capset", "capset"),
    lsm(BPRM_CHECK_SECURITY, "bprm_check_security"),
    lsm(FILE_OPEN, "file_open"),
    lsm("lsm_path_unlink", "path_unlink"),
    lsm("lsm_path_rmdir", "path_rmdir"),
    lsm("lsm_path_mkdir", "path_mkdir"),
    lsm("lsm_path_mknod", "path_mknod"),
    lsm("lsm_path_symlink", "path_symlink"),
    lsm("lsm_path_link", "path_link"),
    lsm("lsm_path_rename", "path_rename"),
    lsm("lsm_path_truncate", "path_truncate"),
    lsm("lsm_path_chmod", "path_chmod"),
    lsm("lsm_path_chown", "path_chown"),
];

/// Whether files and programs can be withheld from running agents only with this program.
pub(crate) fn holds_files(name: &str) -> bool {
    name == FILE_OPEN || name == BPRM_CHECK_SECURITY || name.starts_with("lsm_path_")
}
