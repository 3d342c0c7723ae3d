//! The least that an agent's run needed, as a seccomp profile and a manifest. Pure: texts and records in, texts out.
//!
//! What is learned never gives more than the agent had: the profile extends the one that it ran under and takes calls away, and
//! capabilities are those of its manifest, narrowed to what was seen.

use std::collections::{BTreeMap, BTreeSet};

use aion_client::api;
use aion_types::NEEDED_CALLS;
use serde_json::{Map, Value, json};

mod diff;

pub(crate) use diff::{Denied, Rules, denied};

/// Calls that stay whether they were counted or not, besides those that every profile must allow: the kernel or the C library makes
/// them when it must.
const ALWAYS: [&str; 2] = ["restart_syscall", "sched_yield"];

/// How the description of a learned profile begins: such a one may take the place of another.
pub(crate) const DESCRIPTION: &str = "Learned:";

/// What was seen of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Names of system calls.
    pub(crate) calls: BTreeSet<String>,
    /// Programs by path, with how often.
    pub(crate) programs: BTreeMap<String, u64>,
    /// `ADDRESS:PORT` that were connected or sent to, outside of its loopback.
    pub(crate) reached: BTreeMap<String, u64>,
    /// Files that were opened for writing.
    pub(crate) written: BTreeMap<String, u64>,
    /// Calls of the kernel API.
    pub(crate) api: BTreeMap<String, u64>,
    /// The most memory that it used, bytes; none: it has not ended.
    pub(crate) memory_peak: Option<u64>,
    /// Ends of it that are on record.
    pub(crate) ends: u64,
    /// Programs whose path is not known whole.
    pub(crate) unclear: u64,
}

impl Seen {
    /// Takes a record in. What was denied is not needed, or the run was none to learn from.
    pub(crate) fn take(&mut self, record: &api::Record) {
        if record.verdict != "allowed" {
            return;
        }
        let detail: Value = serde_json::from_str(&record.detail_json).unwrap_or_default();
        let text = |field: &str| detail.get(field).and_then(Value::as_str).unwrap_or_default();
        let is_set = |field: &str| detail.get(field).and_then(Value::as_bool).unwrap_or(false);
        match record.kind.as_str() {
            "proc.exec" => match text("file") {
                path if path.starts_with('/') && !is_set("memfd") => count(&mut self.programs, path),
                _ => self.unclear += 1,
            },
            "net.connect" | "net.sendto" => {
                let (address, port) = (text("addr"), detail.get("port").and_then(Value::as_u64).unwrap_or(0));
                let Ok(ip) = address.parse::<std::net::IpAddr>() else { return };
                if !ip.to_canonical().is_loopback() {
                    count(
                        &mut self.reached,
                        &std::net::SocketAddr::new(ip, u16::try_from(port).unwrap_or(0)).to_string(),
                    );
                }
            }
            "file.open_write" => count(&mut self.written, text("path")),
            "agent.counted" => {
                let calls = detail.get("calls").and_then(Value::as_object);
                self.calls.extend(calls.into_iter().flat_map(Map::keys).cloned());
            }
            "agent.exited" => {
                self.ends += 1;
                let peak = detail.get("memory_peak").and_then(Value::as_u64).filter(|peak| *peak > 0);
                self.memory_peak = self.memory_peak.max(peak);
            }
            "api.syscall" => {
                let calls = detail.get("calls").and_then(Value::as_array);
                for call in calls.map_or(std::slice::from_ref(&detail), Vec::as_slice) {
                    if let Some(name) = call.get("syscall").and_then(Value::as_str) {
                        count(&mut self.api, name);
                    }
                }
            }
            _ => {}
        }
    }
}

fn count(of: &mut BTreeMap<String, u64>, what: &str) {
    if !what.is_empty() {
        *of.entry(what.to_owned()).or_default() += 1;
    }
}

