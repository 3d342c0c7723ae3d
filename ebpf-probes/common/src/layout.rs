//! The bytes that kernel and user space exchange: values of maps, and records of the ring buffer.
//!
//! Every structure is `#[repr(C)]`, has no padding (checked below) and little-endian host integers; the
//! programs run on the machine that decodes.

/// Version of these layouts. Pinned maps of another version are not adopted.
pub const ABI: u32 = 1;
/// Agents at the same time: the size of the per-slot maps.
pub const MAX_AGENTS: u32 = 4096;
/// System calls with a counter of their own; those above share the last entry.
pub const SYSCALLS: u32 = 512;
/// Buckets of a latency histogram: bucket `i` counts calls of `2^i..2^(i+1)` ns, the last all longer ones.
pub const BUCKETS: usize = 32;
/// Bytes of argv in an exec record, at most.
pub const ARGV_MAX: usize = 512;
/// Bytes of a path in a record, at most.
pub const PATH_MAX: usize = 256;
/// Bytes of a task's name.
pub const COMM: usize = 16;
/// Threads whose system call can be timed at once (an index by thread id, collisions are skipped).
pub const STARTS: u32 = 65536;
/// Processes whose end is remembered, so that it is recorded once.
pub const MAX_EXITED: u32 = 4096;
/// Processes that the back-pressure of strict agents can hold stopped at once.
pub const MAX_THROTTLED: u32 = 16384;

/// Entries of `EGRESS`, of all agents together. Entries that are not there take no memory.
pub const MAX_EGRESS: u32 = 1 << 20;
/// How long a connection may be silent until it counts as closed, once the name's answer has run out: TCP.
pub const IDLE_TCP_NS: u64 = 3600 * 1_000_000_000;
/// The same for UDP.
pub const IDLE_UDP_NS: u64 = 120 * 1_000_000_000;

/// Destinations of one agent with limits or counters of their own: bits of [`Egress::counted`].
pub const MAX_DESTINATIONS: u32 = 8;
/// Entries of `LIMITS`: of each agent one for itself, and one for each such destination.
pub const MAX_LIMITS: u32 = MAX_AGENTS * (MAX_DESTINATIONS + 1);
/// Entries of `SPENT`: more, for agents that ended within the hour.
pub const MAX_SPENT: u32 = 2 * MAX_LIMITS;
/// Datagrams' destinations that are remembered, of all agents with a rate of connections.
pub const MAX_FLOWS: u32 = 16384;

/// Bits of [`Agent::flags`].
pub mod flag {
    /// Count system calls.
    pub const COUNT: u32 = 1;
    /// Keep latency histograms.
    pub const LATENCY: u32 = 1 << 1;
    /// One record for each system call.
    pub const TRACE: u32 = 1 << 2;
    /// No record may be lost: wake the reader early, stop the agent before the buffer is full.
    pub const STRICT: u32 = 1 << 3;
    /// Refuse every connect, bind and send.
    pub const NET_DENY: u32 = 1 << 4;
    /// Refuse all but loopback (the agent has a network namespace of its own).
    pub const NET_LOOPBACK: u32 = 1 << 5;
    /// The set-up is over: LSM hooks deny from now on, whatever the task's state.
    pub const ARMED: u32 = 1 << 6;
    /// There are no LSM hooks: opens for writing and changes of privileges are seen in system calls instead.
    pub const NO_LSM: u32 = 1 << 7;
    /// Beyond its own loopback it reaches what `EGRESS` says (the agent has a network namespace of its own).
    pub const NET_EGRESS: u32 = 1 << 8;
    /// Its network was taken away: as [`NET_DENY`], beside the policy that it has otherwise.
    pub const ISOLATED: u32 = 1 << 9;
    /// It has entries in `LIMITS`.
    pub const LIMITED: u32 = 1 << 10;
    /// Some of them are of destinations.
    pub const DESTINATIONS: u32 = 1 << 11;
    /// Files or programs are withheld from it: `WITHHELD` says which.
    pub const FILES: u32 = 1 << 16;
    /// Any of the modes that need a system-call probe.
    pub const SYSCALLS: u32 = COUNT | LATENCY | TRACE;
}

