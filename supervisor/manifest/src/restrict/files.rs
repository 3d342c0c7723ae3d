//! Files and programs of a running agent that bounds do not leave it, rule by rule.

use super::{WORKSPACE, Wish, folder_denial};
use crate::capability::{Access, Capability, CapabilityPolicy, Rule, effective};
use crate::spec::{AgentSpec, Network};

impl AgentSpec {
    /// What of the files and programs that its sandbox gives bounds do not leave the agent, and why: each as aion-launcher names it.
    ///
    /// A rule is taken as a whole, as it was given: one that denies a part of a folder withholds the folder. Who may not write may
    /// still read.
    #[must_use]
    pub fn withheld_files(&self, bounds: &CapabilityPolicy) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        let mut withhold = |name: String, why: Option<String>| {
            if let Some(why) = why
                && !all.iter().any(|(known, _)| *known == name)
            {
                all.push((name, why));
            }
        };
        for rule in self.allow.iter().filter(|rule| rule.capability.is_enforced_by_sandbox()) {
            match &rule.capability {
                Capability::Fs { access, path } => {
                    let own = |access| Capability::Fs { access, path: path.clone() };
                    for (word, access) in words(*access) {
                        withhold(format!("fs:{word}:{}", path.path()), why(rule, own(access), bounds));
                    }
                }
                Capability::Exec(path) => {
                    let name = if path.path() == "/" {
                        "exec:/**".to_owned()
                    } else {
                        format!("exec:{}", path.path())
                    };
                    withhold(name, why(rule, rule.capability.clone(), bounds));
                }
                _ => {}
            }
        }
        if let Some((field, Capability::Fs { access, path })) =
            self.folders().find(|(field, _)| *field == WORKSPACE)
        {
            for (word, access) in words(access) {
                let wanted = Capability::Fs { access, path: path.clone() };
                let why = folder_denial(field, &wanted, bounds).map(|problem| problem.message);
                withhold(format!("fs:{word}:/workspace"), why);
            }
        }
        all
    }
}

/// Who writes also reads.
fn words(access: Access) -> impl Iterator<Item = (&'static str, Access)> {
    let both = [("write", Access::Write), ("read", Access::Read)];
    both.into_iter().filter(move |(_, one)| *one <= access)
}

/// Why bounds do not leave it whole, if they do not.
fn why(rule: &Rule, wanted: Capability, bounds: &CapabilityPolicy) -> Option<String> {
    let allow = [Rule { capability: wanted, ..rule.clone() }];
    let wish = Wish { allow: &allow, deny: &[], network: Network::None };
    let result = effective(bounds, &allow, &[]);
    let mut problems = wish.refused(&result, |_| true);
    problems.extend(wish.taken_in_part(&result, bounds));
    Some(problems.into_iter().next()?.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Overrides};

    fn withheld(spec: &str, deny: &[&str]) -> Vec<String> {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n  entry: x\n  {spec}\n"
        );
        let spec = AgentSpec::parse(text.as_bytes(), "agent.yml", Overrides::default(), &Context::builtin())
            .unwrap();
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
