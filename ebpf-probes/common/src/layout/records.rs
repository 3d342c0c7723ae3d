//! Records of the ring buffer: a head, and what their kind says after it.

use super::COMM;

/// Kinds of records.
pub mod kind {
    /// [`super::ForkRecord`].
    pub const FORK: u16 = 1;
    /// [`super::ExecRecord`] and argv bytes.
    pub const EXEC: u16 = 2;
    /// [`super::ExitRecord`].
    pub const EXIT: u16 = 3;
    /// [`super::NetRecord`].
    pub const NET: u16 = 4;
    /// [`super::OomRecord`].
    pub const OOM: u16 = 5;
    /// [`super::PrivRecord`].
    pub const PRIV: u16 = 6;
    /// [`super::FileRecord`] and path bytes.
    pub const FILE: u16 = 7;
    /// [`super::SyscallRecord`]: one of all.
    pub const SYSCALL: u16 = 8;
    /// [`super::SyscallRecord`]: one that was denied.
    pub const SYS_DENIED: u16 = 9;
    /// [`super::LsmRecord`].
    pub const LSM_DENIED: u16 = 10;
    /// [`super::DeviceRecord`].
    pub const DEVICE_DENIED: u16 = 11;
}

/// Bits of [`Head::flags`].
pub mod head_flag {
    /// argv or path is longer than what the record holds.
    pub const TRUNCATED: u16 = 1;
    /// The action was refused.
    pub const DENIED: u16 = 1 << 1;
    /// The process was chosen by the OOM killer.
    pub const OOM_VICTIM: u16 = 1 << 2;
    /// The new program may do more than its caller (set-user-id, file capabilities).
    pub const SECURE_EXEC: u16 = 1 << 3;
    /// argv could not be read.
    pub const UNREADABLE: u16 = 1 << 4;
    /// Standard input of the new program is a socket of IPv4 or IPv6.
    pub const STDIN_SOCKET: u16 = 1 << 5;
    /// Standard output of the new program is a socket of IPv4 or IPv6.
    pub const STDOUT_SOCKET: u16 = 1 << 6;
    /// The program's file has no name any more: it was deleted, or never had one.
    pub const UNLINKED: u16 = 1 << 7;
    /// The program's file is memory (memfd_create).
    pub const MEMFD: u16 = 1 << 8;
    /// The program's file is on a mount that can be written to.
    pub const WRITABLE: u16 = 1 << 9;
}

/// Begins every record.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// One of [`kind`].
    pub kind: u16,
    /// Bits of [`head_flag`].
    pub flags: u16,
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// The process's parent; 0 where a program does not look it up.
    pub ppid: u32,
    /// The agent's cgroup.
    pub cgroup: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
}

/// User ids and capabilities of a task, as the initial user namespace sees them.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cred {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Effective capabilities in the task's own user namespace.
    pub cap_effective: u64,
}

/// A process was made. `head` is the parent's.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForkRecord {
    /// The parent: `tgid`, `tid` and its own `ppid`.
    pub head: Head,
    /// The child.
    pub child: u32,
    /// The child's pid in its own pid namespace.
    pub child_ns_pid: u32,
    /// The child's start, boot time in ns.
    pub child_start_ns: u64,
    /// The child's name (still that of its parent).
    pub comm: [u8; COMM],
}

/// A program was started; `argv_len` bytes follow (arguments, each ended by a NUL).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecRecord {
    /// Who.
    pub head: Head,
    /// Its credentials after the exec.
    pub cred: Cred,
    /// The process's start, boot time in ns.
    pub start_ns: u64,
    /// Its pid in its own pid namespace.
    pub ns_pid: u32,
    /// Bytes of the file name that follow.
    pub filename_len: u16,
    /// Bytes of argv that follow the file name.
    pub argv_len: u16,
    /// The new name.
    pub comm: [u8; COMM],
}

/// A process ended.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitRecord {
    /// Who.
    pub head: Head,
    /// The wait status: exit code in bits 8..16, signal in bits 0..7, core dumped in bit 7.
    pub status: u32,
    /// Real user id.
    pub uid: u32,
    /// The process's start, boot time in ns.
    pub start_ns: u64,
    /// Its name.
    pub comm: [u8; COMM],
}

/// A connect, bind or send to an address.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetRecord {
    /// Who.
    pub head: Head,
    /// 1 connect, 2 bind, 3 sendmsg.
    pub op: u8,
    /// 4 or 6.
    pub family: u8,
    /// Port, host order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// One of [`limit`].
    pub limit: u8,
    /// Whose limit that is: as [`super::LimitKey::destination`].
    pub destination: u8,
    /// The address in network order; v4 uses the first 4 bytes.
    pub addr: [u8; 16],
    /// Name of the task.
    pub comm: [u8; COMM],
}

/// The OOM killer chose a process.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OomRecord {
    /// Whose allocation failed.
    pub head: Head,
    /// The process that is killed.
    pub victim: u32,
    /// 0.
    pub zero: u32,
}

