//! From what was written to what is meant: defaults, bounds, and what must fit together.
//!
//! A check goes on after a problem, so that a person sees all of them at once. Each names its field; the place comes from the tree.

mod capabilities;
mod devices;
mod files;
mod identity;
mod network_limits;
mod process;
mod resources;
mod tasks;

pub(crate) use identity::is_version;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aion_types::ErrorCode;

use crate::classes::Classes;
use crate::error::{Error, Problem};
use crate::overrides::COMMAND_LINE;
use crate::raw;
use crate::spec::{AgentSpec, MemoryTtl, Restart, Spec};
use crate::yaml::Node;

/// More would not be read.
const MAX_PROBLEMS: usize = 20;

/// What a manifest is checked against.
#[derive(Debug, Clone)]
pub struct Context {
    /// The cgroup classes.
    pub classes: Arc<Classes>,
    /// Folders of AION's own that no agent may see.
    pub private: Vec<PathBuf>,
}

/// What AION keeps in its state folder. Not the folder as a whole: under `.aion` in a project, sample workspaces may lie in it.
const STATE_FOLDERS: [&str; 13] = [
    "run",
    "db",
    "secrets",
    "launcher",
    "agents",
    "audit",
    "audit-archive",
    "volumes",
    "doors",
    "journal",
    "keys",
    "tools",
    "tmp",
];

impl Context {
    /// With the folders of this state folder (absolute) as the private ones.
    #[must_use]
    pub fn new(classes: Classes, state: &Path) -> Self {
        Self { classes: Arc::new(classes), private: STATE_FOLDERS.iter().map(|f| state.join(f)).collect() }
    }

    /// The classes that AION ships, and the state folder of an installed AION.
    #[must_use]
    pub fn builtin() -> Self {
        Self::new(Classes::builtin(), Path::new("/var/lib/aion"))
    }
}

/// Where a problem is collected.
pub(crate) struct Checker<'a> {
    pub(crate) context: &'a Context,
    /// The file's name, and its tree when there is a file.
    file: &'a str,
    tree: Option<&'a Node>,
    /// Fields that came from the command line, with the option that set them.
    overridden: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'a> Checker<'a> {
    /// Something is wrong. `text` is `what is wrong; what to do`.
    pub(crate) fn problem(&mut self, field: &str, text: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let (message, fix) = text.split_once("; ").unwrap_or((text, ""));
        let mut problem = Problem {
            file: self.file.to_owned(),
            place: self.tree.map(|t| t.place_of(field)),
            field: field.to_owned(),
            message: message.to_owned(),
            fix: fix.to_owned(),
        };
        let option = self.overridden.iter().find(|(f, _)| field.starts_with(f.as_str()));
        if let Some((_, option)) = option {
            problem.file = COMMAND_LINE.to_owned();
            problem.place = None;
            problem.field.clone_from(option);
        }
        self.problems.push(problem);
    }

    pub(crate) fn warning(&mut self, text: String) {
        self.warnings.push(text);
    }

    /// The line of a field, 0 when it is in no file.
    pub(crate) fn line(&self, field: &str) -> u64 {
        self.tree.map_or(0, |t| t.place_of(field).line)
    }

    /// Whether the file has this field itself.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.tree.is_some_and(|t| t.find(field).is_some())
    }

    /// The text of a scalar field.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.tree.and_then(|t| t.find(field)).and_then(Node::scalar)
    }

    pub(crate) const fn file(&self) -> &'a str {
        self.file
    }

    /// A number within bounds.
    pub(crate) fn number(
        &mut self,
        field: &str,
        given: Option<u64>,
        default: u64,
        min: u64,
        max: u64,
    ) -> u64 {
        match given {
            None => default,
            Some(n) if (min..=max).contains(&n) => n,
            Some(n) => {
                self.problem(field, &format!("{n} is out of range; use {min} to {max}"));
                default
            }
        }
    }

    /// As [`Checker::number`], for what fits 32 bits.
    pub(crate) fn number32(
        &mut self,
        field: &str,
        given: Option<u64>,
        default: u32,
        min: u32,
        max: u32,
    ) -> u32 {
        let n = self.number(field, given, u64::from(default), u64::from(min), u64::from(max));
        u32::try_from(n).unwrap_or(default)
    }
}

