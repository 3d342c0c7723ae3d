//! A launch, checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aion_egress::Rules;
use aion_launcher_proto::v1;
use aion_probes::AuditMode;
use aion_sandbox::{NetworkMode, Secret, WindowSize};
use aion_types::{AgentId, AgentName, LayerName, TenantId};

use crate::Failure;
use crate::request::devices::{Device, devices};
use crate::request::field::{self, Checked};
use crate::request::{Job, Limits, NetworkLimits};

const MAX_BINDS: usize = 64;
const MAX_EXEC_RULES: usize = 1024;
const MAX_SECRETS: usize = 256;
const MIN_LOG: u64 = 64 << 10;
/// As in the manifest.
const MAX_LOG: u64 = 64 << 30;
/// What every agent's journal may hold when nothing else was asked.
const DEFAULT_LOG: u64 = 64 << 20;

/// Everything about an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its identity.
    pub id: AgentId,
    /// Whose.
    pub tenant: TenantId,
    /// Its name.
    pub name: AgentName,
    /// How often it was restarted.
    pub incarnation: u32,
    /// The command.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment.
    pub env: Vec<Vec<u8>>,
    /// Where it starts, inside.
    pub cwd: PathBuf,
    /// Its root.
    pub rootfs: Rootfs,
    /// Its workspace.
    pub workspace: Workspace,
    /// Further folders and files of the host.
    pub binds: Vec<Bind>,
    /// Character devices of the host.
    pub devices: Vec<Device>,
    /// Its network.
    pub network: NetworkMode,
    /// Whom it reaches with mode `egress`.
    pub egress: Rules,
    /// What it may use of its network.
    pub network_limits: Option<NetworkLimits>,
    /// What it may use.
    pub limits: Limits,
    /// Its seccomp profile.
    pub seccomp_profile: String,
    /// Only the entry may be executed, and `exec_allow`.
    pub restrict_exec: bool,
    /// Paths inside that may be executed.
    pub exec_allow: Vec<PathBuf>,
    /// What is recorded of its system calls.
    pub audit: AuditMode,
    /// No record may be lost.
    pub audit_strict: bool,
    /// Layers that may be less than asked.
    pub allow_degraded: BTreeSet<LayerName>,
    /// A terminal instead of pipes.
    pub tty: Option<WindowSize>,
    /// Files in `/run/secrets`.
    pub secrets: Vec<Secret>,
    /// Its host name.
    pub hostname: String,
    /// Limit of its journal.
    pub log_max_bytes: u64,
    /// Whether it sees aiond's socket for it.
    pub door: bool,
    /// One attempt of a task.
    pub job: Option<Job>,
    /// What comes with the launch as standard input.
    pub input: Input,
    /// Limits that were asked for and are above this launcher's ceilings.
    pub lowered: Vec<&'static str>,
}

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// The host's `/usr`.
    HostSystem,
    /// A folder of the host.
    Directory(PathBuf),
}

/// The workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Where it comes from.
    pub kind: WorkspaceKind,
    /// Whether the agent may write to it.
    pub read_only: bool,
}

/// Where the workspace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceKind {
    /// A volume of its own.
    Managed,
    /// An empty folder in memory.
    Memory,
    /// A folder of the host.
    Directory(PathBuf),
}

/// What comes with a launch as standard input. A job has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing: it is empty, or the terminal's, or the job's.
    None,
    /// A file in memory that nobody can change any more.
    File,
    /// A pipe, and another for standard output.
    Pipes,
}

impl Input {
    /// How many descriptors it takes.
    pub(crate) fn fds(self) -> usize {
        match self {
            Self::None => 0,
            Self::File => 1,
            Self::Pipes => 2,
        }
    }
}

/// A folder or file of the host, shown at the same path inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Its path.
    pub path: PathBuf,
    /// Whether the agent may write to it.
    pub writable: bool,
}