/// Value of `AGENTS`, by cgroup id.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// Index into the per-slot maps.
    pub slot: u32,
    /// Bits of [`flag`].
    pub flags: u32,
}

/// Key of `EGRESS`, after its length in bits. The kernel finds the entry with the longest address that matches.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EgressKey {
    /// The agent's cgroup; 0 for the blocks that an entry must name to reach them.
    pub cgroup: u64,
    /// The port in network order; 0 for all of them.
    pub port: [u8; 2],
    /// 0.
    pub zero: [u8; 6],
    /// The address; IPv4 is mapped.
    pub addr: [u8; 16],
}

impl EgressKey {
    /// Bits before the address.
    pub const HEAD_BITS: u32 = 128;
}

/// Value of `EGRESS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Egress {
    /// Until when connections are begun, monotonic ns.
    pub expires_ns: u64,
    /// When a packet last went by it, roughly, monotonic ns: keeps open connections alive.
    pub used_ns: u64,
    /// How narrow a special block it names; of an entry of cgroup 0, how narrow it must be.
    pub named: u32,
    /// For which destinations of the agent it counts, a bit each.
    pub counted: u32,
}

/// Key of `LIMITS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// 0 the agent as a whole, else a destination, from 1.
    pub destination: u64,
}

/// Value of `LIMITS`: what an agent, or what one destination of it, may use. Written by user space alone; 0 is no limit.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Whose use it is, see [`SpentKey`].
    pub account: [u64; 2],
    /// Bytes sent in an hour.
    pub bytes_out: u64,
    /// Bytes received in an hour.
    pub bytes_in: u64,
    /// Time between two connections.
    pub interval_ns: u64,
    /// How many intervals may be taken ahead, in ns.
    pub burst_ns: u64,
    /// What a connection that comes too early is told to have met: [`limit::PER_SECOND`] or [`limit::PER_MINUTE`].
    pub rate: u64,
}

/// Key of `SPENT`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpentKey {
    /// Whose: outlives cgroups, as an agent that starts anew has not used less.
    pub account: [u64; 2],
    /// As [`LimitKey::destination`].
    pub destination: u64,
}

/// Value of `SPENT`: what was used. Written by the programs alone.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Bytes sent within the hour, see [`crate::hour`].
    pub sent: [u64; crate::hour::WORDS],
    /// Bytes received within the hour.
    pub received: [u64; crate::hour::WORDS],
    /// When the next connection is due, monotonic ns; a burst comes before.
    pub due_ns: u64,
    /// Bytes sent in all.
    pub sent_total: u64,
    /// Bytes received in all.
    pub received_total: u64,
    /// Connections, and first datagrams to somewhere.
    pub connections: u64,
    /// Those that came too early.
    pub refused_rate: u64,
    /// Those for which no bytes were left.
    pub refused_bytes: u64,
    /// Packets that were not sent for want of bytes.
    pub dropped_out: u64,
    /// Packets that were not received for want of bytes.
    pub dropped_in: u64,
}

/// Key of `FLOWS`: where an agent's datagrams go.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// The address; IPv4 is mapped.
    pub addr: [u8; 16],
    /// The port, in network order.
    pub port: u64,
}

/// Which limit refused: [`NetRecord::limit`].
pub mod limit {
    /// None: something else did.
    pub const NONE: u8 = 0;
    /// Connections in a second.
    pub const PER_SECOND: u8 = 1;
    /// Connections in a minute.
    pub const PER_MINUTE: u8 = 2;
    /// Bytes sent in an hour.
    pub const BYTES_OUT: u8 = 3;
    /// Bytes received in an hour.
    pub const BYTES_IN: u8 = 4;
}

