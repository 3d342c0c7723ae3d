//! The plan: all that init does for one agent, decided beforehand by the launcher.
//!
//! A plan is data. Each layer that init sets up is a field of its own which a test can leave out; the
//! launcher fills all of them. Descriptors travel beside the plan (`LaunchFds`).

use std::fmt;

/// What init does for one agent. [`Plan::new`] has every layer at its strictest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The command; the first is looked for in `PATH` of `env` when it has no `/`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value`; the whole environment.
    pub env: Vec<Vec<u8>>,
    /// Working directory inside.
    pub cwd: Vec<u8>,
    /// The sandbox's host name.
    pub hostname: String,
    /// The agent's user inside. 0 is for tests that leave layers out.
    pub uid: u32,
    /// The agent's group inside.
    pub gid: u32,
    /// Which root.
    pub rootfs: RootfsKind,
    /// Size of `/tmp`, `/run` and `/dev/shm` together; they count towards the memory limit.
    pub scratch_bytes: u64,
    /// Inodes of the same.
    pub scratch_inodes: u32,
    /// Whether the workspace is shown read-only. For the report: the mount itself says it.
    pub workspace_read_only: bool,
    /// Where the mounts of `LaunchFds::binds` go, in the same order.
    pub binds: Vec<BindTarget>,
    /// Whether `/dev` is the agent's own, from `LaunchFds::devices`, and not the one that sandboxes share.
    pub devices: bool,
    /// Files in `/run/secrets`.
    pub secrets: Vec<Secret>,
    /// A terminal instead of pipes.
    pub tty: Option<WindowSize>,
    /// Layer `session`: an anonymous session keyring, no inherited descriptor.
    pub session: bool,
    /// Layer `rlimits`.
    pub rlimits: Option<Vec<Rlimit>>,
    /// Layer `capabilities`: all sets emptied.
    pub drop_capabilities: bool,
    /// Layer `no-new-privs`.
    pub no_new_privs: bool,
    /// Layer `landlock`.
    pub landlock: Option<Landlock>,
    /// Layer `seccomp`.
    pub seccomp: Option<Seccomp>,
    /// Added to the agent's badness, so that the kernel prefers it to init when memory runs out.
    pub oom_score_adj: i16,
    /// Limit of the journal in bytes, 0 for none.
    pub journal_limit: u64,
    /// For the journal's start record.
    pub incarnation: u32,
    /// Whether [`DOOR`] is shown, from `LaunchFds::door`.
    pub door: bool,
    /// One attempt of a task, with `LaunchFds::job`.
    pub job: Option<Job>,
}

impl Plan {
    /// A plan with every layer that needs no further data: the launcher adds `seccomp`.
    #[must_use]
    pub fn new(argv: Vec<Vec<u8>>) -> Self {
        Self {
            argv,
            env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec()],
            cwd: b"/workspace".to_vec(),
            hostname: "agent".to_owned(),
            uid: 1000,
            gid: 1000,
            rootfs: RootfsKind::HostSystem,
            scratch_bytes: 64 << 20,
            scratch_inodes: 65_536,
            workspace_read_only: false,
            binds: Vec::new(),
            devices: false,
            secrets: Vec::new(),
            tty: None,
            session: true,
            rlimits: Some(Rlimit::defaults()),
            drop_capabilities: true,
            no_new_privs: true,
            landlock: Some(Landlock::default()),
            seccomp: None,
            oom_score_adj: 500,
            journal_limit: 64 << 20,
            incarnation: 0,
            door: false,
            job: None,
        }
    }
}

/// Where an agent finds aiond's socket.
pub const DOOR: &str = "/run/aion";
/// The folder of a job's task: a file system in memory that belongs to the agent.
pub const TASK_FOLDER: &str = "/run/task";
/// Where a job leaves its checkpoint, and finds the last one.
pub const CHECKPOINT_FOLDER: &str = "/run/task/checkpoint";
/// Where a job leaves its result.
pub const RESULT_FILE: &str = "/run/task/result";
/// The largest checkpoint.
pub const MAX_CHECKPOINT: u64 = 1 << 30;

/// One attempt of a task, in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// The largest checkpoint, packed.
    pub checkpoint_max: u64,
    /// Whether a checkpoint is unpacked before the process starts: `JobFds::restore`.
    pub restore: bool,
}