/// A task's user ids or capabilities changed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrivRecord {
    /// Who.
    pub head: Head,
    /// 1 exec, 2 system call, 3 LSM task_fix_setuid, 4 LSM capset.
    pub source: u32,
    /// The system call, for source 2.
    pub nr: u32,
    /// Before; for source 1 and 2 equal to `new` where it is not known.
    pub old: Cred,
    /// After.
    pub new: Cred,
    /// Name of the task.
    pub comm: [u8; COMM],
}

/// A file was opened for writing; `path_len` bytes follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileRecord {
    /// Who.
    pub head: Head,
    /// Inode number, 0 when not known.
    pub inode: u64,
    /// Device number, 0 when not known.
    pub dev: u32,
    /// `open(2)` flags.
    pub open_flags: u32,
    /// Bytes of the path that follow; unused bytes may come after them, up to [`super::PATH_MAX`] in all.
    pub path_len: u32,
    /// 0: the path as the kernel resolved it; 1: as the caller wrote it.
    pub raw: u32,
}

/// A system call returned.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyscallRecord {
    /// Who.
    pub head: Head,
    /// Its number.
    pub nr: u32,
    /// 0.
    pub zero: u32,
    /// What it returned.
    pub ret: i64,
    /// Its first four arguments.
    pub args: [u64; 4],
}

/// A security hook refused.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LsmRecord {
    /// Who.
    pub head: Head,
    /// One of [`hook`].
    pub hook: u32,
    /// The error that the caller got, positive.
    pub errno: u32,
    /// What the hook was asked: bpf command, ptrace mode, target pid, mount flags; of withheld files the rule's number, 0 where the
    /// file lies too deep to be sure.
    pub detail: u64,
    /// Name of the task.
    pub comm: [u8; COMM],
}

/// A device was not opened, or no node of it made.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceRecord {
    /// Who.
    pub head: Head,
    /// The device's driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
    /// One of [`crate::device::kind`].
    pub kind: u32,
    /// Bits of [`crate::device::access`].
    pub access: u32,
    /// Name of the task.
    pub comm: [u8; COMM],
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Hooks that refuse.
        pub mod hook {
            $($(#[$doc])* pub const $name: u32 = $value;)*
        }
        /// The name of a hook, as the kernel has it.
        #[must_use]
        pub const fn hook_name(hook: u32) -> Option<&'static str> {
            match hook { $($value => Some($text),)* _ => None }
        }
    };
}

hooks! {
    /// A BPF system call.
    BPF = 1, "bpf";
    /// A mount.
    SB_MOUNT = 2, "sb_mount";
    /// A mount moved, also how the new mount API attaches one.
    MOVE_MOUNT = 3, "move_mount";
    /// An unmount.
    SB_UMOUNT = 4, "sb_umount";
    /// pivot_root.
    SB_PIVOTROOT = 5, "sb_pivotroot";
    /// A remount.
    SB_REMOUNT = 6, "sb_remount";
    /// A request that the kernel load a module by name.
    KERNEL_MODULE_REQUEST = 7, "kernel_module_request";
    /// A file that the kernel reads as module, firmware or kexec image.
    KERNEL_READ_FILE = 8, "kernel_read_file";
    /// The same from memory.
    KERNEL_LOAD_DATA = 9, "kernel_load_data";
    /// A new user namespace.
    USERNS_CREATE = 10, "userns_create";
    /// Reading or controlling a process of another agent or the host.
    PTRACE_ACCESS_CHECK = 11, "ptrace_access_check";
    /// A performance counter.
    PERF_EVENT_OPEN = 12, "perf_event_open";
    /// Setting the clock.
    SETTIME = 13, "settime";
    /// Reading or clearing the kernel's log.
    SYSLOG = 14, "syslog";
    /// A device node.
    INODE_MKNOD = 15, "inode_mknod";
    /// An io_uring that runs under other credentials.
    URING_OVERRIDE_CREDS = 16, "uring_override_creds";
    /// An io_uring with a kernel thread.
    URING_SQPOLL = 17, "uring_sqpoll";
    /// A signal to a process outside.
    TASK_KILL = 18, "task_kill";
    /// A file or folder opened that is withheld.
    FILE_OPEN = 32, "file_open";
    /// A program executed that is withheld.
    BPRM_CHECK_SECURITY = 33, "bprm_check_security";
    /// Something withheld, or in what is withheld, removed.
    PATH_UNLINK = 34, "path_unlink";
    /// The same of a folder.
    PATH_RMDIR = 35, "path_rmdir";
    /// A folder made in what is withheld.
    PATH_MKDIR = 36, "path_mkdir";
    /// A file, pipe or socket made in what is withheld.
    PATH_MKNOD = 37, "path_mknod";
    /// A symbolic link made in what is withheld.
    PATH_SYMLINK = 38, "path_symlink";
    /// A hard link out of what is withheld, or into it.
    PATH_LINK = 39, "path_link";
    /// A rename out of what is withheld, or into it.
    PATH_RENAME = 40, "path_rename";
    /// What is withheld truncated by its name.
    PATH_TRUNCATE = 41, "path_truncate";
    /// The mode of what is withheld changed.
    PATH_CHMOD = 42, "path_chmod";
    /// The owner of what is withheld changed.
    PATH_CHOWN = 43, "path_chown";
}