impl Launch {
    /// Checks a launch, field by field.
    ///
    /// # Errors
    /// `INVALID_FIELD` with the first field that is wrong.
    pub fn check(launch: &v1::Launch) -> Checked<Self> {
        field::command(&launch.argv)?;
        field::environment(&launch.env)?;
        let cwd: &[u8] = if launch.cwd.is_empty() { b"/workspace" } else { &launch.cwd };
        field::file_name("seccomp_profile", &launch.seccomp_profile)?;
        if launch.exec_allow.len() > MAX_EXEC_RULES {
            return Err(Failure::field("exec_allow", format!("more than {MAX_EXEC_RULES} rules")));
        }
        let exec_allow =
            launch.exec_allow.iter().map(|p| field::path("exec_allow", p)).collect::<Checked<_>>()?;
        let log_max_bytes = match launch.log_max_bytes {
            0 => DEFAULT_LOG,
            n @ MIN_LOG..=MAX_LOG => n,
            n => {
                let why = format!("{n} is not within {MIN_LOG} and {MAX_LOG} (0 is the default)");
                return Err(Failure::field("log_max_bytes", why));
            }
        };
        let id = field::agent_id(&launch.id)?;
        let egress = egress(launch)?;
        let network_limits = NetworkLimits::check(launch, &id, &egress)?;
        let destinations = network_limits.iter().flat_map(|limits| &limits.destinations);
        let egress = egress.counting(destinations.map(|one| one.to.clone()).collect());
        Ok(Self {
            id,
            tenant: field::tenant(&launch.tenant)?,
            name: field::agent_name(&launch.name)?,
            incarnation: launch.incarnation,
            argv: launch.argv.clone(),
            env: launch.env.clone(),
            cwd: field::folder_inside("cwd", cwd)?,
            rootfs: rootfs(launch.rootfs.as_ref())?,
            workspace: workspace(launch.workspace.as_ref(), is_tool(&launch.name, &launch.id))?,
            binds: binds(&launch.binds)?,
            devices: devices(&launch.devices)?,
            network: network(launch.network)?,
            egress,
            network_limits,
            limits: Limits::check(launch.limits.as_ref().unwrap_or(&v1::Limits::default()))?,
            seccomp_profile: launch.seccomp_profile.clone(),
            restrict_exec: launch.restrict_exec,
            exec_allow,
            audit: audit(launch.audit)?,
            audit_strict: launch.audit_strict,
            allow_degraded: layers(&launch.allow_degraded)?,
            tty: launch.tty.then(|| window(launch.rows, launch.cols)).transpose()?,
            secrets: secrets(&launch.secrets)?,
            hostname: hostname(launch)?,
            log_max_bytes,
            door: launch.door,
            job: launch.job.as_ref().map(|job| Job::check(job, launch)).transpose()?,
            input: input(launch)?,
            lowered: Vec::new(),
        })
    }

    /// Whether it is one run of a tool.
    #[must_use]
    pub fn is_tool(&self) -> bool {
        is_tool(self.name.as_str(), self.id.as_str())
    }

    /// Whether a layer may be less than asked.
    #[must_use]
    pub fn may_degrade(&self, layer: LayerName) -> bool {
        self.allow_degraded.contains(&layer)
    }
}

fn rootfs(rootfs: Option<&v1::Rootfs>) -> Checked<Rootfs> {
    use v1::rootfs::Kind;
    match rootfs.and_then(|r| r.kind.as_ref()) {
        Some(Kind::HostSystem(_)) => Ok(Rootfs::HostSystem),
        Some(Kind::Directory(path)) => Ok(Rootfs::Directory(host_folder("rootfs", path, Use::Read)?)),
        None => Err(Failure::field("rootfs", "it is not set")),
    }
}

/// A run of a tool is called after its id, as no agent can be.
fn is_tool(name: &str, id: &str) -> bool {
    name.strip_prefix("tool-").is_some_and(|rest| rest == id.to_lowercase())
}

/// The folder of an installed tool lies in the state folder, wherever that is. Which folder that is the launch itself checks.
fn workspace(workspace: Option<&v1::Workspace>, is_tool: bool) -> Checked<Workspace> {
    use v1::workspace::Kind;
    let given = workspace.ok_or_else(|| Failure::field("workspace", "it is not set"))?;
    let kind = match given.kind.as_ref() {
        Some(Kind::Managed(_)) => WorkspaceKind::Managed,
        Some(Kind::Memory(_)) => WorkspaceKind::Memory,
        Some(Kind::Directory(path)) if is_tool && given.read_only => {
            WorkspaceKind::Directory(field::path("workspace", path)?)
        }
        Some(Kind::Directory(path)) => WorkspaceKind::Directory(host_folder("workspace", path, Use::Own)?),
        None => {
            return Err(Failure::field("workspace", "it is neither managed, nor in memory, nor a directory"));
        }
    };
    Ok(Workspace { kind, read_only: given.read_only })
}

/// What an agent gets of a host folder.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its files, read-only, as any user of the host would see them.
    Read,
    /// Also writing.
    Write,
    /// All its files as if they were the agent's own.
    Own,
}

/// Belong to the kernel or to the host's daemons.
const NEVER: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run", "/boot"];
/// May be read, and are never written or owned.
const SYSTEM: &[&str] = &[
    "/usr",
    "/etc",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/var/lib",
    "/var/spool",
    "/var/log",
    "/var/cache",
];
/// Hold what is above, or everybody's secrets; single folders in them may be given.
const TOO_MUCH: &[&str] = &["/", "/var", "/root", "/home"];

