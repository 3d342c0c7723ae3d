//! `policies/agent.capabilities.yaml`: what agents may have at all.

use std::fmt;

use aion_types::ErrorCode;

use super::effective::Verdict;
use super::grammar::{Capability, parse_rule};
use crate::bounds::{self, NetworkBound};
use crate::error::{Error, Problem};
use crate::raw;
use crate::yaml;

/// More rules than this are a mistake.
const MAX_RULES: usize = 1000;

/// Every family, whole.
const EVERYTHING: [&str; 11] = [
    "filesystem",
    "network",
    "gpu",
    "subprocess",
    "fs:write:/**",
    "tool:*",
    "model:*",
    "memory:*",
    "secret:use:*",
    "agent:send:*",
    "device:write:/dev/**",
];

/// A rule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub capability: Capability,
    /// Whether it allows.
    pub allow: bool,
    /// The file, or `command line`.
    pub file: String,
    /// The line; 0 when it is in no file.
    pub line: u64,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line != 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {} {}", if self.allow { "allow" } else { "deny" }, self.capability)
    }
}

/// What a person must agree to, each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// System calls, as `net.fetch`, `net.*` or `*`.
    Calls(String),
    /// Whatever needs the capability.
    Needs(Capability),
}

/// A rule that asks a person, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRule {
    /// What it is about.
    pub asked: Asked,
    /// The file.
    pub file: String,
    /// The line.
    pub line: u64,
}

impl fmt::Display for ApprovalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: approval ", self.file, self.line)?;
        match &self.asked {
            Asked::Calls(pattern) => f.write_str(pattern),
            Asked::Needs(capability) => write!(f, "{capability}"),
        }
    }
}

/// A pattern of system calls, or capabilities.
fn asked(text: &str) -> Result<Vec<Asked>, String> {
    // A coarse word, as network, has neither a colon nor a dot.
    if text.contains(':') || !text.contains(['.', '*']) {
        let (_, capabilities) = parse_rule(text)?;
        return Ok(capabilities.into_iter().map(Asked::Needs).collect());
    }
    let name = text.strip_suffix(".*").unwrap_or(text);
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let parts = name.split('.').count();
    let whole = if name.len() == text.len() { 2 } else { 1 };
    if text == "*" || (parts == whole && name.split('.').all(word)) {
        return Ok(vec![Asked::Calls(text.to_owned())]);
    }
    Err(format!("{text:?} is neither a system call nor a capability; write net.fetch, tool.* or tool:NAME"))
}

/// The global rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilityPolicy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    approval: Vec<ApprovalRule>,
    network: NetworkBound,
}

