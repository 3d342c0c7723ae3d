//! Events and rules for tests.

use aion_detect::{
    Action, Engine, Event, FieldType, Filter, Finding, KindId, Op, Rule, Severity, Test, When, Who,
};
use serde_json::{Value, json};

pub(crate) const S: u64 = 1_000_000_000;
/// A time at which parts of windows begin.
pub(crate) const T0: u64 = 1_700_000_000 * S;

pub(crate) fn rule(name: &str, window_s: u64, when: When) -> Rule {
    Rule {
        name: name.to_owned(),
        description: String::new(),
        severity: Severity::High,
        tags: Vec::new(),
        window_ns: window_s * S,
        when,
        action: Action::Alert,
        exceptions: Vec::new(),
        enabled: true,
    }
}

pub(crate) fn kinds(names: &[&str]) -> Filter {
    Filter { kinds: names.iter().map(|name| KindId::parse(name).unwrap()).collect(), tests: Vec::new() }
}

pub(crate) fn test(field: &str, kind: FieldType, op: Op) -> Test {
    Test { field: field.to_owned(), kind, op }
}

pub(crate) struct Stream {
    pub(crate) engine: Engine,
    pub(crate) findings: Vec<Finding>,
    seq: u64,
}

impl Stream {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self { engine: Engine::new(rules), findings: Vec::new(), seq: 0 }
    }

    /// An event of agent `a`; gives how many findings it makes.
    pub(crate) fn tell(&mut self, time_ns: u64, kind: &str, detail: Value) -> usize {
        self.tell_of("a", time_ns, kind, "allowed", detail)
    }

    pub(crate) fn tell_of(
        &mut self,
        agent: &str,
        time_ns: u64,
        kind: &str,
        verdict: &str,
        detail: Value,
    ) -> usize {
        self.seq += 1;
        let before = self.findings.len();
        let detail = if detail.is_null() { json!({}) } else { detail };
        let event = Event {
            who: Who { agent, name: agent, tenant: "default" },
            kind: KindId::parse(kind).unwrap(),
            verdict,
            time_ns,
            seq: self.seq,
            detail: detail.as_object().unwrap(),
        };
        self.engine.observe(&event, &mut self.findings);
        self.findings.len() - before
    }
}
