//! Records as the rest of AION sees them: typed, borrowed from the ring buffer.

use crate::layout;

/// One record of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The agent's cgroup.
    pub cgroup_id: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// Process, in the host's pid namespace.
    pub pid: u32,
    /// Thread, in the host's pid namespace.
    pub tid: u32,
    /// Parent process; 0 where it is not known.
    pub ppid: u32,
    /// What happened.
    pub kind: Kind<'a>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A process was made; `pid` is its parent.
    Fork(Fork),
    /// A program was started.
    Exec(Exec<'a>),
    /// A process ended.
    Exit(Exit),
    /// A connect, bind or send to an address.
    Net(Net),
    /// The OOM killer chose a process.
    Oom(Oom),
    /// User ids or capabilities changed.
    PrivChange(PrivChange),
    /// A file was opened for writing.
    OpenWrite(FileOpen<'a>),
    /// A system call returned (audit mode `full`).
    Syscall(Syscall),
    /// A system call was refused by the kernel (modes `count`, `latency`, `full`).
    SyscallDenied(Syscall),
    /// A security hook refused.
    LsmDenied(DeniedHook),
    /// A device was not opened, or no node of it made.
    DeviceDenied(DeniedDevice),
}

impl Kind<'_> {
    /// The word of the audit log.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Fork(_) => "proc.fork",
            Self::Exec(_) => "proc.exec",
            Self::Exit(_) => "proc.exit",
            Self::Net(net) => match net.op {
                NetOp::Connect => "net.connect",
                NetOp::Bind => "net.bind",
                NetOp::Send => "net.sendto",
            },
            Self::Oom(_) => "mem.oom",
            Self::PrivChange(_) => "priv.change",
            Self::OpenWrite(_) => "file.open_write",
            Self::Syscall(_) => "sys.call",
            Self::SyscallDenied(_) => "sys.denied",
            Self::LsmDenied(_) => "lsm.denied",
            Self::DeviceDenied(_) => "device.denied",
        }
    }
}

/// Allowed or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It went on.
    Allowed,
    /// It was refused in the call itself.
    Denied,
}

/// A name, as the kernel keeps it: at most 15 bytes, NUL-padded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Comm(pub(crate) [u8; layout::COMM]);

impl Comm {
    /// Keeps the first 15 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut name = [0; layout::COMM];
        for (to, from) in name.iter_mut().take(layout::COMM - 1).zip(bytes) {
            *to = *from;
        }
        Self(name)
    }

    /// The bytes before the first NUL; any bytes, the agent chooses them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|&b| b == 0).next().unwrap_or(&[])
    }
}

impl core::fmt::Debug for Comm {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// User ids and capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Real user id, in the host's numbers.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Effective capabilities in the task's own user namespace, a bit each.
    pub cap_effective: u64,
}

/// A process was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The child.
    pub child: u32,
    /// The child's pid as its own namespace numbers it.
    pub child_ns_pid: u32,
    /// The child's start, boot time in ns.
    pub child_start_ns: u64,
    /// The child's name.
    pub comm: Comm,
}

/// Where a program came from, and what it reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// Standard input is a socket of IPv4 or IPv6.
    pub stdin_socket: bool,
    /// Standard output is one.
    pub stdout_socket: bool,
    /// The file has no name any more: it was deleted, or never had one.
    pub unlinked: bool,
    /// The file is memory.
    pub memfd: bool,
    /// The file is on a mount that can be written to.
    pub writable: bool,
}

impl Origin {
    /// From the flags of a record.
    #[must_use]
    pub const fn from_flags(flags: u16) -> Self {
        use layout::head_flag as flag;
        Self {
            stdin_socket: flags & flag::STDIN_SOCKET != 0,
            stdout_socket: flags & flag::STDOUT_SOCKET != 0,
            unlinked: flags & flag::UNLINKED != 0,
            memfd: flags & flag::MEMFD != 0,
            writable: flags & flag::WRITABLE != 0,
        }
    }
}

/// A program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exec<'a> {
    /// The file as it was named.
    pub filename: &'a [u8],
    /// The arguments, each ended by a NUL; see [`Exec::args`].
    pub argv: &'a [u8],
    /// Some arguments (or the end of one) are missing.
    pub truncated: bool,
    /// The arguments could not be read.
    pub unreadable: bool,
    /// The program got more privileges than its caller.
    pub secure: bool,
    /// Where the program came from, and what it reads and writes.
    pub origin: Origin,
    /// Credentials after the exec.
    pub cred: Credentials,
    /// The process's start, boot time in ns.
    pub start_ns: u64,
    /// Its pid as its own namespace numbers it.
    pub ns_pid: u32,
    /// The new name.
    pub comm: Comm,
}

