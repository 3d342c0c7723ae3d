//! Counters of the detections. Their labels are names of rules, of which there is a bounded number, and words of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use aion_detect::{Engine, Finding};

use crate::figures::Whose;

/// Tenants with counters of their own; the others share one.
const TENANTS: usize = 64;
/// The same of agents.
const AGENTS: usize = 2000;
const OTHER: &str = "other";

#[derive(Default)]
pub(super) struct Figures {
    /// Records that were looked at.
    pub(super) events: u64,
    /// Records that were gone before.
    pub(super) lost: u64,
    /// Rules that were not taken.
    pub(super) refused_reloads: u64,
    found: BTreeMap<(String, &'static str, String), u64>,
    actions: BTreeMap<(&'static str, &'static str), u64>,
    tenants: BTreeSet<String>,
    /// By agent and severity.
    agents: BTreeMap<(Whose, &'static str), u64>,
}

impl Figures {
    /// `whose`: by name; none: it is no agent, or not on record any more.
    pub(super) fn found(&mut self, finding: &Finding, whose: Option<Whose>, result: &'static str) {
        let severity = finding.rule.severity.as_str();
        let is_known = |whose: &Whose| {
            self.agents.len() < AGENTS || self.agents.contains_key(&(whose.clone(), severity))
        };
        let other = || Whose { tenant: OTHER.to_owned(), agent: OTHER.to_owned() };
        let whose = whose.filter(is_known).unwrap_or_else(other);
        *self.agents.entry((whose, severity)).or_default() += 1;
        let tenant = if self.tenants.contains(&finding.tenant) || self.tenants.len() < TENANTS {
            self.tenants.insert(finding.tenant.clone());
            finding.tenant.clone()
        } else {
            OTHER.to_owned()
        };
        let rule = &finding.rule;
        *self.found.entry((rule.name.clone(), rule.severity.as_str(), tenant)).or_default() += 1;
        *self.actions.entry((rule.action.as_str(), result)).or_default() += 1;
    }

    pub(super) fn text(&self, engine: &Engine) -> String {
        let mut out = String::new();
        let mut head = |name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head("aion_detection_findings_total", "counter", "What detections found.");
        // One that never found anything is shown, so that an alert has something to compare with.
        for status in engine.status().iter().filter(|status| status.rule.enabled) {
            let (name, severity) = (&status.rule.name, status.rule.severity.as_str());
            if !self.found.keys().any(|(rule, ..)| rule == name) {
                let labels = format!("rule=\"{name}\",severity=\"{severity}\",tenant=\"default\"");
                let _ = writeln!(out, "aion_detection_findings_total{{{labels}}} 0");
            }
        }
        for ((rule, severity, tenant), count) in &self.found {
            let labels = format!("rule=\"{rule}\",severity=\"{severity}\",tenant=\"{tenant}\"");
            let _ = writeln!(out, "aion_detection_findings_total{{{labels}}} {count}");
        }
        let name = "aion_agent_findings_total";
        let _ = writeln!(out, "# HELP {name} What detections found, by agent.\n# TYPE {name} counter");
        for ((whose, severity), count) in &self.agents {
            let labels = format!("tenant=\"{}\",agent=\"{}\"", whose.tenant, whose.agent);
            let _ = writeln!(out, "{name}{{{labels},severity=\"{severity}\"}} {count}");
        }
        let name = "aion_detection_actions_total";
        let _ = writeln!(
            out,
            "# HELP {name} What was done about findings, and how it went.\n# TYPE {name} counter"
        );
        for ((action, result), count) in &self.actions {
            let _ = writeln!(out, "{name}{{action=\"{action}\",result=\"{result}\"}} {count}");
        }
        let suppressed: u64 = engine.status().iter().map(|status| status.suppressed).sum();
        let enabled = engine.status().iter().filter(|status| status.rule.enabled).count();
        for (name, kind, help, value) in [
            (
                "aion_detection_suppressed_total",
                "counter",
                "Findings while their rule was quiet.",
                suppressed,
            ),
            ("aion_detection_records_total", "counter", "Records that were looked at.", self.events),
            ("aion_detection_lost_records_total", "counter", "Records that were gone before.", self.lost),
            (
                "aion_detection_refused_reloads_total",
                "counter",
                "Rules that were not taken.",
                self.refused_reloads,
            ),
            (
                "aion_detection_evicted_agents_total",
                "counter",
                "Agents that were forgotten for want of room.",
                engine.evicted(),
            ),
            ("aion_detection_rules", "gauge", "Rules that are looked for.", count(enabled)),
            ("aion_detection_agents", "gauge", "Agents that are remembered.", count(engine.agents())),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        out
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