/// Value of `STATS`, by slot, one for each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Records that reached the ring buffer.
    pub events: u64,
    /// Records that did not.
    pub dropped: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Calls that a hook refused.
    pub denied: u64,
    /// Times a process was stopped because the buffer was nearly full.
    pub throttled: u64,
}

/// Element of an agent's `COUNTS` array, by system call, one for each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Calls that returned.
    pub calls: u64,
    /// Of these, calls that returned an error.
    pub errors: u64,
}

/// Element of an agent's `HISTS` array, by system call, one for each CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hist {
    /// Counts by log2 of the duration in ns.
    pub buckets: [u64; BUCKETS],
}

/// Element of `STARTS`: when a thread entered the system call that it is in.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// The thread, 0 when none.
    pub tid: u64,
    /// Monotonic time.
    pub ns: u64,
}

/// Value of `THROTTLED`, by thread group.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttled {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// The process's start (boot time), so that a reused pid is told apart.
    pub start_ns: u64,
}

/// Key of `EXITED`: a process for good.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Process {
    /// The thread group.
    pub tgid: u64,
    /// Its start (boot time).
    pub start_ns: u64,
}

/// The only element of `STATE`: what all programs share.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// [`ABI`] of the programs that made the maps.
    pub abi: u32,
    /// Programs of this generation record; those of another only enforce (they are being replaced).
    pub generation: u32,
    /// SHA-256 of the object.
    pub object: [u8; 32],
    /// Size of the ring buffer.
    pub ring_bytes: u64,
    /// When the reader was last woken because of fill, monotonic ns.
    pub woken_ns: u64,
    /// Fill from which the reader is woken.
    pub wake_at: u64,
    /// Fill from which records of agents that are not strict are dropped: the rest is for strict ones.
    pub admit_below: u64,
    /// Fill from which strict agents are stopped.
    pub stop_at: u64,
}

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
    /// Whose limit that is: as [`LimitKey::destination`].
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
    /// Bytes of the path that follow; unused bytes may come after them, up to [`PATH_MAX`] in all.
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

impl Agent {
    /// From a map's words.
    #[must_use]
    pub const fn from_words([slot, flags]: [u32; 2]) -> Self {
        Self { slot, flags }
    }
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u32; 2] {
        [self.slot, self.flags]
    }
}

impl EgressKey {
    /// Words of the structure.
    pub const WORDS: usize = 4;
    /// To a map's words.
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let ([p0, p1], a) = (self.port, self.addr);
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&a[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        [self.cgroup, u64::from_ne_bytes([p0, p1, 0, 0, 0, 0, 0, 0]), word(0), word(8)]
    }
    /// From a map's words.
    #[must_use]
    pub fn from_words([cgroup, port, high, low]: [u64; Self::WORDS]) -> Self {
        let [p0, p1, ..] = port.to_ne_bytes();
        let mut addr = [0; 16];
        addr[..8].copy_from_slice(&high.to_ne_bytes());
        addr[8..].copy_from_slice(&low.to_ne_bytes());
        Self { cgroup, port: [p0, p1], zero: [0; 6], addr }
    }
}

impl Egress {
    /// Words of the structure.
    pub const WORDS: usize = 3;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.named.to_ne_bytes(), self.counted.to_ne_bytes());
        [self.expires_ns, self.used_ns, u64::from_ne_bytes([a, b, c, d, e, f, g, h])]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([expires_ns, used_ns, last]: [u64; Self::WORDS]) -> Self {
        let [a, b, c, d, e, f, g, h] = last.to_ne_bytes();
        let (named, counted) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Self { expires_ns, used_ns, named, counted }
    }
}

impl LimitKey {
    /// Words of the structure.
    pub const WORDS: usize = 2;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        [self.cgroup, self.destination]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([cgroup, destination]: [u64; Self::WORDS]) -> Self {
        Self { cgroup, destination }
    }
}

