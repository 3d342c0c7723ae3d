//! `policies/agent.capabilities.yaml`: what agents may have at all.

use std::fmt;

use aion_types::ErrorCode;

use super::effective::Verdict;
use super::grammar::{Capability, parse_rule};
use crate::error::{Error, Problem};
use crate::raw;
use crate::yaml;

/// More rules than this are a mistake.
const MAX_RULES: usize = 1000;

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

/// The global rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilityPolicy {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl CapabilityPolicy {
    /// Reads the file's content; `file` is its name for messages and verdicts.
    ///
    /// # Errors
    /// [`Error`] with every problem that the file has.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let failed = |problems| Error::new(ErrorCode::ProfileInvalid, problems);
        let tree = yaml::parse(bytes, file).map_err(|m| failed(vec![*m.problem]))?;
        let document: raw::CapabilityPolicy = yaml::from_node(&tree, file).map_err(|p| failed(vec![p]))?;
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
        if problems.is_empty() { Ok(Self { allow, deny }) } else { Err(failed(problems)) }
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
        Ok(Self { allow: read(allow, true)?, deny: read(deny, false)? })
    }

    /// Rules that allow nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { allow: Vec::new(), deny: Vec::new() }
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

    /// What may not, whatever else says so.
    #[must_use]
    pub fn deny(&self) -> &[Rule] {
        &self.deny
    }
}
