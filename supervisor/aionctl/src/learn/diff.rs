//! What a profile and a manifest would deny of runs that are on record. Pure.

use std::collections::{BTreeMap, BTreeSet};

use aion_manifest::{AgentSpec, Capability, Network, parse_capabilities};
use aion_syscall::SyscallName;
use serde::Serialize;

use super::Seen;

/// Something that the runs did, and would not be let do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Denied {
    /// `call`, `program`, `host`, `file` or `api`.
    pub(crate) kind: &'static str,
    /// What: a system call, a path, an address, a call of the kernel API.
    pub(crate) what: String,
    /// How often it was done; none: it is not counted one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) times: Option<u64>,
    /// What would refuse it.
    pub(crate) layer: &'static str,
    /// The line that would allow it, and where it goes.
    pub(crate) allow: String,
}

/// A manifest, and the calls that its profile allows.
pub(crate) struct Rules<'a> {
    pub(crate) spec: &'a AgentSpec,
    pub(crate) calls: &'a BTreeSet<String>,
}

/// Compares what was seen under the rules `before` with the rules `new`.
pub(crate) fn denied(seen: &Seen, before: &Rules<'_>, new: &Rules<'_>) -> Vec<Denied> {
    let (now, name) = (new.spec, &new.spec.seccomp_profile);
    let mut found = Vec::new();
    // What was not allowed before either was denied then, or done by aion-init before the filter was there.
    for call in seen.calls.intersection(before.calls).filter(|call| !new.calls.contains(*call)) {
        found.push(Denied {
            kind: "call",
            what: call.clone(),
            times: None,
            layer: "seccomp",
            allow: format!("take {call} from the group not-seen of {name}.json"),
        });
    }
    let mut add = |kind, layer, done: &BTreeMap<String, u64>, is_denied: &dyn Fn(&str) -> Option<String>| {
        for (what, times) in done {
            if let Some(allow) = is_denied(what) {
                found.push(Denied { kind, what: what.clone(), times: Some(*times), layer, allow });
            }
        }
    };
    add("program", "landlock", &seen.programs, &|path| {
        // What an agent is may always be started; a name without a path is looked for where programs are.
        let is_entry = now.argv.first().is_some_and(|first| match first.starts_with('/') {
            true => first == path,
            false => last(first) == last(path) && in_a_folder_of_programs(path),
        });
        if is_entry || allows(now, "exec", path) {
            return None;
        }
        Some(format!("spec.capabilities.allow: exec:{path}"))
    });
    if now.network != Network::Host {
        add("host", "network", &seen.reached, &|to| {
            // Which name led to an address is not on record: a name with that port may have.
            let port = to.rsplit(':').next().unwrap_or_default();
            if now.network == Network::Egress && (allows(now, "net:connect", to) || has_name_with(now, port))
            {
                return None;
            }
            let mode = if now.network == Network::Egress { "" } else { "spec.network: egress, and " };
            Some(format!("{mode}spec.capabilities.allow: net:connect:{to}"))
        });
    }
    // Elsewhere it could not write, whatever the new files say: its workspace and temporary files are its own.
    add("file", "landlock", &seen.written, &|path| {
        (allows(before.spec, "fs:write", path) && !allows(now, "fs:write", path))
            .then(|| format!("spec.capabilities.allow: fs:write:{path}"))
    });
    add("api", "api", &seen.api, &|call| {
        let name = SyscallName::parse(call).ok()?;
        (!now.syscalls.iter().any(|pattern| name.is_covered_by(pattern)))
            .then(|| format!("spec.syscalls: {call}"))
    });
    found
}

/// Whether a rule covers it and none denies it.
fn allows(spec: &AgentSpec, what: &str, about: &str) -> bool {
    let Ok(wanted) = parse_capabilities(&format!("{what}:{about}")) else { return false };
    let covered = |one: &Capability| spec.allow.iter().any(|rule| rule.capability.covers(one));
    let denied = |one: &Capability| spec.deny.iter().any(|rule| rule.capability.covers(one));
    !wanted.is_empty() && wanted.iter().all(|one| covered(one) && !denied(one))
}

fn has_name_with(spec: &AgentSpec, port: &str) -> bool {
    spec.allow.iter().any(|rule| super::is_name_with_port(&rule.capability.to_string(), port))
}

fn in_a_folder_of_programs(path: &str) -> bool {
    ["/usr/local/bin/", "/usr/bin/", "/bin/", "/usr/local/sbin/", "/usr/sbin/", "/sbin/"]
        .iter()
        .any(|folder| path.strip_prefix(folder).is_some_and(|name| !name.contains('/')))
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use aion_manifest::{Context, Overrides};

    use super::*;

    fn spec(text: &str) -> AgentSpec {
        let manifest = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  entry: [/usr/bin/python3]\n{text}"
        );
        AgentSpec::parse(manifest.as_bytes(), "a.yml", Overrides::default(), &Context::builtin()).unwrap()
    }

    fn seen() -> Seen {
        let counted = |what: &[&str]| what.iter().map(|one| ((*one).to_owned(), 2)).collect();
        Seen {
            calls: ["read", "ptrace", "unshare"].map(str::to_owned).into(),
            programs: counted(&["/usr/bin/python3", "/usr/bin/git", "/usr/bin/head"]),
            reached: counted(&["203.0.114.7:443", "203.0.114.8:80"]),
            written: counted(&["/srv/out/a", "/workspace/b"]),
            api: counted(&["memory.get", "tool.invoke"]),
            ..Seen::default()
        }
    }

    fn said(before: &AgentSpec, now: &AgentSpec) -> Vec<String> {
        let (had, calls) = (["read", "ptrace"].map(str::to_owned).into(), ["read".to_owned()].into());
        let found =
            denied(&seen(), &Rules { spec: before, calls: &had }, &Rules { spec: now, calls: &calls });
        found.iter().map(|one| format!("{} {} {}", one.kind, one.what, one.layer)).collect()
    }

    #[test]
    fn what_the_files_leave_out_is_told_and_nothing_else() {
        let before = spec(
            "  network: egress\n  syscalls: [\"*\"]\n  capabilities: {subprocess: true, allow: [\"fs:write:/srv/out/**\", \"net:connect:*:*\"]}\n",
        );
        let now = spec(
            "  network: egress\n  syscalls: [\"memory.*\"]\n  capabilities: {allow: [\"exec:/usr/bin/git\", \"net:connect:api.example.com:443\"]}\n",
        );
        let expected = [
            "call ptrace seccomp",
            "program /usr/bin/head landlock",
            "host 203.0.114.8:80 network",
            "file /srv/out/a landlock",
            "api tool.invoke api",
        ];
        assert_eq!(said(&before, &now), expected);
        assert_eq!(said(&before, &before), ["call ptrace seccomp"]);
    }

    #[test]
    fn without_a_network_nobody_is_reached() {
        let before = spec("  network: egress\n  syscalls: [\"*\"]\n  capabilities: {subprocess: true}\n");
        let now = spec("  network: none\n  syscalls: [\"*\"]\n  capabilities: {subprocess: true}\n");
        let calls = seen().calls;
        let rules = |spec| Rules { spec, calls: &calls };
        let found = denied(&seen(), &rules(&before), &rules(&now));
        let what: Vec<_> = found.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(what, ["203.0.114.7:443", "203.0.114.8:80"]);
        assert!(found[0].allow.starts_with("spec.network: egress"), "{found:?}");
        assert_eq!(found[0].times, Some(2));
    }
}