/// The same rules as in the manifest, once more: a taken-over aiond must not get at the host through a workspace.
/// Links cannot lead around them, because paths are opened without following any.
fn host_folder(field: &str, bytes: &[u8], how: Use) -> Checked<PathBuf> {
    let path = field::path(field, bytes)?;
    let below = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let refuse = |why: &str| Err(Failure::field(field, format!("{}: {why}", path.display())));
    if path.parent().is_none()
        || (how != Use::Read && TOO_MUCH.iter().any(|folder| path == Path::new(folder)))
    {
        return refuse("it holds more of the host than an agent may have");
    }
    if below(NEVER) {
        return refuse("it belongs to the kernel or to the host's daemons");
    }
    if how != Use::Read && below(SYSTEM) {
        return refuse("the host's system is never given to an agent to write");
    }
    Ok(path)
}

fn binds(binds: &[v1::Bind]) -> Checked<Vec<Bind>> {
    if binds.len() > MAX_BINDS {
        return Err(Failure::field(
            "binds",
            format!("{} binds, at most {MAX_BINDS} are allowed", binds.len()),
        ));
    }
    let check = |b: &v1::Bind| {
        let how = if b.writable { Use::Write } else { Use::Read };
        Ok(Bind { path: host_folder("binds", &b.path, how)?, writable: b.writable })
    };
    binds.iter().map(check).collect()
}

fn network(value: i32) -> Checked<NetworkMode> {
    match v1::Network::try_from(value) {
        Ok(v1::Network::None) => Ok(NetworkMode::None),
        Ok(v1::Network::Host) => Ok(NetworkMode::Host),
        Ok(v1::Network::Egress) => Ok(NetworkMode::Egress),
        Err(_) => Err(Failure::field("network", format!("{value} is not a network mode"))),
    }
}

fn egress(launch: &v1::Launch) -> Checked<Rules> {
    if !launch.egress.is_empty() && launch.network() != v1::Network::Egress {
        return Err(Failure::field("egress", "only network mode egress has a list of hosts"));
    }
    Rules::parse(&launch.egress).map_err(|why| Failure::field("egress", why))
}

fn audit(value: i32) -> Checked<AuditMode> {
    match v1::AuditMode::try_from(value) {
        Ok(v1::AuditMode::Events) => Ok(AuditMode::Events),
        Ok(v1::AuditMode::Count) => Ok(AuditMode::Count),
        Ok(v1::AuditMode::Latency) => Ok(AuditMode::Latency),
        Ok(v1::AuditMode::Full) => Ok(AuditMode::Full),
        Err(_) => Err(Failure::field("audit", format!("{value} is not an audit mode"))),
    }
}

fn layers(names: &[String]) -> Checked<BTreeSet<LayerName>> {
    let unknown = |name: &str| {
        let short: String = name.chars().take(40).collect();
        Failure::field("allow_degraded", format!("{short:?} is not a layer"))
    };
    names.iter().map(|n| n.parse().map_err(|()| unknown(n))).collect()
}

pub(crate) fn window(rows: u32, cols: u32) -> Checked<WindowSize> {
    let side = |field: &str, value: u32| {
        u16::try_from(value).map_err(|_| Failure::field(field, format!("{value} is over 65535")))
    };
    Ok(WindowSize { rows: side("rows", rows)?, cols: side("cols", cols)? })
}

fn secrets(secrets: &[v1::Secret]) -> Checked<Vec<Secret>> {
    if secrets.len() > MAX_SECRETS {
        return Err(Failure::field("secrets", format!("more than {MAX_SECRETS} secrets")));
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(secrets.len());
    for secret in secrets {
        field::file_name("secrets", &secret.name)?;
        if !names.insert(&secret.name) {
            return Err(Failure::field("secrets", format!("{} is there twice", secret.name)));
        }
        checked.push(Secret { name: secret.name.clone(), value: secret.value.clone() });
    }
    Ok(checked)
}

/// Labels with dots between them; without one, the agent's name.
fn hostname(launch: &v1::Launch) -> Checked<String> {
    let name = if launch.hostname.is_empty() { &launch.name } else { &launch.hostname };
    let label = |l: &str| AgentName::parse(l).is_ok();
    if name.len() > 64 || !name.split('.').all(label) {
        return Err(Failure::field("hostname", "at most 64 of a-z, 0-9, '-', in labels with '.' between"));
    }
    Ok(name.clone())
}

fn input(launch: &v1::Launch) -> Checked<Input> {
    let (field, input) = match (launch.stdio, launch.stdin) {
        (false, false) => return Ok(Input::None),
        (true, false) => ("stdio", Input::Pipes),
        (false, true) => ("stdin", Input::File),
        (true, true) => return Err(Failure::field("stdin", "stdio brings a standard input already")),
    };
    if launch.tty || launch.job.is_some() {
        return Err(Failure::field(field, "a terminal and a job have a standard input of their own"));
    }
    Ok(input)
}
