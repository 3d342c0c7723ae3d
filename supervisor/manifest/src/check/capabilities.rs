//! Capabilities: coarse and fine words become rules; then what the sandbox makes of them.

use std::path::PathBuf;

use super::Checker;
use crate::capability::{Capability, Coarse, HostPattern, PortPattern, Rule, parse_rule};
use crate::raw;
use crate::spec::{ExecPolicy, Network};

const FIELD: &str = "spec.capabilities";
const MAX_RULES: usize = 256;

impl Checker<'_> {
    /// What is allowed and what is denied.
    pub(super) fn rules(&mut self, given: Option<raw::ListOr<raw::Capabilities>>) -> (Vec<Rule>, Vec<Rule>) {
        let (mut allow, mut deny) = (Vec::new(), Vec::new());
        match given {
            None => {}
            Some(raw::ListOr::List(list)) => self.list(FIELD, &list, true, &mut allow),
            Some(raw::ListOr::Full(c)) => {
                let flags = [
                    (Coarse::Filesystem, c.filesystem),
                    (Coarse::Network, c.network),
                    (Coarse::Gpu, c.gpu),
                    (Coarse::Subprocess, c.subprocess),
                ];
                for (coarse, _) in flags.into_iter().filter(|(_, flag)| *flag == Some(true)) {
                    let field = format!("{FIELD}.{}", coarse.as_str());
                    allow.extend(coarse.expand().into_iter().map(|c| self.rule(c, true, &field)));
                }
                self.list(&format!("{FIELD}.allow"), &c.allow, true, &mut allow);
                self.list(&format!("{FIELD}.deny"), &c.deny, false, &mut deny);
            }
        }
        (allow, deny)
    }

    fn rule(&self, capability: Capability, allow: bool, field: &str) -> Rule {
        Rule { capability, allow, file: self.file().to_owned(), line: self.line(field) }
    }

    fn list(&mut self, field: &str, list: &[String], allow: bool, rules: &mut Vec<Rule>) {
        if list.len() > MAX_RULES {
            self.problem(field, &format!("there are {} rules, at most {MAX_RULES} are allowed", list.len()));
        }
        for (i, text) in list.iter().enumerate().take(MAX_RULES) {
            let item = format!("{field}[{i}]");
            match parse_rule(text) {
                Ok((_, capabilities)) => {
                    for capability in capabilities {
                        let rule = self.rule(capability, allow, &item);
                        // The same in coarse and in fine words is one rule.
                        if !rules.iter().any(|r: &Rule| r.capability == rule.capability) {
                            rules.push(rule);
                        }
                    }
                }
                Err(text) => self.problem(&item, &text),
            }
        }
    }

    /// The field that a rule came from, for messages.
    pub(super) fn rule_field(&self, rule: &Rule) -> String {
        let text = rule.capability.to_string();
        let node = |field: &str| {
            (0..MAX_RULES)
                .map(|i| format!("{field}[{i}]"))
                .take_while(|f| self.has(f))
                .find(|f| self.text(f).is_some_and(|t| t == text))
        };
        node(FIELD).or_else(|| node(&format!("{FIELD}.allow"))).unwrap_or_else(|| FIELD.to_owned())
    }

    pub(super) fn network(
        &mut self,
        given: Option<raw::NetworkMode>,
        allow: &[Rule],
        deny: &[Rule],
    ) -> Network {
        const FIELD: &str = "spec.network";
        match given {
            None | Some(raw::NetworkMode::None) => Network::None,
            Some(raw::NetworkMode::Egress) => {
                self.egress(allow, deny);
                Network::Egress
            }
            Some(raw::NetworkMode::Host) => {
                let everything = Capability::Net { host: HostPattern::Any, port: PortPattern::Any };
                let is_net = |r: &&Rule| matches!(r.capability, Capability::Net { .. });
                if let Some(rule) = deny.iter().find(is_net) {
                    let text = format!(
                        "{rule} cannot be enforced on the host's network; use network none, or remove the rule"
                    );
                    self.problem(FIELD, &text);
                } else if !allow.iter().any(|r| r.capability == everything) {
                    match allow.iter().find(is_net) {
                        Some(rule) => self.problem(
                            FIELD,
                            &format!(
                                "{} cannot be enforced on the host's network, which reaches every host; use network none, or allow network as a whole",
                                rule.capability
                            ),
                        ),
                        None => self.problem(
                            FIELD,
                            "the host's network needs the capability network; add network: true to spec.capabilities",
                        ),
                    }
                } else if let Some(rule) = allow.iter().find(|r| is_net(r) && r.capability != everything) {
                    let text = format!(
                        "{} has no effect beside network: true and the host's network, which reach every host; remove one of them",
                        rule.capability
                    );
                    self.problem(FIELD, &text);
                }
                Network::Host
            }
        }
    }

    /// Whether the sandbox can hold an agent to these rules.
    fn egress(&mut self, allow: &[Rule], deny: &[Rule]) {
        const FIELD: &str = "spec.network";
        let is_net = |r: &&Rule| matches!(r.capability, Capability::Net { .. });
        if let Some(rule) = deny.iter().find(is_net) {
            let text = format!(
                "{rule} has no effect in network mode egress, which reaches what is allowed and nothing else; allow hosts one by one, without this rule"
            );
            self.problem(FIELD, &text);
        }
        let mut all = Vec::new();
        for rule in allow.iter().filter(is_net) {
            let Capability::Net { host, port } = &rule.capability else { continue };
            let read = format!("{host}:{port}").parse().and_then(|one: aion_egress::Rule| {
                aion_egress::Rules::new(vec![one.clone()])?;
                Ok(one)
            });
            match read {
                Ok(one) => all.push(one),
                Err(text) => {
                    let field = self.rule_field(rule);
                    self.problem(&field, &text);
                }
            }
        }
        if all.is_empty() && deny.iter().all(|r| !is_net(&r)) {
            self.warning(format!("{FIELD}: egress without a net:connect: capability reaches nothing"));
        } else if let Err(text) = aion_egress::Rules::new(all) {
            self.problem(FIELD, &format!("{text}; name domains or blocks instead of single hosts"));
        }
    }

    /// What may be executed.
    pub(super) fn exec(&mut self, allow: &[Rule], deny: &[Rule]) -> ExecPolicy {
        let mut listed = Vec::new();
        let mut any = false;
        for rule in allow {
            let Capability::Exec(path) = &rule.capability else { continue };
            if deny.iter().any(|d| d.capability.denies(&rule.capability).as_ref() == Some(&rule.capability)) {
                continue;
            }
            if let Some(d) = deny.iter().find(|d| d.capability.denies(&rule.capability).is_some()) {
                let field = self.rule_field(rule);
                let text = format!(
                    "{} cannot be taken out of {}; allow what may be executed, one by one",
                    d.capability, rule.capability
                );
                self.problem(&field, &text);
                continue;
            }
            if path.path() == "/" {
                any = true;
            } else {
                listed.push(PathBuf::from(path.path()));
            }
        }
        if any && !listed.is_empty() {
            self.warning("spec.capabilities: exec: rules add nothing to subprocess: true".to_owned());
        }
        listed.sort();
        listed.dedup();
        match (any, listed.is_empty()) {
            (true, _) => ExecPolicy::Any,
            (false, true) => ExecPolicy::EntryOnly,
            (false, false) => ExecPolicy::Listed(listed),
        }
    }
}
