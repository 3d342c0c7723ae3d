//! From a record to its reason. Pure.
//!
//! What is certain is said as such; where several layers give the same error, they are named as what it may have been.

use aion_egress::{Cidr, block_of};
use aion_manifest::{AgentSpec, Capability, CapabilityPolicy, Network, NetworkLimit, withheld_hosts};
use aion_store::{EventRow, RestraintRow};
use serde_json::Value;

/// What is known.
pub(super) struct Facts<'a> {
    pub(super) row: &'a EventRow,
    pub(super) detail: &'a Value,
    /// The agent as it is registered now; none: it is gone.
    pub(super) spec: Option<&'a AgentSpec>,
    /// What bounds it now.
    pub(super) bounds: &'a [&'a CapabilityPolicy],
    /// Its network was taken before the record.
    pub(super) isolated: Option<&'a RestraintRow>,
}

/// Why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Explanation {
    /// What refused: network, resolver, seccomp, landlock, mount, capability, lsm, devices, cgroup, isolation, api; empty: nothing did.
    pub(super) layer: &'static str,
    /// Its rule.
    pub(super) rule: String,
    /// In words.
    pub(super) why: String,
    /// Lines that would allow it, each with the file that it belongs into.
    pub(super) allow: Vec<String>,
    /// What else to know.
    pub(super) notes: Vec<String>,
}

impl Explanation {
    fn new(layer: &'static str, rule: impl Into<String>, why: impl Into<String>) -> Self {
        Self { layer, rule: rule.into(), why: why.into(), ..Self::default() }
    }

