//! Effective = global ∩ agent. Deny wins, and every answer names the rule that gave it.

use super::grammar::Capability;
use super::policy::{CapabilityPolicy, Rule};

/// Something that the agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What: what the agent asked for, or the part of it that the global rules allow.
    pub capability: Capability,
    /// Whether it is less than what was asked.
    pub narrowed: bool,
    /// The global rule that allows it.
    pub rule: Rule,
    /// Parts of it that are denied all the same.
    pub except: Vec<Exception>,
}

/// A part of a grant that is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The part.
    pub capability: Capability,
    /// The rule that denies it.
    pub rule: Rule,
}

/// Something that the agent asked for and does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it asked for.
    pub capability: Capability,
    /// The rule that denies it; none when no rule allows it.
    pub rule: Option<Rule>,
}

/// What an agent may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effective {
    /// What it has.
    pub granted: Vec<Grant>,
    /// What it asked for in vain.
    pub refused: Vec<Refusal>,
}

/// An answer about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may.
    pub allowed: bool,
    /// The rule that decided, as `policies/agent.capabilities.yaml:7: deny gpu`.
    pub rule: String,
}

/// Meets an agent's rules with the global ones.
#[must_use]
pub fn effective(global: &CapabilityPolicy, allow: &[Rule], deny: &[Rule]) -> Effective {
    let mut result = Effective::default();
    for asked in allow {
        let wanted = &asked.capability;
        let denials = || global.deny().iter().chain(deny);
        if let Some(rule) = denials().find(|d| d.capability.denies(wanted).as_ref() == Some(wanted)) {
            result.refused.push(Refusal { capability: wanted.clone(), rule: Some(rule.clone()) });
            continue;
        }
        let mut parts: Vec<Grant> = Vec::new();
        for rule in global.allow() {
            let Some(part) = rule.capability.meet(wanted) else { continue };
            if parts.iter().any(|g| g.capability.covers(&part)) {
                continue;
            }
            // A narrower part that another rule brought before is now redundant.
            parts.retain(|g| !part.covers(&g.capability));
            let except = denials()
                .filter_map(|d| Some(Exception { capability: d.capability.denies(&part)?, rule: d.clone() }))
                .collect();
            let narrowed = part != *wanted;
            parts.push(Grant { capability: part, narrowed, rule: rule.clone(), except });
        }
        if parts.is_empty() {
            result.refused.push(Refusal { capability: wanted.clone(), rule: None });
        }
        result.granted.append(&mut parts);
    }
    result
}

impl Effective {
    /// Whether a single thing may be done.
    #[must_use]
    pub fn check(&self, request: &Capability) -> Verdict {
        let mut covering = self.granted.iter().filter(|g| g.capability.covers(request)).peekable();
        if let Some(first) = covering.peek().map(|g| g.rule.to_string()) {
            let denied =
                covering.flat_map(|g| &g.except).find(|e| e.rule.capability.denies(request).is_some());
            return match denied {
                Some(exception) => Verdict { allowed: false, rule: exception.rule.to_string() },
                None => Verdict { allowed: true, rule: first },
            };
        }
        let by_rule =
            self.refused.iter().filter(|r| r.capability.covers(request)).find_map(|r| r.rule.as_ref());
        let rule = by_rule.map_or_else(|| format!("no rule allows {request}"), ToString::to_string);
        Verdict { allowed: false, rule }
    }
}