impl<'a> Exec<'a> {
    /// The arguments one by one.
    pub fn args(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let argv = self.argv.strip_suffix(&[0]).unwrap_or(self.argv);
        let none = self.argv.is_empty();
        argv.split(|&b| b == 0).filter(move |_| !none)
    }
}

/// A process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 0 when a signal ended it.
    pub code: u8,
    /// Signal; 0 when it exited by itself.
    pub signal: u8,
    /// Dumped core.
    pub core: bool,
    /// The OOM killer had chosen it.
    pub oom: bool,
    /// Real user id.
    pub uid: u32,
    /// The process's start, boot time in ns.
    pub start_ns: u64,
    /// Its name.
    pub comm: Comm,
}

/// What was asked of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetOp {
    /// connect(2), also of datagram sockets.
    Connect,
    /// bind(2).
    Bind,
    /// sendto(2) or sendmsg(2) with an address.
    Send,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// Connections in a second.
    PerSecond,
    /// Connections in a minute.
    PerMinute,
    /// Bytes sent in an hour.
    BytesOut,
    /// Bytes received in an hour.
    BytesIn,
}

impl LimitKind {
    /// As the manifest has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerSecond => "connections_per_second",
            Self::PerMinute => "connections_per_minute",
            Self::BytesOut => "bytes_out_per_hour",
            Self::BytesIn => "bytes_in_per_hour",
        }
    }
}

/// A limit of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetLimit {
    /// Of what.
    pub kind: LimitKind,
    /// Of which destination, from 0 as the agent's manifest has them; none: of the agent as a whole.
    pub destination: Option<u8>,
}

impl core::fmt::Display for NetLimit {
    /// Its line in the manifest, below `spec`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("resources.network.")?;
        if let Some(at) = self.destination {
            write!(f, "destinations[{at}].")?;
        }
        f.write_str(self.kind.as_str())
    }
}

/// A connect, bind or send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    /// Which.
    pub op: NetOp,
    /// The address that was asked for.
    pub addr: core::net::SocketAddr,
    /// `IPPROTO_*`: 6 TCP, 17 UDP.
    pub protocol: u32,
    /// Whether it was let through.
    pub verdict: Verdict,
    /// The limit that refused it, if one did.
    pub limit: Option<NetLimit>,
    /// Name of the task.
    pub comm: Comm,
}

/// The OOM killer chose a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oom {
    /// The process that is killed.
    pub victim: u32,
}

/// How a change of privileges was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrivSource {
    /// By an exec that gained privileges.
    Exec,
    /// By a system call of this number that succeeded (modes `count`, `latency`, `full`).
    Syscall(u32),
    /// By the LSM hook `task_fix_setuid`.
    SetUid,
    /// By the LSM hook `capset`.
    CapSet,
}

/// User ids or capabilities changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrivChange {
    /// How it was seen.
    pub source: PrivSource,
    /// Before, where it is known (LSM hooks), else the same as `new`.
    pub old: Credentials,
    /// After.
    pub new: Credentials,
    /// Name of the task.
    pub comm: Comm,
}

/// A file was opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOpen<'a> {
    /// The path: resolved by the kernel in the agent's root, or as the caller wrote it (`raw`).
    pub path: &'a [u8],
    /// The path is as the caller wrote it: relative perhaps, and perhaps changed meanwhile.
    pub raw: bool,
    /// The path is longer than what the record holds.
    pub truncated: bool,
    /// Inode, 0 when not known.
    pub inode: u64,
    /// Device, 0 when not known.
    pub dev: u32,
    /// `open(2)` flags.
    pub flags: u32,
}

/// A system call that returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syscall {
    /// Its number.
    pub nr: u32,
    /// What it returned; negative errno on failure.
    pub ret: i64,
    /// Its first four arguments.
    pub args: [u64; 4],
}

/// A security hook refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedHook {
    /// The hook's name, as the kernel has it.
    pub hook: &'static str,
    /// The error that the caller got.
    pub errno: u32,
    /// What was asked: bpf command, ptrace mode, target pid, mount flags; of withheld files the rule's number.
    pub detail: u64,
    /// Name of the task.
    pub comm: Comm,
}

impl DeniedHook {
    /// Whether it was refused because files or programs are withheld: then `detail` is a rule's number.
    #[must_use]
    pub fn is_of_withheld(&self) -> bool {
        matches!(self.hook, "file_open" | "bprm_check_security") || self.hook.starts_with("path_")
    }
}

/// A device was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedDevice {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
    /// A block device, as disks are; else a character device.
    pub block: bool,
    /// It was to be opened for reading.
    pub read: bool,
    /// It was to be opened for writing.
    pub write: bool,
    /// A node of it was to be made.
    pub mknod: bool,
    /// Name of the task.
    pub comm: Comm,
}
