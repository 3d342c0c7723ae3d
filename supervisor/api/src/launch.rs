//! From a checked manifest to what the launcher is asked for. Everything is decided here once, at registration; a
//! start adds only the incarnation and the secrets.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, AuditMode, Mode, Network, NetworkLimit, RestartPolicy, Rootfs};
use aion_store::{RestartMode, RestartRule};
use aion_types::{AgentId, ErrorCode, TenantId};

use crate::problem::{Outcome, Problem};

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest pause between two restarts.
const MAX_BACKOFF_MS: u64 = 60_000;
/// The largest secret.
const MAX_SECRET: u64 = 64 << 10;

/// The size of a terminal at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u32,
    pub(crate) cols: u32,
}

impl Size {
    /// What terminals can be; 24 by 80 for a client that does not say.
    pub(crate) fn new(rows: u32, cols: u32) -> Self {
        let sane = |n: u32, default: u32| if n == 0 { default } else { n.min(4096) };
        Self { rows: sane(rows, 24), cols: sane(cols, 80) }
    }
}

/// The launch of an agent, without incarnation and secrets.
pub(crate) fn plan(spec: &AgentSpec, tenant: &TenantId, id: &AgentId, size: Size) -> launcher::Launch {
    let resources = &spec.resources;
    launcher::Launch {
        id: id.to_string(),
        tenant: tenant.to_string(),
        name: spec.name.to_string(),
        incarnation: 0,
        argv: spec.argv.iter().map(|arg| arg.clone().into_bytes()).collect(),
        env: environment(spec, id),
        cwd: b"/workspace".to_vec(),
        rootfs: Some(launcher::Rootfs {
            kind: Some(match &spec.rootfs {
                Rootfs::Host => launcher::rootfs::Kind::HostSystem(launcher::Empty {}),
                Rootfs::Directory(path) => launcher::rootfs::Kind::Directory(bytes(path)),
            }),
        }),
        workspace: Some(launcher::Workspace {
            kind: Some(match &spec.workspace.directory {
                None => launcher::workspace::Kind::Managed(launcher::Empty {}),
                Some(path) => launcher::workspace::Kind::Directory(bytes(path)),
            }),
            read_only: spec.workspace.read_only,
        }),
        binds: spec
            .binds
            .iter()
            .map(|bind| launcher::Bind { path: bytes(&bind.path), writable: bind.writable })
            .collect(),
        network: match spec.network {
            Network::None => launcher::Network::None.into(),
            Network::Host => launcher::Network::Host.into(),
            Network::Egress => launcher::Network::Egress.into(),
        },
        limits: Some(launcher::Limits {
            cpu_millis: resources.cpu.0,
            mem_bytes: resources.mem.0,
            pids: resources.pids,
            // The limit is a managed workspace's; a folder of the host has none of its own to set.
            disk_bytes: if spec.workspace.directory.is_some() { 0 } else { resources.disk.0 },
            file_size_bytes: resources.file_size.0,
            open_files: resources.open_files,
            wall_ms: spec.wall_ms().unwrap_or(0),
            cpu_weight: spec.cpu_weight(),
            io_weight: resources.io_weight,
            io_read_bps: resources.io_read_bps.map_or(0, |bps| bps.0),
            io_write_bps: resources.io_write_bps.map_or(0, |bps| bps.0),
        }),
        seccomp_profile: spec.seccomp_profile.clone(),
        restrict_exec: spec.restrict_exec(),
        exec_allow: spec.exec_allow().iter().map(|path| bytes(path)).collect(),
        audit: audit_mode(spec.audit).into(),
        audit_strict: spec.audit_strict,
        allow_degraded: spec.allow_degraded.iter().map(|layer| layer.as_str().to_owned()).collect(),
        tty: spec.tty,
        rows: if spec.tty { size.rows } else { 0 },
        cols: if spec.tty { size.cols } else { 0 },
        // Names only until the start: values are never stored.
        secrets: spec
            .secrets
            .iter()
            .map(|name| launcher::Secret { name: name.clone(), value: Vec::new() })
            .collect(),
        hostname: spec.hostname.clone(),
        log_max_bytes: spec.log_max.map_or(0, |max| max.0),
        door: spec.has_door(),
        job: None,
        stdio: false,
        stdin: false,
        egress: spec.egress(),
        network_limits: network_limits(spec),
        devices: spec
            .devices
            .iter()
            .map(|device| launcher::Device { path: bytes(&device.path), writable: device.writable })
            .collect(),
    }
}