/// A profile that was learned.
#[derive(Debug)]
pub(crate) struct Profile {
    /// The file.
    pub(crate) file: Value,
    /// Calls that it allows, at least for some arguments.
    pub(crate) kept: usize,
    /// Calls that the one before it allowed.
    pub(crate) before: usize,
}

/// What a profile is made of.
struct Parts {
    own: Vec<Value>,
    parent: Option<String>,
    /// Calls that it allows, at least for some arguments.
    allowed: BTreeSet<String>,
}

fn parts(name: &str, read: &mut dyn FnMut(&str) -> Result<Value, String>) -> Result<Parts, String> {
    let own = read(name)?;
    let parent = match own.get("extends").and_then(Value::as_str) {
        Some(parent) => Some((parent.to_owned(), read(parent)?)),
        None => None,
    };
    let groups = |file: &Value| -> Result<Vec<Value>, String> {
        let groups = file.get("groups").and_then(Value::as_array).cloned();
        groups.ok_or_else(|| format!("profile {name}: it has no groups"))
    };
    let own = groups(&own)?;
    let mut allowed = BTreeSet::new();
    if let Some((_, file)) = &parent {
        allowed.extend(groups(file)?.iter().flat_map(calls_allowed));
        // What a profile says of a call replaces all that its parent says of it.
        for call in own.iter().flat_map(calls_of) {
            allowed.remove(&call);
        }
    }
    allowed.extend(own.iter().flat_map(calls_allowed));
    Ok(Parts { own, parent: parent.map(|(name, _)| name), allowed })
}

/// The calls that the profile `name` allows, at least for some arguments. `read` gives a profile's file by name.
///
/// # Errors
/// Which profile is not readable as one.
pub(crate) fn allowed(
    name: &str,
    read: &mut dyn FnMut(&str) -> Result<Value, String>,
) -> Result<BTreeSet<String>, String> {
    parts(name, read).map(|parts| parts.allowed)
}

/// Narrows the profile `name` to the calls that were seen. `read` gives a profile's file by name.
///
/// # Errors
/// Which profile is not readable as one.
pub(crate) fn profile(
    name: &str,
    seen: &Seen,
    read: &mut dyn FnMut(&str) -> Result<Value, String>,
) -> Result<Profile, String> {
    let Parts { own, parent, allowed } = parts(name, read)?;
    let needed = |call: &String| {
        let name = call.as_str();
        seen.calls.contains(call) || NEEDED_CALLS.contains(&name) || ALWAYS.contains(&name)
    };
    let unseen: BTreeSet<&String> = allowed.iter().filter(|call| !needed(call)).collect();
    // Only one step can be extended: what is between this profile and its parent comes along.
    let (extends, mut groups) = match &parent {
        Some(parent) => (parent.clone(), without(&own, &unseen)),
        None => (name.to_owned(), Vec::new()),
    };
    if !unseen.is_empty() {
        groups.push(json!({
            "name": "not-seen",
            "reason": "the run that this profile was learned from made none of these calls",
            // As on a kernel without the call, so that libc falls back; and it is told.
            "action": {"notify": "ENOSYS"},
            "syscalls": unseen,
        }));
    }
    let file = json!({
        "version": 1,
        "description": format!("{DESCRIPTION} {extends} without the calls that a run did not make."),
        "extends": extends,
        "groups": groups,
    });
    Ok(Profile { file, kept: allowed.len() - unseen.len(), before: allowed.len() })
}

fn calls_of(group: &Value) -> Vec<String> {
    let calls = group.get("syscalls").and_then(Value::as_array);
    calls.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn calls_allowed(group: &Value) -> Vec<String> {
    if group.get("action") == Some(&json!("allow")) { calls_of(group) } else { Vec::new() }
}

/// Groups without some calls; those that have none any more go.
fn without(groups: &[Value], calls: &BTreeSet<&String>) -> Vec<Value> {
    let rest = |group: &Value| {
        let mut group = group.clone();
        let kept: Vec<String> = calls_of(&group).into_iter().filter(|call| !calls.contains(call)).collect();
        let is_left = !kept.is_empty();
        if let Some(map) = group.as_object_mut() {
            map.insert("syscalls".to_owned(), json!(kept));
        }
        is_left.then_some(group)
    };
    groups.iter().filter_map(rest).collect()
}

/// A manifest that was learned.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) value: Value,
    /// What is for a person to decide.
    pub(crate) notes: Vec<String>,
}