/// Checks a manifest as a whole.
pub(crate) fn check(
    manifest: raw::Manifest,
    context: &Context,
    file: &str,
    tree: Option<&Node>,
    overridden: &BTreeMap<String, String>,
) -> Result<AgentSpec, Error> {
    let mut c = Checker { context, file, tree, overridden, problems: Vec::new(), warnings: Vec::new() };
    let spec = manifest.spec;
    let identity = c.identity(manifest.metadata, spec.hostname);
    let argv = c.entry(spec.entry);
    let mode = spec.mode.unwrap_or(raw::Mode::Job);
    let priority = c.number("spec.priority", spec.priority.map(u64::from), 5, 0, 9);
    let timeout_ms = spec.timeout_ms.map(|ms| c.number("spec.timeout_ms", Some(ms), 1, 1, 31_536_000_000));
    let tasks = c.tasks(mode, spec.tasks, spec.concurrency, spec.checkpoint);
    let memory = c.memory(spec.memory);
    let syscalls = c.syscalls(spec.syscalls.unwrap_or_default());
    let mut limits = spec.resources.unwrap_or_default();
    let network_limits = limits.network.take();
    let mut resources = c.resources(limits);
    let env = c.env(spec.env);
    let secrets = c.secrets(spec.secrets);
    let workspace = c.workspace(spec.workspace);
    let rootfs = c.rootfs(spec.rootfs);
    let restart = c.restart(spec.restart, mode);
    let (audit, audit_strict) = audit(spec.audit);
    let seccomp_profile = c.seccomp_profile(spec.seccomp_profile);
    let (allow, deny) = c.rules(spec.capabilities);
    let network = c.network(spec.network, &allow, &deny);
    resources.network = c.network_limits(network_limits, network, &allow);
    let binds = c.binds(&allow, &deny);
    let exec = c.exec(&allow, &deny);
    let devices = c.devices(&allow, &deny);
    c.gpu(&resources, &allow);
    let mut allow_degraded = spec.allow_degraded;
    allow_degraded.sort_unstable();
    allow_degraded.dedup();
    let stop_grace_ms = c.number("spec.stop_grace_ms", spec.stop_grace_ms, 10_000, 0, 600_000);
    let log_max = c.log_max(spec.log_max);
    let policy_overrides = spec.policy_overrides.unwrap_or_default();
    if let Some(sla) = &policy_overrides.sla {
        c.number("spec.policy_overrides.sla.p95_ms", Some(sla.p95_ms), 1, 1, 3_600_000);
    }
    let quota = c.quota(spec.quota);
    let (Some((name, version, labels, hostname)), true) = (identity, c.problems.is_empty()) else {
        return Err(Error::new(ErrorCode::ManifestInvalid, c.problems));
    };
    Ok(AgentSpec(Arc::new(Spec {
        name,
        version,
        labels,
        argv,
        mode,
        priority: u8::try_from(priority).unwrap_or(5),
        timeout_ms,
        tasks,
        memory,
        allow,
        deny,
        syscalls,
        resources,
        env,
        secrets,
        workspace,
        rootfs,
        network,
        restart,
        audit,
        audit_strict,
        seccomp_profile,
        allow_degraded,
        hostname,
        tty: spec.tty.unwrap_or(false),
        stop_grace_ms,
        log_max,
        policy_overrides,
        quota,
        binds,
        exec,
        devices,
        warnings: c.warnings,
    })))
}

impl Checker<'_> {
    /// A quota of nothing would be an agent that never does anything, and waits for it.
    fn quota(&mut self, given: Option<raw::Quota>) -> raw::Quota {
        let quota = given.unwrap_or_default();
        self.number("spec.quota.max_concurrency", quota.max_concurrency, 1, 1, 1024);
        self.number("spec.quota.token_rate", quota.token_rate, 1, 1, 1 << 53);
        if quota.usd_per_hour.is_some_and(|usd| usd.micros == 0) {
            self.problem(
                "spec.quota.usd_per_hour",
                "it is 0, so nothing could be paid for; leave it out, or write more",
            );
        }
        quota
    }

    fn memory(&mut self, given: Option<raw::Memory>) -> MemoryTtl {
        const TEN_YEARS: u64 = 315_360_000;
        let (short, long, episodic) =
            given.map_or((None, None, None), |m| (m.short_ttl_s, m.long_ttl_s, m.episodic_ttl_s));
        MemoryTtl {
            short_s: self.number("spec.memory.short_ttl_s", short, 3600, 1, TEN_YEARS),
            long_s: self.number("spec.memory.long_ttl_s", long, 1_209_600, 1, TEN_YEARS),
            episodic_s: self.number("spec.memory.episodic_ttl_s", episodic, 259_200, 1, TEN_YEARS),
        }
    }

    fn restart(
        &mut self,
        given: Option<raw::WordOr<raw::RestartPolicy, raw::Restart>>,
        mode: raw::Mode,
    ) -> Restart {
        let default = match mode {
            raw::Mode::Job => raw::RestartPolicy::Never,
            raw::Mode::Service => raw::RestartPolicy::OnFailure,
        };
        let (policy, max, backoff) = match given {
            None => (None, None, None),
            Some(raw::WordOr::Word(policy)) => (Some(policy), None, None),
            Some(raw::WordOr::Full(r)) => (r.policy, r.max_restarts, r.backoff_ms),
        };
        Restart {
            policy: policy.unwrap_or(default),
            max_restarts: self.number32("spec.restart.max_restarts", max, 5, 0, 1000),
            backoff_ms: self.number("spec.restart.backoff_ms", backoff, 1000, 0, 3_600_000),
        }
    }
}

fn audit(given: Option<raw::WordOr<raw::AuditWord, raw::Audit>>) -> (raw::AuditMode, bool) {
    use raw::{AuditMode, AuditWord, WordOr};
    match given {
        None => (AuditMode::Events, false),
        Some(WordOr::Word(AuditWord::Strict)) => (AuditMode::Events, true),
        Some(WordOr::Word(AuditWord::Events)) => (AuditMode::Events, false),
        Some(WordOr::Word(AuditWord::Count)) => (AuditMode::Count, false),
        Some(WordOr::Word(AuditWord::Latency)) => (AuditMode::Latency, false),
        Some(WordOr::Word(AuditWord::Full)) => (AuditMode::Full, false),
        Some(WordOr::Full(a)) => (a.mode.unwrap_or(AuditMode::Events), a.strict.unwrap_or(false)),
    }
}
