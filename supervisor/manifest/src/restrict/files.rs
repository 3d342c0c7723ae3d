//! Files, programs and devices of a running agent that bounds do not leave it, rule by rule.

use std::collections::BTreeSet;

use super::{WORKSPACE, Wish, folder_denial};
use crate::capability::{Access, Capability, CapabilityPolicy, PathPattern, Rule, effective};
use crate::spec::{AgentSpec, Network};

/// Where the host folder that stands for it is, inside.
const INSIDE: &str = "/workspace";

impl AgentSpec {
    /// What of the files, programs and devices that its sandbox gives bounds do not leave the agent, and why: each as aion-launcher names it.
    ///
    /// A rule is taken as a whole, as it was given: one that denies a part of a folder withholds the folder. Who may not write may
    /// still read.
    #[must_use]
    pub fn withheld_files(&self, bounds: &CapabilityPolicy) -> Vec<(String, String)> {
        let rules = self.file_rules().into_iter().map(|(name, rule)| (name, why(&rule, bounds)));
        let folder = self.folders().find(|(field, _)| *field == WORKSPACE);
        let folder = folder.into_iter().flat_map(|(_, wanted)| match wanted {
            Capability::Fs { access, path } => words(access)
                .map(|(word, access)| {
                    let wanted = Capability::Fs { access, path: path.clone() };
                    (format!("fs:{word}:{INSIDE}"), workspace_denial(&wanted, bounds))
                })
                .collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        each_once(rules.chain(folder))
    }

    /// Its rules for files, programs and devices, use by use, with the name of each.
    fn file_rules(&self) -> Vec<(String, Rule)> {
        let mut all = Vec::new();
        for rule in self.allow.iter().filter(|rule| rule.capability.is_enforced_by_sandbox()) {
            match &rule.capability {
                Capability::Fs { access, path } => {
                    for (word, access) in words(*access) {
                        let capability = Capability::Fs { access, path: path.clone() };
                        all.push((format!("fs:{word}:{}", path.path()), Rule { capability, ..rule.clone() }));
                    }
                }
                Capability::Device { access, path } => {
                    for (word, access) in words(*access) {
                        let capability = Capability::Device { access, path: path.clone() };
                        all.push((
                            format!("device:{word}:{}", path.path()),
                            Rule { capability, ..rule.clone() },
                        ));
                    }
                }
                Capability::Exec(path) if path.path() == "/" => {
                    all.push(("exec:/**".to_owned(), rule.clone()));
                }
                Capability::Exec(path) => all.push((format!("exec:{}", path.path()), rule.clone())),
                _ => {}
            }
        }
        all
    }
}

/// Which of the rules that an agent was launched with, by their names, bounds do not leave it, and why; `workspace` is the host folder
/// that it has there.
///
/// A launch knows paths alone. How each was meant, one file or a folder, says the manifest that it was made from (`spec`), where that has such
/// a rule. What it does not have must be left to the agent as either: a manifest that was changed or is gone gives nothing back.
#[must_use]
pub fn withheld_of_launch(
    names: &BTreeSet<String>,
    workspace: Option<&str>,
    spec: Option<&AgentSpec>,
    bounds: &CapabilityPolicy,
) -> Vec<(String, String)> {
    let known = spec.map(AgentSpec::file_rules).unwrap_or_default();
    let as_meant = known.iter().filter(|(name, _)| names.contains(name));
    let as_meant = as_meant.map(|(name, rule)| (name.clone(), why(rule, bounds)));
    let others = names.iter().filter(|name| !known.iter().any(|(known, _)| known == *name));
    let others = others.map(|name| (name.clone(), why_launched(name, workspace, bounds)));
    each_once(as_meant.chain(others))
}

/// Those that are withheld.
fn each_once(judged: impl Iterator<Item = (String, Option<String>)>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, why) in judged {
        if let Some(why) = why
            && !all.iter().any(|(known, _)| *known == name)
        {
            all.push((name, why));
        }
    }
    all
}

/// Who writes also reads.
fn words(access: Access) -> impl Iterator<Item = (&'static str, Access)> {
    let both = [("write", Access::Write), ("read", Access::Read)];
    both.into_iter().filter(move |(_, one)| *one <= access)
}

/// Why bounds do not leave it whole, if they do not.
fn why(rule: &Rule, bounds: &CapabilityPolicy) -> Option<String> {
    let allow = std::slice::from_ref(rule);
    let wish = Wish { allow, deny: &[], network: Network::None };
    let result = effective(bounds, allow, &[]);
    let mut problems = wish.refused(&result, |_| true);
    problems.extend(wish.taken_in_part(&result, bounds));
    Some(problems.into_iter().next()?.message)
}

fn workspace_denial(wanted: &Capability, bounds: &CapabilityPolicy) -> Option<String> {
    folder_denial(WORKSPACE, wanted, bounds).map(|problem| problem.message)
}

/// Why bounds do not leave an agent what a rule of its launch names, if they do not.
fn why_launched(name: &str, workspace: Option<&str>, bounds: &CapabilityPolicy) -> Option<String> {
    let unknown = || Some(format!("{name} is no rule that is known here"));
    let (access, path) = match name.split_once(':') {
        // A device is one node, however it was meant.
        Some(("device", _)) => {
            return match name.parse::<Capability>() {
                Ok(capability) => {
                    why(&Rule { capability, allow: true, file: String::new(), line: 0 }, bounds)
                }
                Err(message) => Some(message),
            };
        }
        Some(("fs", rest)) => match rest.split_once(':') {
            Some(("read", path)) => (Some(Access::Read), path),
            Some(("write", path)) => (Some(Access::Write), path),
            _ => return unknown(),
        },
        Some(("exec", path)) => (None, path),
        _ => return unknown(),
    };
    let wanted = |path| match access {
        Some(access) => Capability::Fs { access, path },
        None => Capability::Exec(path),
    };
    if let (Some(_), INSIDE, Some(folder)) = (access, path, workspace) {
        return workspace_denial(&wanted(PathPattern::subtree_of(folder)), bounds);
    }
    let patterns = if path == "/**" {
        vec![PathPattern::everything()]
    } else {
        match PathPattern::one(path) {
            Ok(one) => vec![one, PathPattern::subtree_of(path)],
            Err(message) => return Some(message),
        }
    };
    patterns.into_iter().find_map(|pattern| {
        let rule = Rule { capability: wanted(pattern), allow: true, file: String::new(), line: 0 };
        why(&rule, bounds)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Overrides};

    fn parsed(spec: &str) -> AgentSpec {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  entry: x\n  {spec}\n"
        );
        AgentSpec::parse(text.as_bytes(), "agent.yml", Overrides::default(), &Context::builtin()).unwrap()
    }

    fn withheld(spec: &str, deny: &[&str]) -> Vec<String> {
        let spec = parsed(spec);
        let deny: Vec<String> = deny.iter().map(|rule| (*rule).to_owned()).collect();
        let bounds = CapabilityPolicy::everything_but(&deny, "rules").unwrap();
        spec.withheld_files(&bounds).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_rule_is_taken_as_a_whole() {
        let spec = "capabilities: [\"fs:read:/srv/in/**\", \"fs:write:/srv/out/**\", \"exec:/usr/bin/git\"]";
        assert_eq!(withheld(spec, &[]), [""; 0]);
        assert_eq!(withheld(spec, &["fs:read:/srv/in/**"]), ["fs:read:/srv/in"]);
        assert_eq!(withheld(spec, &["fs:read:/srv/in/a/b"]), ["fs:read:/srv/in"], "a part of it");
        assert_eq!(withheld(spec, &["fs:write:/srv/out/**"]), ["fs:write:/srv/out"], "it may still be read");
        assert_eq!(withheld(spec, &["fs:read:/srv/out/**"]), ["fs:write:/srv/out", "fs:read:/srv/out"]);
        assert_eq!(withheld(spec, &["exec:/usr/**"]), ["exec:/usr/bin/git"]);
        assert_eq!(withheld("capabilities: [subprocess]", &["exec:/usr/bin/git"]), ["exec:/**"]);
    }

    #[test]
    fn a_launch_is_judged_whatever_the_manifest_says_now() {
        let names = ["fs:read:/srv/in", "fs:read:/srv/file", "exec:/usr/bin/git", "fs:read:/workspace"];
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        let bounds = |allow: &[&str], deny: &[&str]| {
            let text = |all: &[&str]| all.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>();
            CapabilityPolicy::from_list(&text(allow), &text(deny), "rules").unwrap()
        };
        let of = |spec: Option<&AgentSpec>, bounds: &CapabilityPolicy| -> Vec<String> {
            let all = withheld_of_launch(&names, Some("/srv/work"), spec, bounds);
            all.into_iter().map(|(name, _)| name).collect()
        };
        let all = ["fs:read:/srv/**", "exec:/usr/bin/**"];
        assert_eq!(of(None, &bounds(&all, &[])), [""; 0]);
        assert_eq!(of(None, &bounds(&all, &["fs:read:/srv/in/a"])), ["fs:read:/srv/in"], "a part of it");
        assert_eq!(of(None, &bounds(&all, &["exec:/usr/bin/git"])), ["exec:/usr/bin/git"]);
        assert_eq!(
            of(None, &bounds(&all, &["fs:read:/srv/work/x"])),
            ["fs:read:/workspace"],
            "by its folder"
        );
        // Another manifest has this name now: it takes nothing and gives nothing back.
        let other = parsed("capabilities: [\"fs:read:/srv/else/**\"]\n  workspace: /srv/other");
        let deny = ["fs:read:/srv/in/**", "fs:read:/srv/else/**", "fs:read:/srv/work/**"];
        assert_eq!(of(Some(&other), &bounds(&all, &deny)), ["fs:read:/srv/in", "fs:read:/workspace"]);
        // Only a manifest knows that a path is one file's.
        let narrow =
            bounds(&["fs:read:/srv/in/**", "fs:read:/srv/work/**", "fs:read:/srv/file", "exec:/usr/**"], &[]);
        assert_eq!(of(None, &narrow), ["fs:read:/srv/file"]);
        assert_eq!(of(Some(&parsed("capabilities: [\"fs:read:/srv/file\"]")), &narrow), [""; 0]);
    }

    #[test]
    fn devices_are_taken_use_by_use() {
        let spec = "capabilities: [\"device:write:/dev/fuse\", \"device:read:/dev/net/tun\"]";
        assert_eq!(withheld(spec, &[]), [""; 0]);
        assert_eq!(
            withheld(spec, &["device:write:/dev/**"]),
            ["device:write:/dev/fuse"],
            "it may still be read"
        );
        let all = ["device:write:/dev/fuse", "device:read:/dev/fuse", "device:read:/dev/net/tun"];
        assert_eq!(withheld(spec, &["device:read:/dev/**"]), all);
        // Another manifest has this name now.
        let names: BTreeSet<String> = all.into_iter().map(str::to_owned).collect();
        let bounds = |allow: &str| CapabilityPolicy::from_list(&[allow.to_owned()], &[], "rules").unwrap();
        let of = |allow: &str| withheld_of_launch(&names, None, None, &bounds(allow)).len();
        assert_eq!((of("device:write:/dev/**"), of("device:write:/dev/fuse"), of("tool:*")), (0, 1, 3));
    }

    #[test]
    fn the_folder_at_the_workspace_is_one() {
        let spec = "workspace: /srv/work";
        assert_eq!(withheld(spec, &["fs:write:/srv/work/x"]), ["fs:write:/workspace"]);
        assert_eq!(withheld(spec, &["fs:read:/srv/**"]), ["fs:write:/workspace", "fs:read:/workspace"]);
        let only_read = "workspace: {path: /srv/work, read_only: true}";
        assert_eq!(withheld(only_read, &["fs:write:/srv/**"]), [""; 0]);
        // What the kernel API decides call by call is not the sandbox's.
        assert_eq!(withheld("capabilities: [filesystem]", &["fs:read:/workspace/**"]), [""; 0]);
    }
}