/// Where the agent's root comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootfsKind {
    /// The host's `/usr`, read-only, and an `/etc` of our own.
    HostSystem,
    /// The mount in `LaunchFds::rootfs`.
    Directory,
}

/// Where a mount from outside goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTarget {
    /// Absolute path inside, without `.`, `..` or doubled slashes.
    pub path: Vec<u8>,
    /// Whether the agent may write to it.
    pub writable: bool,
    /// Whether it is a folder (else a file), for the mount point.
    pub directory: bool,
}

/// A secret: becomes `/run/secrets/NAME`, mode 0400.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// A file name.
    pub name: String,
    /// What it holds.
    pub value: Vec<u8>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Of what.
    pub resource: Resource,
    /// Soft limit; lowered to the hard limit that init itself has.
    pub soft: u64,
    /// Hard limit; likewise.
    pub hard: u64,
}

/// What a resource limit is about. The numbers are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Resource {
    /// Seconds of processor time.
    Cpu = 0,
    /// Size of a file.
    FileSize = 1,
    /// Size of a core dump.
    Core = 4,
    /// Processes of the user.
    Processes = 6,
    /// Open files.
    OpenFiles = 7,
    /// Locked memory.
    LockedMemory = 8,
    /// Address space.
    AddressSpace = 9,
    /// Pending signals.
    PendingSignals = 11,
    /// Bytes in POSIX message queues.
    MessageQueues = 12,
    /// Ceiling of the nice value.
    Nice = 13,
    /// Real-time priority.
    RealTimePriority = 14,
}

impl Resource {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Cpu,
        Self::FileSize,
        Self::Core,
        Self::Processes,
        Self::OpenFiles,
        Self::LockedMemory,
        Self::AddressSpace,
        Self::PendingSignals,
        Self::MessageQueues,
        Self::Nice,
        Self::RealTimePriority,
    ];

    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| *r as u8 == value)
    }
}

impl Rlimit {
    /// What every agent gets unless its manifest says otherwise.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let both = |resource, value| Self { resource, soft: value, hard: value };
        vec![
            Self { resource: Resource::OpenFiles, soft: 1024, hard: 4096 },
            both(Resource::Core, 0),
            both(Resource::LockedMemory, 64 << 10),
            both(Resource::MessageQueues, 64 << 10),
            both(Resource::PendingSignals, 1024),
            both(Resource::Nice, 0),
            both(Resource::RealTimePriority, 0),
        ]
    }
}

/// The Landlock domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landlock {
    /// Only the entry program, its interpreters and `exec_allow` may be executed.
    pub restrict_exec: bool,
    /// Further files or folders inside that may be executed, absolute.
    pub exec_allow: Vec<Vec<u8>>,
    /// No TCP at all, where the kernel can (ABI 4).
    pub deny_tcp: bool,
    /// Goes on, reported as degraded, where the kernel has no Landlock.
    pub allow_degraded: bool,
}

impl Default for Landlock {
    fn default() -> Self {
        Self { restrict_exec: false, exec_allow: Vec::new(), deny_tcp: true, allow_degraded: false }
    }
}

/// The seccomp filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seccomp {
    /// Its name, for the report.
    pub profile: String,
    /// `struct sock_filter` after `struct sock_filter`, as compiled for this machine.
    pub program: Vec<u8>,
    /// For a program that returns `SECCOMP_RET_USER_NOTIF`: what init answers. A call that is not in
    /// the table gets EPERM. `None`: the filter is loaded without a listener.
    pub notify: Option<Vec<NotifyRule>>,
}

impl Seccomp {
    /// Puts a refusal of memory files (memfd) in front: for kernels where their execution cannot be forbidden.
    pub fn refuse_memory_files(&mut self) {
        let mut program = aion_sys::memory_files::denial(self.notify.is_some());
        program.append(&mut self.program);
        self.program = program;
        if let Some(rules) = self.notify.as_mut() {
            let nr = aion_sys::memory_files::create_number();
            rules.retain(|r| r.nr != nr);
            rules.push(NotifyRule { nr, errno: rustix::io::Errno::PERM.raw_os_error() });
        }
    }
}

/// What init answers to a call that the filter notifies of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifyRule {
    /// The system call's number.
    pub nr: u32,
    /// The errno it gets.
    pub errno: i32,
}