/// Narrows a manifest, as the daemon keeps it, to what was seen.
pub(crate) fn manifest(mut value: Value, profile: &str, seen: &Seen) -> Manifest {
    let mut notes = Vec::new();
    let network = value.pointer("/spec/network").and_then(Value::as_str).unwrap_or("none").to_owned();
    let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) else {
        return Manifest { value, notes };
    };
    spec.insert("seccomp_profile".to_owned(), json!(profile));
    let given = spec.remove("capabilities").unwrap_or_default();
    spec.insert("capabilities".to_owned(), capabilities(&given, &network, seen, &mut notes));
    if spec.get("syscalls").is_some_and(|calls| calls.as_array().is_some_and(|calls| !calls.is_empty())) {
        if seen.api.is_empty() {
            notes.push("spec.syscalls is as it was: the run made no call of the kernel API".to_owned());
        } else {
            spec.insert("syscalls".to_owned(), json!(seen.api.keys().collect::<Vec<_>>()));
        }
    }
    match seen.memory_peak {
        Some(peak) => {
            let resources = spec.entry("resources").or_insert_with(|| json!({}));
            if let Some(resources) = resources.as_object_mut() {
                resources.insert("mem".to_owned(), json!(roomy(peak)));
            }
        }
        None => notes.push("spec.resources.mem is as it was: the agent has not ended yet".to_owned()),
    }
    if network == "host" {
        notes.push(format!(
            "network mode host cannot be narrowed; with spec.network: egress it would need {}",
            match seen.reached.is_empty() {
                true => "no host at all".to_owned(),
                false =>
                    seen.reached.keys().map(|to| format!("net:connect:{to}")).collect::<Vec<_>>().join(", "),
            }
        ));
    }
    if seen.unclear > 0 {
        notes.push(format!("{} programs were executed by no path of their own (a descriptor, a relative path): add exec: for them", seen.unclear));
    }
    notes.push("what is only read is not on record: fs:read: is as it was".to_owned());
    Manifest { value, notes }
}

/// Half as much again, in steps of 16 MiB: a peak is that of one run.
fn roomy(peak: u64) -> String {
    const STEP: u64 = 16;
    let mib = peak.saturating_add(peak / 2).div_ceil(1 << 20).div_ceil(STEP).max(2) * STEP;
    format!("{mib}Mi")
}