/// None where nothing is limited: such an agent costs the kernel nothing.
fn network_limits(spec: &AgentSpec) -> Option<launcher::NetworkLimits> {
    let limits = &spec.resources.network;
    if limits.is_none() {
        return None;
    }
    let destination = |(to, limit): &(String, NetworkLimit)| launcher::DestinationLimit {
        to: to.clone(),
        limit: Some(network_limit(*limit)),
    };
    Some(launcher::NetworkLimits {
        all: Some(network_limit(limits.whole)),
        destinations: limits.destinations.iter().map(destination).collect(),
        account: String::new(),
    })
}

fn network_limit(limit: NetworkLimit) -> launcher::NetworkLimit {
    let rate = |per_minute| {
        limit.connections.filter(|rate| rate.per_minute == per_minute).map_or(0, |rate| rate.count)
    };
    launcher::NetworkLimit {
        bytes_out_per_hour: limit.bytes_out_per_hour.map_or(0, |size| size.0),
        bytes_in_per_hour: limit.bytes_in_per_hour.map_or(0, |size| size.0),
        connections_per_second: rate(false),
        connections_per_minute: rate(true),
        connections_burst: limit.connections.map_or(0, |rate| rate.burst),
    }
}

/// Gives a launch with a network what it may use of it at most, where its manifest does not say.
pub(crate) fn limit_network(plan: &mut launcher::Launch, most: NetworkLimit) {
    if plan.network() == launcher::Network::None || most == NetworkLimit::default() {
        return;
    }
    let most = network_limit(most);
    let all = plan.network_limits.get_or_insert_default().all.get_or_insert_default();
    if all.bytes_out_per_hour == 0 {
        all.bytes_out_per_hour = most.bytes_out_per_hour;
    }
    if all.bytes_in_per_hour == 0 {
        all.bytes_in_per_hour = most.bytes_in_per_hour;
    }
    if all.connections_per_second == 0 && all.connections_per_minute == 0 {
        all.connections_per_second = most.connections_per_second;
        all.connections_per_minute = most.connections_per_minute;
        all.connections_burst = most.connections_burst;
    }
}