    fn allowed_by(mut self, line: impl Into<String>) -> Self {
        self.allow.push(line.into());
        self
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// No line of a manifest or policy gives it.
    fn never(self) -> Self {
        self.note("no line allows it: AION gives it to no agent")
    }
}

pub(super) fn explain(facts: &Facts<'_>) -> Explanation {
    let row = facts.row;
    if row.verdict != "denied" {
        let why = format!("nothing was denied: the record says {:?}", row.verdict);
        return Explanation { why, rule: row.rule.clone(), ..Explanation::default() };
    }
    let mut explained = match row.kind.as_str() {
        "net.connect" | "net.sendto" | "net.bind" => net(facts),
        "api.net.resolve" => resolve(facts),
        "sys.denied" => match row.rule.strip_prefix("seccomp:") {
            Some(profile) => seccomp(facts, profile),
            None => by_kernel(facts),
        },
        "lsm.denied" => lsm(facts),
        "device.denied" => device(facts),
        "limit.hit" | "mem.oom" => limit(facts),
        kind => api(facts, kind),
    };
    if facts.spec.is_none() && !row.agent.is_empty() {
        explained = explained.note("the agent is not registered any more: its manifest was not looked at");
    }
    explained
}

fn text<'a>(facts: &'a Facts<'_>, field: &str) -> &'a str {
    facts.detail.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(facts: &Facts<'_>, field: &str) -> u64 {
    facts.detail.get(field).and_then(Value::as_u64).unwrap_or_default()
}

/// The capability of a host, with what bounds it.
fn reach(explained: Explanation, facts: &Facts<'_>, target: &str) -> Explanation {
    let mut explained =
        explained.allowed_by(format!("agent.yml: spec.capabilities: [\"net:connect:{target}\"]"));
    if facts.spec.is_none_or(|spec| spec.network != Network::Egress) {
        explained = explained.allowed_by("agent.yml: spec.network: egress");
    }
    for bounds in facts.bounds {
        for (_, why) in withheld_hosts(&[target.to_owned()], bounds) {
            explained = explained
                .allowed_by(format!("the operator's rules: allow: [\"net:connect:{target}\"]"))
                .note(format!("with the rules as they are now, {why}"));
        }
    }
    explained
}

fn net(facts: &Facts<'_>) -> Explanation {
    let (address, port) = (text(facts, "addr"), number(facts, "port"));
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let target = format!("{host}:{port}");
    if let Some(isolated) = facts.isolated {
        return Explanation::new("isolation", &isolated.reason, "the agent's network was taken from it")
            .allowed_by("aionctl detections clear --network AGENT");
    }
    if let Some(explained) = network_limit(facts) {
        return explained;
    }
    let doing = match facts.row.kind.as_str() {
        "net.bind" => "to listen at",
        _ => "to reach",
    };
    let mode = facts.spec.map(|spec| spec.network);
    let Some(mode) = mode else {
        let why = format!("the agent was not allowed {doing} {target}");
        return reach(Explanation::new("network", "spec.network, spec.capabilities", why), facts, &target);
    };
    match mode {
        Network::Egress if facts.row.kind == "net.bind" => {
            let why = "with network mode egress an agent listens at its loopback, or at an address that is not given";
            Explanation::new("network", "spec.network: egress", why).never()
        }
        Network::Egress => {
            let why = format!("no capability of the agent leads to {target} now");
            let mut explained =
                reach(Explanation::new("network", "spec.network: egress", why), facts, &target);
            if let Some(block) = Cidr::parse(&host).ok().and_then(block_of) {
                explained = explained.note(format!(
                    "{address} is {} ({}): no name leads there, only a capability that names the address or a block within that",
                    block.kind.as_str(),
                    block.cidr
                ));
            } else {
                explained = explained.note(
                    "an address is reached for as long as a name that the agent may reach was resolved to it by AION's resolver",
                );
            }
            explained
        }
        Network::None => {
            let why = "the agent has a network of its own with nothing in it but its loopback";
            reach(Explanation::new("network", "spec.network: none", why), facts, &target)
        }
        Network::Host => {
            let why = "network mode host refuses nothing: it was another mode when this was denied, or the record did not fit for an agent with `audit: strict`";
            Explanation::new("network", "spec.network: host", why)
        }
    }
}

fn resolve(facts: &Facts<'_>) -> Explanation {
    let name = text(facts, "name");
    let why = format!("{name}: {}", text(facts, "why"));
    let explained = Explanation::new("resolver", "spec.capabilities", why);
    reach(explained, facts, &format!("{name}:443"))
        .note("write the port that is meant; a name that resolves to special addresses (private, link-local, metadata) leads to none of them")
}

fn seccomp(facts: &Facts<'_>, profile: &str) -> Explanation {
    let call = text(facts, "syscall");
    let why = format!("profile {profile} answers {call} with an error instead of letting the kernel do it");
    let explained = Explanation::new("seccomp", format!("profiles/seccomp/{profile}.json"), why);
    if let Some((_, capability)) = privileged(call) {
        return explained.note(format!(
            "the kernel would refuse it all the same: it needs {capability}, and agents have no capabilities"
        ));
    }
    explained
        .allowed_by(format!(
            "profiles/seccomp/NAME.json: {{\"version\": 1, \"extends\": \"{profile}\", \"groups\": [{{\"name\": \"{call}\", \"reason\": \"…\", \"action\": \"allow\", \"syscalls\": [\"{call}\"]}}]}}"
        ))
        .allowed_by("agent.yml: spec.seccomp_profile: NAME")
        .note("`when` in a group allows a call for some arguments alone, and a profile that extends another cannot be extended itself: copy it; see profiles/README.md")
}

/// Calls that a capability is for.
const PRIVILEGED: [(&str, &str); 27] = [
    ("mount", "CAP_SYS_ADMIN"),
    ("umount2", "CAP_SYS_ADMIN"),
    ("pivot_root", "CAP_SYS_ADMIN"),
    ("move_mount", "CAP_SYS_ADMIN"),
    ("open_tree", "CAP_SYS_ADMIN"),
    ("fsopen", "CAP_SYS_ADMIN"),
    ("fsmount", "CAP_SYS_ADMIN"),
    ("mount_setattr", "CAP_SYS_ADMIN"),
    ("setns", "CAP_SYS_ADMIN"),
    ("unshare", "CAP_SYS_ADMIN"),
    ("sethostname", "CAP_SYS_ADMIN"),
    ("setdomainname", "CAP_SYS_ADMIN"),
    ("swapon", "CAP_SYS_ADMIN"),
    ("swapoff", "CAP_SYS_ADMIN"),
    ("quotactl", "CAP_SYS_ADMIN"),
    ("chroot", "CAP_SYS_CHROOT"),
    ("bpf", "CAP_BPF"),
    ("perf_event_open", "CAP_PERFMON"),
    ("init_module", "CAP_SYS_MODULE"),
    ("finit_module", "CAP_SYS_MODULE"),
    ("delete_module", "CAP_SYS_MODULE"),
    ("kexec_load", "CAP_SYS_BOOT"),
    ("kexec_file_load", "CAP_SYS_BOOT"),
    ("reboot", "CAP_SYS_BOOT"),
    ("settimeofday", "CAP_SYS_TIME"),
    ("clock_settime", "CAP_SYS_TIME"),
    ("syslog", "CAP_SYSLOG"),
];

fn privileged(call: &str) -> Option<(&'static str, &'static str)> {
    PRIVILEGED.iter().find(|(name, _)| *name == call).copied()
}

/// Calls that open, change or execute something with a path.
const OF_FILES: [&str; 31] = [
    "open",
    "openat",
    "openat2",
    "creat",
    "execve",
    "execveat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "truncate",
    "ftruncate",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "mknod",
    "mknodat",
    "utimensat",
    "setxattr",
];

/// The kernel's own answer, as the return of the call showed it: the number, not which check gave it.
fn by_kernel(facts: &Facts<'_>) -> Explanation {
    let (call, errno) = (text(facts, "syscall"), text(facts, "errno"));
    if let Some((_, capability)) = privileged(call) {
        let why = format!("{call} needs {capability}, and agents have no capabilities");
        return Explanation::new("capability", capability, why).never();
    }
    match (errno, OF_FILES.contains(&call)) {
        ("ENOSYS", _) => {
            let why = format!(
                "{call} is not there: this kernel lacks it, or the seccomp profile answers so for libc to fall back"
            );
            Explanation::new("seccomp", "the default action of the agent's profile", why)
                .note("a program that goes on after it needs nothing")
        }
        ("EACCES", true) => {
            let why = format!(
                "{call} asked for a file or folder that the agent was not given, or whose mode does not let it"
            );
            Explanation::new("landlock", "spec.capabilities: fs:, exec:; spec.workspace", why)
                .allowed_by("agent.yml: spec.capabilities: [\"fs:read:/PATH\"], or fs:write:/PATH, or exec:/PATH")
                .note("which file it was is not in the record; `spec.audit: full` records what is opened for writing")
                .note("/workspace, /tmp, /run and /dev/shm can be written to")
        }
        ("EPERM", true) => {
            let why = format!(
                "{call} asked for what its owner alone may do, or for a place that is read-only or not the agent's"
            );
            Explanation::new("mount", "the sandbox's mounts, id mapping and no capability", why)
                .note("files of the system belong to nobody whom the agent is; work on copies in /workspace")
        }
        _ => {
            let why = format!(
                "{call} was answered with {errno} by the kernel; no rule of AION's own gives this error by itself"
            );
            Explanation::new("kernel", "the kernel's own check", why)
        }
    }
}

/// A file or program that was taken from the agent while it ran.
fn withheld(facts: &Facts<'_>, rule: &str) -> Explanation {
    if rule == "depth" {
        let why = "it lies so deep below other folders that it cannot be told apart from what is withheld from the agent";
        return Explanation::new("lsm", "depth", why)
            .note("`aionctl inspect` shows in layer lsm what is withheld");
    }
    let why = format!("{rule} was taken from the agent while it ran");
    let layer = if rule.starts_with("device:") { "devices" } else { "lsm" };
    let explained = Explanation::new(layer, rule, why)
        .allowed_by(format!(
            "the operator's rules, or its tenant's: allow: [\"{rule}\"], and no deny of a part of it"
        ))
        .note("it has it back when the rules are read anew: aionctl policy reload");
    let now = facts
        .spec
        .into_iter()
        .flat_map(|spec| facts.bounds.iter().flat_map(move |bounds| spec.withheld_files(bounds)));
    now.filter(|(known, _)| known == rule).fold(explained, |explained, (_, why)| {
        explained.note(format!("with the rules as they are now, {why}"))
    })
}

fn lsm(facts: &Facts<'_>) -> Explanation {
    let rule = text(facts, "withheld");
    if !rule.is_empty() {
        return withheld(facts, rule);
    }
    let hook = text(facts, "hook");
    let what = match hook {
        "bpf" => "agents do not use BPF",
        "sb_mount" | "move_mount" | "sb_umount" | "sb_pivotroot" | "sb_remount" => {
            "agents do not change mounts"
        }
        "kernel_module_request" | "kernel_read_file" | "kernel_load_data" => {
            "agents load nothing into the kernel"
        }
        "userns_create" => "agents make no user namespace",
        "ptrace_access_check" => "an agent does not look into processes outside of it",
        "perf_event_open" => "agents do not count events of the processor",
        "settime" => "agents do not set the clock",
        "syslog" => "agents do not read the kernel's log",
        "inode_mknod" => "agents make no device nodes",
        "uring_override_creds" | "uring_sqpoll" => "an io_uring does not go round what watches its owner",
        "task_kill" => "an agent does not signal processes outside of it",
        "bprm_check_security" => {
            return Explanation::new(
                "lsm",
                "spec.audit.strict",
                "the program was not started, because its record found no room and no record of this agent may be lost",
            )
            .note("it is asked to try again (EAGAIN)");
        }
        _ => "the kernel's security module refused it",
    };
    Explanation::new("lsm", format!("BPF LSM, hook {hook}"), what).never()
}

/// The capability of a device, with what bounds it.
fn device(facts: &Facts<'_>) -> Explanation {
    let rule = text(facts, "withheld");
    if !rule.is_empty() {
        return withheld(facts, rule);
    }
    let (access, path) = (text(facts, "access"), text(facts, "device"));
    if access == "mknod" {
        return Explanation::new("devices", "mknod", "agents make no device nodes").never();
    }
    if facts.detail.get("block").and_then(Value::as_bool) == Some(true) {
        return Explanation::new("devices", "block devices", "agents see files, and no disks").never();
    }
    let number = format!("{}:{}", number(facts, "major"), number(facts, "minor"));
    let shown = if path.is_empty() { "/dev/NAME" } else { path };
    let line = format!("device:{}:{shown}", if access == "read" { "read" } else { "write" });
    let why = format!("the agent was given no device {number} to {access}");
    let mut explained = Explanation::new("devices", "spec.capabilities", why)
        .allowed_by(format!("agent.yml: spec.capabilities: [\"{line}\"]"));
    if path.is_empty() {
        explained = explained.note(format!("NAME is the character device {number} in the host's /dev"));
    }
    let wanted = line.parse::<Capability>().ok();
    let is_bounded =
        wanted.is_some_and(|wanted| facts.bounds.iter().any(|bounds| !bounds.check(&wanted).allowed));
    if is_bounded {
        explained = explained.allowed_by(format!("the operator's rules: allow: [\"{line}\"]"));
    }
    explained
}

/// A limit of `spec.resources.network`, if that refused.
fn network_limit(facts: &Facts<'_>) -> Option<Explanation> {
    let line = facts.row.rule.strip_prefix("resources.network.")?;
    let field = format!("spec.resources.network.{line}");
    let (place, limit) = line.rsplit_once('.').unwrap_or(("", line));
    let at = place.strip_prefix("destinations[").and_then(|at| at.strip_suffix(']')?.parse::<usize>().ok());
    let known = facts.spec.map(|spec| &spec.resources.network);
    let (whom, is) = match (at, known) {
        (None, known) => ("the agent".to_owned(), known.map(|limits| limits.whole)),
        (Some(at), known) => match known.and_then(|limits| limits.destinations.get(at)) {
            Some((to, limit)) => (format!("the agent with {to}"), Some(*limit)),
            None => ("the agent with that destination".to_owned(), None),
        },
    };
    let amount = |is: NetworkLimit| match limit {
        "bytes_out_per_hour" => is.bytes_out_per_hour.map(|n| n.to_string()),
        "bytes_in_per_hour" => is.bytes_in_per_hour.map(|n| n.to_string()),
        _ => is.connections.map(|rate| rate.count.to_string()),
    };
    let what = match limit {
        "bytes_out_per_hour" => "bytes sent in an hour",
        "bytes_in_per_hour" => "bytes received in an hour",
        "connections_per_second" => "connections in a second",
        _ => "connections in a minute",
    };
    let own = is.and_then(amount);
    // Who names none has the operator's.
    let given = facts.bounds.iter().find_map(|policy| amount(policy.network().limit));
    let given = given.filter(|_| place.is_empty());
    let is = own.clone().or_else(|| given.clone()).map_or_else(String::new, |is| format!(" of {is}"));
    let mut explained =
        Explanation::new("network", field.clone(), format!("{whom} has used up its limit{is}: {what}"))
            .note("`aionctl stats` shows what is used, and when the first of it stops to count");
    if own.is_some() || given.is_none() {
        explained = explained.allowed_by(format!("agent.yml: {field}: more"));
    }
    if given.is_some() && (own.is_none() || own == given) {
        explained = explained.allowed_by(format!("the operator's rules: resources.network.{line}: more"));
    }
    Some(match limit {
        "bytes_out_per_hour" | "bytes_in_per_hour" => {
            explained.note("a connection is begun only where a packet of 1500 bytes has room; an agent that is started again has used no less")
        }
        _ => explained.note("a connection that is tried again later goes through"),
    })
}

fn limit(facts: &Facts<'_>) -> Explanation {
    if let Some(explained) = network_limit(facts) {
        return explained;
    }
    let of = if facts.row.kind == "mem.oom" { "memory" } else { text(facts, "limit") };
    let resources = facts.spec.map(|spec| &spec.resources);
    let (field, is) = match of {
        "memory" => ("spec.resources.mem", resources.map(|r| r.mem.to_string())),
        "pids" => ("spec.resources.pids", resources.map(|r| r.pids.to_string())),
        "file_size" => ("spec.resources.file_size", resources.map(|r| r.file_size.to_string())),
        "wall_ms" => ("spec.timeout_ms", facts.spec.and_then(|s| s.timeout_ms).map(|ms| ms.to_string())),
        other => {
            return Explanation::new("cgroup", other, format!("the agent has used up its limit of {other}"));
        }
    };
    let is = is.map_or_else(String::new, |is| format!(" of {is}"));
    Explanation::new("cgroup", field, format!("the agent has used up its limit{is}"))
        .allowed_by(format!("agent.yml: {field}: more"))
        .note("a class of profiles/cgroup_profiles.yaml gives what the manifest leaves out")
}

fn api(facts: &Facts<'_>, kind: &str) -> Explanation {
    let calls = facts.detail.get("calls").and_then(Value::as_array);
    let ids: Vec<&str> = match calls {
        Some(calls) => calls.iter().filter_map(|call| call.get("audit_id")?.as_str()).collect(),
        None => facts.detail.get("audit_id").and_then(Value::as_str).into_iter().collect(),
    };
    let explained = Explanation::new("api", &facts.row.rule, format!("{kind} was refused"));
    ids.into_iter().take(8).fold(explained, |explained, id| explained.note(format!("aionctl explain {id}")))
}

#[cfg(test)]
mod tests {
    use aion_manifest::{Context, Overrides};
    use serde_json::json;

    use super::*;

    fn row(kind: &str, rule: &str) -> EventRow {
        EventRow {
            seq: 7,
            time_ns: 100,
            tenant: "default".to_owned(),
            agent: "a".to_owned(),
            task: String::new(),
            trace: String::new(),
            kind: kind.to_owned(),
            verdict: "denied".to_owned(),
            rule: rule.to_owned(),
            detail_json: String::new(),
        }
    }

    fn spec(more: &str) -> AgentSpec {
        let text =
            format!("apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  entry: x\n{more}");
        AgentSpec::parse(text.as_bytes(), "agent.yml", Overrides::default(), &Context::builtin()).unwrap()
    }

    fn told(row: &EventRow, detail: &Value, spec: Option<&AgentSpec>, rules: &[&str]) -> Explanation {
        let rules: Vec<_> = rules
            .iter()
            .map(|allow| {
                let text = format!("apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow: {allow}\n");
                CapabilityPolicy::parse(text.as_bytes(), "rules.yaml").unwrap()
            })
            .collect();
        let bounds: Vec<_> = rules.iter().collect();
        explain(&Facts { row, detail, spec, bounds: &bounds, isolated: None })
    }

    #[test]
    fn the_line_for_a_host_depends_on_the_mode_and_the_rules() {
        let to = json!({"addr": "203.0.114.7", "port": 443});
        let none = spec("");
        let said = told(&row("net.connect", "network: none"), &to, Some(&none), &["[network]"]);
        assert_eq!((said.layer, said.rule.as_str()), ("network", "spec.network: none"));
        assert_eq!(
            said.allow,
            [
                "agent.yml: spec.capabilities: [\"net:connect:203.0.114.7:443\"]",
                "agent.yml: spec.network: egress"
            ]
        );
        let egress = spec("  network: egress\n  capabilities: [\"net:connect:example.com:443\"]\n");
        let said = told(&row("net.connect", ""), &to, Some(&egress), &["[\"net:connect:example.com:443\"]"]);
        assert_eq!(said.allow.len(), 2, "{said:?}");
        assert!(said.allow[1].starts_with("the operator's rules: "), "{said:?}");
        assert!(said.notes.iter().any(|note| note.contains("is allowed by no rule")), "{said:?}");
        let metadata = json!({"addr": "169.254.169.254", "port": 80});
        let said = told(&row("net.connect", ""), &metadata, Some(&egress), &["[network]"]);
        assert!(said.notes.iter().any(|note| note.contains("no name leads there")), "{said:?}");
        let six = json!({"addr": "2606:4700::1111", "port": 53});
        let said = told(&row("net.sendto", ""), &six, Some(&egress), &[]);
        assert!(said.allow[0].contains("net:connect:[2606:4700::1111]:53"), "{said:?}");
    }

    #[test]
    fn a_limit_of_the_network_is_named_with_what_it_is() {
        let agent = spec(
            "  network: egress\n  capabilities: [\"net:connect:a.example:443\"]\n  resources:\n    network: {connections_per_minute: 9, destinations: [{to: \"a.example:443\", bytes_out_per_hour: 1Mi}]}\n",
        );
        let to = json!({"addr": "203.0.114.7", "port": 443});
        let row = |kind: &str, line: &str| row(kind, &format!("resources.network.{line}"));
        let said = told(&row("net.connect", "connections_per_minute"), &to, Some(&agent), &[]);
        assert_eq!(said.rule, "spec.resources.network.connections_per_minute");
        assert!(said.why.contains("the agent has used up its limit of 9"), "{said:?}");
        let packets = json!({"limit": "bytes_out_per_hour", "refused": 3});
        let line = "destinations[0].bytes_out_per_hour";
        let said = told(&row("limit.hit", line), &packets, Some(&agent), &[]);
        assert!(said.why.contains("with a.example:443 has used up its limit of 1Mi"), "{said:?}");
        assert_eq!(said.allow, [format!("agent.yml: spec.resources.network.{line}: more")]);
        let rules = ["[network]\nresources: {network: {bytes_out_per_hour: 3Mi}}"];
        let said = told(&row("limit.hit", "bytes_out_per_hour"), &packets, Some(&agent), &rules);
        assert!(said.why.contains("its limit of 3Mi"), "{said:?}");
        assert_eq!(said.allow, ["the operator's rules: resources.network.bytes_out_per_hour: more"]);
        let gone = told(&row("limit.hit", "destinations[7].bytes_in_per_hour"), &packets, None, &[]);
        assert!(gone.why.contains("that destination"), "{gone:?}");
    }

    #[test]
    fn an_isolated_agent_is_told_as_one() {
        let isolated = RestraintRow {
            kind: "isolated".to_owned(),
            reason: "detection reverse-shell".to_owned(),
            since_ns: 1,
            cpu_millis: 0,
        };
        let (row, detail) = (row("net.connect", ""), json!({"addr": "1.1.1.1", "port": 1}));
        let facts = Facts { row: &row, detail: &detail, spec: None, bounds: &[], isolated: Some(&isolated) };
        let said = explain(&facts);
        assert_eq!((said.layer, said.rule.as_str()), ("isolation", "detection reverse-shell"));
        assert_eq!(said.notes.len(), 1, "the agent is gone: {said:?}");
    }

    #[test]
    fn each_layer_is_named() {
        let agent = spec("  resources: {pids: 9}\n");
        for (kind, rule, detail, layer, part) in [
            (
                "sys.denied",
                "seccomp:tool-strict",
                json!({"syscall": "socket"}),
                "seccomp",
                "tool-strict.json",
            ),
            (
                "sys.denied",
                "kernel",
                json!({"syscall": "chroot", "errno": "EPERM"}),
                "capability",
                "CAP_SYS_CHROOT",
            ),
            ("sys.denied", "kernel", json!({"syscall": "openat", "errno": "EACCES"}), "landlock", "fs:"),
            ("sys.denied", "kernel", json!({"syscall": "fchmodat", "errno": "EPERM"}), "mount", "mounts"),
            (
                "sys.denied",
                "kernel",
                json!({"syscall": "foo", "errno": "ENOSYS"}),
                "seccomp",
                "default action",
            ),
            ("sys.denied", "kernel", json!({"syscall": "kill", "errno": "EPERM"}), "kernel", "own check"),
            ("lsm.denied", "lsm: bpf", json!({"hook": "bpf"}), "lsm", "hook bpf"),
            (
                "lsm.denied",
                "withheld:fs:read:/srv",
                json!({"hook": "file_open", "withheld": "fs:read:/srv"}),
                "lsm",
                "fs:read:/srv",
            ),
            (
                "lsm.denied",
                "withheld:depth",
                json!({"hook": "file_open", "withheld": "depth"}),
                "lsm",
                "depth",
            ),
            (
                "device.denied",
                "withheld:device:read:/dev/fuse",
                json!({"access": "read", "device": "/dev/fuse", "withheld": "device:read:/dev/fuse"}),
                "devices",
                "device:read:/dev/fuse",
            ),
            (
                "device.denied",
                "devices",
                json!({"access": "read", "major": 10, "minor": 229, "block": false}),
                "devices",
                "spec.capabilities",
            ),
            ("device.denied", "devices", json!({"access": "mknod"}), "devices", "mknod"),
            ("limit.hit", "limits.pids", json!({"limit": "pids"}), "cgroup", "spec.resources.pids"),
            ("mem.oom", "limit: mem", json!({}), "cgroup", "spec.resources.mem"),
            (
                "api.net.resolve",
                "network",
                json!({"name": "x.test", "why": "no rule has the name"}),
                "resolver",
                "spec.capabilities",
            ),
            ("api.syscall", "tool:x", json!({"audit_id": "sc-1"}), "api", "tool:x"),
        ] {
            let said = told(&row(kind, rule), &detail, Some(&agent), &[]);
            assert_eq!(said.layer, layer, "{kind} {detail}: {said:?}");
            assert!(said.rule.contains(part), "{kind} {detail}: {said:?}");
            assert!(
                !said.why.is_empty()
                    && (!said.allow.is_empty() || !said.notes.is_empty() || layer == "kernel"),
                "{said:?}"
            );
        }
        let said = told(&row("limit.hit", ""), &json!({"limit": "pids"}), Some(&agent), &[]);
        assert!(said.why.ends_with("limit of 9"), "{said:?}");
    }

    #[test]
    fn the_line_for_a_device_names_its_node() {
        let agent = spec("  capabilities: [\"device:read:/dev/fuse\"]\n");
        let row = row("device.denied", "device:write:/dev/fuse");
        let detail = json!({"access": "read and write", "device": "/dev/fuse", "major": 10, "minor": 229});
        let said = told(&row, &detail, Some(&agent), &["[\"device:read:/dev/**\"]"]);
        assert_eq!(said.layer, "devices");
        let line = "\"device:write:/dev/fuse\"";
        let own = format!("agent.yml: spec.capabilities: [{line}]");
        assert_eq!(said.allow, [own.clone(), format!("the operator's rules: allow: [{line}]")]);
        let said = told(&row, &detail, Some(&agent), &["[\"device:write:/dev/**\"]"]);
        assert_eq!(said.allow, [own]);
        let unknown = json!({"access": "read", "major": 10, "minor": 232, "block": false});
        let said = told(&row, &unknown, Some(&agent), &[]);
        assert!(
            said.allow[0].contains("device:read:/dev/NAME") && said.notes[0].contains("10:232"),
            "{said:?}"
        );
    }

    #[test]
    fn what_was_allowed_is_not_explained_as_a_denial() {
        let mut row = row("net.connect", "network: host");
        row.verdict = "allowed".to_owned();
        let said = told(&row, &json!({}), None, &[]);
        assert_eq!(said.layer, "");
    }
}