fn capabilities(given: &Value, network: &str, seen: &Seen, notes: &mut Vec<String>) -> Value {
    const COARSE: [&str; 4] = ["filesystem", "network", "gpu", "subprocess"];
    let strings = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (list, deny) = match given {
        Value::Array(_) => (strings(Some(given)), Vec::new()),
        map => (strings(map.get("allow")), strings(map.get("deny"))),
    };
    let has = |word: &str| list.iter().any(|one| one == word) || given.get(word) == Some(&Value::Bool(true));
    let mut out = Map::new();
    let mut allow: BTreeSet<String> = BTreeSet::new();
    for word in COARSE {
        // `network` and `subprocess` are any host and any program; the run needed some.
        let keep = match word {
            "network" => has(word) && network == "host",
            "subprocess" => false,
            _ => has(word),
        };
        out.insert(word.to_owned(), Value::Bool(keep));
    }
    for rule in list.iter().filter(|rule| !COARSE.contains(&rule.as_str())) {
        match rule.split(':').collect::<Vec<_>>().as_slice() {
            ["exec", ..] => {}
            ["net", ..] => keep_host(rule, seen, &mut allow),
            ["fs", "write", ..] if !wrote_below(rule, seen) => {
                allow.insert(rule.replacen("fs:write:", "fs:read:", 1));
            }
            _ => {
                allow.insert(rule.clone());
            }
        }
    }
    let ran_others = has("subprocess") || list.iter().any(|rule| rule.starts_with("exec:"));
    if ran_others {
        allow.extend(seen.programs.keys().map(|path| format!("exec:{path}")));
    }
    if network == "egress" {
        let named = |to: &&String| {
            let port = to.rsplit(':').next().unwrap_or_default();
            allow.iter().any(|rule| is_name_with_port(rule, port))
        };
        let (by_name, by_address): (Vec<_>, Vec<_>) = seen.reached.keys().partition(named);
        if !by_name.is_empty() {
            notes.push(format!(
                "which name led to which address is not on record: the names of spec.capabilities whose port was used are kept, for {}",
                by_name.into_iter().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
        let more: Vec<String> = by_address.into_iter().map(|to| format!("net:connect:{to}")).collect();
        allow.extend(more);
    }
    out.insert("allow".to_owned(), json!(allow));
    if !deny.is_empty() {
        notes.push(
            "spec.capabilities.deny is left out: nothing that was denied is allowed any more".to_owned(),
        );
    }
    Value::Object(out)
}

fn is_name_with_port(rule: &str, port: &str) -> bool {
    let Some(target) = rule.strip_prefix("net:connect:") else { return false };
    let Some((host, at)) = target.rsplit_once(':') else { return false };
    let is_address =
        host.starts_with('[') || host.split('/').next().unwrap_or(host).parse::<std::net::IpAddr>().is_ok();
    !is_address && (at == port || at == "*")
}

/// A name whose port was used stays: which address it led to is not on record. Blocks and addresses give way to what was reached.
fn keep_host(rule: &str, seen: &Seen, allow: &mut BTreeSet<String>) {
    let is_used =
        seen.reached.keys().any(|to| is_name_with_port(rule, to.rsplit(':').next().unwrap_or_default()));
    let is_any = rule.starts_with("net:connect:*:");
    if is_used && !is_any {
        allow.insert(rule.to_owned());
    }
}

fn wrote_below(rule: &str, seen: &Seen) -> bool {
    let path = rule.strip_prefix("fs:write:").unwrap_or_default();
    seen.written.keys().any(|written| match path.strip_suffix("/**") {
        Some(folder) => written.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
        None => written == path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, verdict: &str, detail: &Value) -> api::Record {
        api::Record {
            kind: kind.to_owned(),
            verdict: verdict.to_owned(),
            detail_json: detail.to_string(),
            ..api::Record::default()
        }
    }

    fn seen() -> Seen {
        let mut seen = Seen::default();
        for (kind, verdict, detail) in [
            ("proc.exec", "allowed", json!({"file": "/usr/bin/git"})),
            ("proc.exec", "allowed", json!({"file": "./x"})),
            ("proc.exec", "allowed", json!({"file": "/memfd:x", "memfd": true})),
            ("net.connect", "allowed", json!({"addr": "203.0.114.7", "port": 443})),
            ("net.connect", "denied", json!({"addr": "203.0.114.8", "port": 443})),
            ("net.sendto", "allowed", json!({"addr": "127.0.0.53", "port": 53})),
            ("net.connect", "allowed", json!({"addr": "2606:4700::1111", "port": 53})),
            ("file.open_write", "allowed", json!({"path": "/srv/out/a"})),
            (
                "api.syscall",
                "allowed",
                json!({"calls": [{"syscall": "memory.get"}, {"syscall": "tool.invoke"}]}),
            ),
            ("api.syscall", "allowed", json!({"syscall": "memory.get"})),
            ("agent.counted", "allowed", json!({"calls": {"read": 7, "openat": 1}})),
            ("agent.exited", "allowed", json!({"memory_peak": 40 << 20})),
        ] {
            seen.take(&record(kind, verdict, &detail));
        }
        seen
    }

    #[test]
    fn records_become_what_was_needed() {
        let seen = seen();
        assert_eq!(seen.programs.keys().collect::<Vec<_>>(), ["/usr/bin/git"]);
        assert_eq!(seen.unclear, 2);
        assert_eq!(seen.reached.keys().collect::<Vec<_>>(), ["203.0.114.7:443", "[2606:4700::1111]:53"]);
        assert_eq!(seen.api.get("memory.get"), Some(&2));
        assert_eq!(seen.memory_peak, Some(40 << 20));
    }

    fn shipped(name: &str) -> Result<Value, String> {
        Ok(match name {
            "base" => json!({"version": 1, "groups": [
                {"name": "a", "action": "allow", "syscalls": ["read", "openat", "execve", "socket", "exit"]},
                {"name": "b", "action": {"errno": "EPERM"}, "syscalls": ["mount"]}]}),
            "child" => json!({"version": 1, "extends": "base", "groups": [
                {"name": "c", "action": "allow", "syscalls": ["ptrace", "read"]},
                {"name": "d", "action": {"errno": "EPERM"}, "syscalls": ["socket"]}]}),
            other => return Err(format!("no profile {other}")),
        })
    }

    #[test]
    fn a_profile_only_takes_away() {
        let learned = profile("base", &seen(), &mut shipped).unwrap();
        assert_eq!(learned.file["extends"], "base");
        assert_eq!(learned.file["groups"].as_array().unwrap().len(), 1);
        assert_eq!(learned.file["groups"][0]["syscalls"], json!(["socket"]));
        assert_eq!((learned.kept, learned.before), (4, 5));
        // Two steps cannot be extended.
        let learned = profile("child", &seen(), &mut shipped).unwrap();
        assert_eq!(learned.file["extends"], "base");
        let groups = learned.file["groups"].as_array().unwrap();
        assert_eq!(groups[0]["syscalls"], json!(["read"]), "what was not seen of its own went");
        assert_eq!(groups[1]["syscalls"], json!(["socket"]), "what it denies stays denied");
        assert_eq!(groups[2]["syscalls"], json!(["ptrace"]));
        assert!(profile("none", &seen(), &mut shipped).is_err());
    }

    #[test]
    fn a_manifest_is_narrowed_and_never_widened() {
        let given = json!({"spec": {
            "network": "egress", "syscalls": ["*"], "resources": {"mem": "1Gi", "pids": 9},
            "capabilities": {"filesystem": true, "network": true, "subprocess": true, "allow": [
                "net:connect:api.example.com:443", "net:connect:other.example:80", "net:connect:10.0.0.0/8:443",
                "fs:write:/srv/out/**", "fs:write:/srv/in/**", "tool:x", "exec:/usr/**"], "deny": ["tool:y"]}}});
        let learned = manifest(given, "a-learned", &seen());
        let spec = &learned.value["spec"];
        assert_eq!(
            spec["capabilities"],
            json!({
            "filesystem": true, "network": false, "gpu": false, "subprocess": false,
            "allow": ["exec:/usr/bin/git", "fs:read:/srv/in/**", "fs:write:/srv/out/**",
                "net:connect:[2606:4700::1111]:53", "net:connect:api.example.com:443", "tool:x"]})
        );
        assert_eq!(spec["syscalls"], json!(["memory.get", "tool.invoke"]));
        assert_eq!(spec["resources"], json!({"mem": "64Mi", "pids": 9}));
        assert_eq!(spec["seccomp_profile"], "a-learned");
        // Who could start nothing but its entry still can not.
        let learned = manifest(json!({"spec": {"capabilities": ["filesystem"]}}), "p", &seen());
        assert_eq!(learned.value["spec"]["capabilities"]["allow"], json!([]));
    }
}