impl CapabilityPolicy {
    /// Reads the file's content; `file` is its name for messages and verdicts.
    ///
    /// # Errors
    /// [`Error`] with every problem that the file has.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let failed = |problems| Error::new(ErrorCode::ProfileInvalid, problems);
        let tree = yaml::parse(bytes, file).map_err(|m| failed(vec![*m.problem]))?;
        let document: raw::CapabilityPolicy = yaml::whole_from_node(&tree, file).map_err(failed)?;
        let mut problems = Vec::new();
        let mut read =
            |list: Vec<String>, field: &str, allow: bool| {
                let mut rules = Vec::new();
                for (i, text) in list.iter().enumerate().take(MAX_RULES) {
                    let path = format!("{field}[{i}]");
                    let place = tree.place_of(&path);
                    match parse_rule(text) {
                        Ok((_, capabilities)) => rules.extend(capabilities.into_iter().map(|capability| {
                            Rule { capability, allow, file: file.to_owned(), line: place.line }
                        })),
                        Err(text) => {
                            let (message, fix) = text.split_once("; ").unwrap_or((&text, ""));
                            problems.push(Problem {
                                file: file.to_owned(),
                                place: Some(place),
                                field: path,
                                message: message.to_owned(),
                                fix: fix.to_owned(),
                            });
                        }
                    }
                }
                if list.len() > MAX_RULES {
                    problems.push(Problem {
                        file: file.to_owned(),
                        place: Some(tree.place_of(field)),
                        field: field.to_owned(),
                        message: format!("there are {} rules, at most {MAX_RULES} are allowed", list.len()),
                        fix: String::new(),
                    });
                }
                rules
            };
        let allow = read(document.allow, "allow", true);
        let deny = read(document.deny, "deny", false);
        let mut approval = Vec::new();
        for (i, text) in document.approval.iter().enumerate() {
            let path = format!("approval[{i}]");
            let place = tree.place_of(&path);
            let wrong = |text: &str| {
                let (message, fix) = text.split_once("; ").unwrap_or((text, ""));
                let (message, fix) = (message.to_owned(), fix.to_owned());
                Problem { file: file.to_owned(), place: Some(place), field: path.clone(), message, fix }
            };
            match asked(text) {
                _ if i >= MAX_RULES => {
                    problems.push(wrong(&format!("there are more than {MAX_RULES} rules")));
                    break;
                }
                Ok(all) => approval.extend(all.into_iter().map(|asked| ApprovalRule {
                    asked,
                    file: file.to_owned(),
                    line: place.line,
                })),
                Err(text) => problems.push(wrong(&text)),
            }
        }
        let ceiling = document.resources.and_then(|resources| resources.network).unwrap_or_default();
        let limit = bounds::network(&ceiling, |line, message, fix| {
            let field = format!("resources.network.{line}");
            let place = Some(tree.place_of(&field));
            problems.push(Problem { file: file.to_owned(), place, field, message, fix });
        });
        let place = format!("{file}:{}", tree.place_of("resources.network").line);
        let network = NetworkBound { limit, place };
        if problems.is_empty() { Ok(Self { allow, deny, approval, network }) } else { Err(failed(problems)) }
    }

    /// Rules from a list, each of them allowed; `origin` is what verdicts name. An empty list allows nothing.
    ///
    /// # Errors
    /// Names the rule that cannot be read.
    pub fn from_list(allow: &[String], deny: &[String], origin: &str) -> Result<Self, String> {
        let read = |list: &[String], allow: bool| -> Result<Vec<Rule>, String> {
            if list.len() > MAX_RULES {
                return Err(format!("there are {} rules, at most {MAX_RULES} are allowed", list.len()));
            }
            let mut rules = Vec::new();
            for text in list {
                let (_, capabilities) = parse_rule(text)?;
                rules.extend(capabilities.into_iter().map(|capability| Rule {
                    capability,
                    allow,
                    file: origin.to_owned(),
                    line: 0,
                }));
            }
            Ok(rules)
        };
        let (allow, deny) = (read(allow, true)?, read(deny, false)?);
        Ok(Self { allow, deny, approval: Vec::new(), network: NetworkBound::NONE })
    }

    /// Rules that allow everything there is but what `deny` names; `origin` is what verdicts name.
    ///
    /// # Errors
    /// Names the rule that cannot be read.
    pub fn everything_but(deny: &[String], origin: &str) -> Result<Self, String> {
        Self::from_list(&EVERYTHING.map(str::to_owned), deny, origin)
    }

    /// Rules that allow nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), approval: Vec::new(), network: NetworkBound::NONE }
    }

    /// Whether these rules alone let a single thing be done.
    #[must_use]
    pub fn check(&self, request: &Capability) -> Verdict {
        if let Some(rule) = self.deny.iter().find(|rule| rule.capability.denies(request).is_some()) {
            return Verdict { allowed: false, rule: rule.to_string() };
        }
        match self.allow.iter().find(|rule| rule.capability.covers(request)) {
            Some(rule) => Verdict { allowed: true, rule: rule.to_string() },
            None => Verdict { allowed: false, rule: format!("no rule allows {request}") },
        }
    }

    /// What may be had.
    #[must_use]
    pub fn allow(&self) -> &[Rule] {
        &self.allow
    }

    /// What a person must agree to.
    #[must_use]
    pub fn approval(&self) -> &[ApprovalRule] {
        &self.approval
    }

    /// What may be used of a network at most.
    #[must_use]
    pub const fn network(&self) -> &NetworkBound {
        &self.network
    }

    /// What may not, whatever else says so.
    #[must_use]
    pub fn deny(&self) -> &[Rule] {
        &self.deny
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_everything() {
        let open = CapabilityPolicy::everything_but(&["tool:rm".to_owned()], "x").unwrap();
        for text in [
            "fs:read:/etc",
            "fs:write:/workspace/x",
            "net:connect:example.com:443",
            "exec:/usr/bin/git",
            "tool:x",
            "model:x",
            "memory:put:short",
            "secret:use:x",
            "agent:send:x",
            "device:write:/dev/fuse",
            "gpu",
        ] {
            assert!(open.check(&text.parse().unwrap()).allowed, "{text}");
        }
        assert_eq!(open.check(&"tool:rm".parse().unwrap()).rule, "x: deny tool:rm");
    }
}