/// The environment, built from nothing; the manifest's own entries come last and win, but for AION's two.
fn environment(spec: &AgentSpec, id: &AgentId) -> Vec<Vec<u8>> {
    let mut env = std::collections::BTreeMap::new();
    env.insert("PATH".to_owned(), PATH.to_owned());
    env.insert("HOME".to_owned(), "/workspace".to_owned());
    env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    if spec.tty {
        env.insert("TERM".to_owned(), "xterm-256color".to_owned());
    }
    env.extend(spec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.insert("AION_AGENT_ID".to_owned(), id.to_string());
    if spec.has_door() {
        env.insert("AION_RUNTIME_SOCKET".to_owned(), "/run/aion/kernel.sock".to_owned());
        // The socket is for system calls, too: whether tasks come through it an SDK cannot see.
        let tasks = spec.mode == Mode::Service && spec.tasks.is_some();
        env.insert("AION_SERVES_TASKS".to_owned(), u8::from(tasks).to_string());
    }
    env.insert("AION_AGENT_NAME".to_owned(), spec.name.to_string());
    env.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

const fn audit_mode(mode: AuditMode) -> launcher::AuditMode {
    match mode {
        AuditMode::Events => launcher::AuditMode::Events,
        AuditMode::Count => launcher::AuditMode::Count,
        AuditMode::Latency => launcher::AuditMode::Latency,
        AuditMode::Full => launcher::AuditMode::Full,
    }
}

/// What workspace it has, for people: a folder of the host, or `managed`.
pub(crate) fn workspace_word(spec: &AgentSpec) -> String {
    let directory = spec.workspace.directory.as_ref();
    directory.map_or_else(|| "managed".to_owned(), |path| path.to_string_lossy().into_owned())
}

/// The word for people.
pub(crate) fn audit_word(spec: &AgentSpec) -> String {
    let word = match spec.audit {
        AuditMode::Events => "events",
        AuditMode::Count => "count",
        AuditMode::Latency => "latency",
        AuditMode::Full => "full",
    };
    if spec.audit_strict { format!("{word}, strict") } else { word.to_owned() }
}

/// The restart policy as the record keeps it.
pub(crate) fn restart_rule(spec: &AgentSpec) -> RestartRule {
    RestartRule {
        mode: match spec.restart.policy {
            RestartPolicy::Never => RestartMode::Never,
            RestartPolicy::OnFailure => RestartMode::OnFailure,
            RestartPolicy::Always => RestartMode::Always,
        },
        max_restarts: spec.restart.max_restarts,
        backoff_ms: spec.restart.backoff_ms,
        max_backoff_ms: MAX_BACKOFF_MS.max(spec.restart.backoff_ms),
    }
}

/// Puts the values of the secrets in, from `STATE/secrets`.
pub(crate) fn fill_secrets(launch: &mut launcher::Launch, state: &Path) -> Outcome<()> {
    for secret in &mut launch.secrets {
        secret.value = read_secret(&state.join("secrets"), &secret.name)?;
    }
    Ok(())
}

fn read_secret(folder: &Path, name: &str) -> Outcome<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    use std::io::Read as _;

    let missing = |why: String| {
        Problem::new(ErrorCode::SecretNotFound, format!("secret {name:?}: {why}"))
            .with("field", "spec.secrets")
            .hint(format!("put it into the state folder as secrets/{name}, readable by aiond's user only"))
    };
    // The manifest has checked the name; this is what makes it safe here, whoever calls.
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !plain {
        return Err(missing("not a secret's name".to_owned()));
    }
    let path: PathBuf = folder.join(name);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| missing(errno.to_string()))?;
    let file = std::fs::File::from(fd);
    let meta = file.metadata().map_err(|error| missing(error.to_string()))?;
    if !meta.is_file() {
        return Err(missing("it is not a file".to_owned()));
    }
    if meta.len() > MAX_SECRET {
        return Err(Problem::new(ErrorCode::TooLarge, format!("secret {name:?} has {} bytes", meta.len()))
            .hint(format!("a secret has at most {MAX_SECRET} bytes")));
    }
    let mut value = Vec::new();
    file.take(MAX_SECRET).read_to_end(&mut value).map_err(|error| missing(error.to_string()))?;
    Ok(value)
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use aion_manifest::{ConnectionRate, Context, Overrides};
    use aion_types::ByteSize;

    use super::*;

    fn spec(yaml: &str) -> AgentSpec {
        let text = format!("apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: x}}\nspec:\n{yaml}");
        AgentSpec::parse(text.as_bytes(), "agent.yml", Overrides::default(), &Context::builtin()).unwrap()
    }

    fn planned(yaml: &str) -> launcher::Launch {
        let id = AgentId::from_parts(5, 5);
        plan(&spec(yaml), &TenantId::parse("default").unwrap(), &id, Size::new(0, 0))
    }

    #[test]
    fn the_environment_comes_from_nothing() {
        let launch = planned("  entry: [env]\n  env: {LANG: de, X: '1'}\n");
        let env: Vec<String> = launch.env.iter().map(|e| String::from_utf8(e.clone()).unwrap()).collect();
        let id = AgentId::from_parts(5, 5);
        assert!(
            env.contains(&format!("AION_AGENT_ID={id}")) && env.contains(&"AION_AGENT_NAME=x".to_owned())
        );
        assert!(env.contains(&"LANG=de".to_owned()) && env.contains(&"X=1".to_owned()));
        assert!(env.contains(&"HOME=/workspace".to_owned()));
        assert_eq!(env.len(), 6, "{env:?}");
    }

    #[test]
    fn limits_and_modes_are_passed_on() {
        let launch = planned(
            "  entry: [sleep, '1']\n  timeout_ms: 5000\n  tty: true\n  resources: {cpu: 250m, mem: 64Mi, pids: 9}\n  audit: latency\n",
        );
        let limits = launch.limits.unwrap();
        assert_eq!((limits.cpu_millis, limits.mem_bytes, limits.pids), (250, 64 << 20, 9));
        assert_eq!(limits.wall_ms, 5000);
        assert_eq!(launch.audit(), launcher::AuditMode::Latency);
        assert!(launch.tty && launch.rows == 24 && launch.cols == 80);
        assert!(launch.env.iter().any(|e| e.starts_with(b"TERM=")));
        assert_eq!(launch.argv, [b"sleep".to_vec(), b"1".to_vec()]);
    }

    #[test]
    fn limits_of_the_network_are_passed_on_where_there_are_some() {
        assert_eq!(planned("  entry: [x]\n").network_limits, None);
        let limits = planned(
            "  entry: [x]\n  network: egress\n  capabilities: ['net:connect:a.example:443']\n  resources:\n    network: {connections_per_minute: 9, destinations: [{to: 'a.example:443', bytes_out_per_hour: 1Mi}]}\n",
        )
        .network_limits
        .unwrap();
        let all = limits.all.unwrap();
        assert_eq!(
            (all.connections_per_second, all.connections_per_minute, all.connections_burst),
            (0, 9, 9)
        );
        let one = &limits.destinations[0];
        assert_eq!(
            (one.to.as_str(), one.limit.as_ref().unwrap().bytes_out_per_hour),
            ("a.example:443", 1 << 20)
        );
    }

    #[test]
    fn who_names_no_limit_has_the_operator_s() {
        let rate = ConnectionRate { count: 5, per_minute: false, burst: 9 };
        let most = NetworkLimit {
            bytes_out_per_hour: Some(ByteSize(1 << 30)),
            bytes_in_per_hour: None,
            connections: Some(rate),
        };
        let limited = |spec: &str, most: NetworkLimit| {
            let mut plan = planned(&format!("  entry: [x]\n{spec}"));
            limit_network(&mut plan, most);
            plan.network_limits.and_then(|limits| limits.all)
        };
        let egress = "  network: egress\n  capabilities: ['net:connect:a.example:443']\n";
        let all = limited(egress, most).unwrap();
        assert_eq!((all.bytes_out_per_hour, all.bytes_in_per_hour), (1 << 30, 0));
        assert_eq!((all.connections_per_second, all.connections_burst), (5, 9));
        let own = "  resources: {network: {bytes_out_per_hour: 1Mi, connections_per_minute: 7}}\n";
        let all = limited(&format!("{egress}{own}"), most).unwrap();
        assert_eq!((all.bytes_out_per_hour, all.connections_per_second), (1 << 20, 0));
        assert_eq!((all.connections_per_minute, all.connections_burst), (7, 7));
        assert_eq!(limited("", most), None, "without a network there is nothing to limit");
        assert_eq!(limited(egress, NetworkLimit::default()), None);
    }

    #[test]
    fn programs_that_are_named_are_all_that_may_be_executed() {
        let of = |capabilities: &str| {
            let launch = planned(&format!("  entry: [sh]\n  capabilities: {capabilities}\n"));
            (launch.restrict_exec, launch.exec_allow.len())
        };
        assert_eq!(of("[]"), (true, 0));
        assert_eq!(of("[\"exec:/usr/bin/git\"]"), (true, 1));
        assert_eq!(of("[subprocess]"), (false, 0));
    }

    #[test]
    fn secrets_are_read_at_the_start_and_only_plain_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("secrets")).unwrap();
        std::fs::write(dir.path().join("secrets/token"), "abc").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("secrets/link")).unwrap();
        let mut launch = launcher::Launch::default();
        let named = |name: &str| launcher::Secret { name: name.to_owned(), value: Vec::new() };
        launch.secrets = vec![named("token")];
        fill_secrets(&mut launch, dir.path()).unwrap();
        assert_eq!(launch.secrets[0].value, b"abc");
        for bad in ["link", "none", "../secrets/token", ".", ""] {
            launch.secrets = vec![named(bad)];
            let problem = fill_secrets(&mut launch, dir.path()).unwrap_err();
            assert_eq!(problem.code(), ErrorCode::SecretNotFound, "{bad}");
        }
    }
}