impl Limit {
    /// Words of the structure.
    pub const WORDS: usize = 7;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let [a, b] = self.account;
        [a, b, self.bytes_out, self.bytes_in, self.interval_ns, self.burst_ns, self.rate]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [a, b, bytes_out, bytes_in, interval_ns, burst_ns, rate] = words;
        Self { account: [a, b], bytes_out, bytes_in, interval_ns, burst_ns, rate }
    }
}

impl SpentKey {
    /// Words of the structure.
    pub const WORDS: usize = 3;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let [a, b] = self.account;
        [a, b, self.destination]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([a, b, destination]: [u64; Self::WORDS]) -> Self {
        Self { account: [a, b], destination }
    }
}

impl Spent {
    /// Words of the structure.
    pub const WORDS: usize = 2 * crate::hour::WORDS + 8;
    /// From a map's words.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let mut rest = words.iter().copied();
        let mut hour = || core::array::from_fn(|_| rest.next().unwrap_or(0));
        let (sent, received) = (hour(), hour());
        let [
            due_ns,
            sent_total,
            received_total,
            connections,
            refused_rate,
            refused_bytes,
            dropped_out,
            dropped_in,
        ] = core::array::from_fn(|_| rest.next().unwrap_or(0));
        Self {
            sent,
            received,
            due_ns,
            sent_total,
            received_total,
            connections,
            refused_rate,
            refused_bytes,
            dropped_out,
            dropped_in,
        }
    }
}

impl Stats {
    /// Words of the structure.
    pub const WORDS: usize = 8;
    /// From a map's words.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [events, dropped, rx_bytes, rx_packets, tx_bytes, tx_packets, denied, throttled] = words;
        Self { events, dropped, rx_bytes, rx_packets, tx_bytes, tx_packets, denied, throttled }
    }
}

impl State {
    /// Words of the structure.
    pub const WORDS: usize = 10;
    /// From a map's words.
    #[must_use]
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [versions, o0, o1, o2, o3, ring_bytes, woken_ns, wake_at, admit_below, stop_at] = words;
        let [a0, a1, a2, a3, g0, g1, g2, g3] = versions.to_ne_bytes();
        let mut object = [0; 32];
        for (to, from) in object.chunks_exact_mut(8).zip([o0, o1, o2, o3]) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        Self {
            abi: u32::from_ne_bytes([a0, a1, a2, a3]),
            generation: u32::from_ne_bytes([g0, g1, g2, g3]),
            object,
            ring_bytes,
            woken_ns,
            wake_at,
            admit_below,
            stop_at,
        }
    }
    /// To a map's words.
    #[must_use]
    pub fn to_words(self) -> [u64; Self::WORDS] {
        let [a0, a1, a2, a3] = self.abi.to_ne_bytes();
        let [g0, g1, g2, g3] = self.generation.to_ne_bytes();
        let mut words = [0; Self::WORDS];
        words[0] = u64::from_ne_bytes([a0, a1, a2, a3, g0, g1, g2, g3]);
        for (to, from) in words[1..5].iter_mut().zip(self.object.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(from);
            *to = u64::from_ne_bytes(bytes);
        }
        words[5..].copy_from_slice(&[
            self.ring_bytes,
            self.woken_ns,
            self.wake_at,
            self.admit_below,
            self.stop_at,
        ]);
        words
    }
}

macro_rules! no_padding {
    ($($type:ty = $size:expr),* $(,)?) => { $(const _: () = assert!(core::mem::size_of::<$type>() == $size);)* };
}
no_padding! {
    Agent = 8, EgressKey = 32, Egress = 24, LimitKey = 16, Limit = 56, SpentKey = 24, Spent = 320, Flow = 32, Stats = 64, Count = 16, Hist = 256, Start = 16, Throttled = 16, Process = 16, State = 80,
    Head = 32, Cred = 24, ForkRecord = 64, ExecRecord = 88, ExitRecord = 64, NetRecord = 72, OomRecord = 40,
    PrivRecord = 104, FileRecord = 56, SyscallRecord = 80, LsmRecord = 64,
}
