//! A record on its way to the log.

use std::borrow::Cow;

use aion_audit::{Detail, NewRecord};
use serde_json::Value;

use crate::request::AuditEntry;

/// A record that owns its texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// Wall clock; 0 for now.
    pub(crate) time_ns: u64,
    pub(crate) tenant: String,
    pub(crate) agent: String,
    pub(crate) task: String,
    pub(crate) trace: String,
    pub(crate) kind: Cow<'static, str>,
    pub(crate) verdict: Cow<'static, str>,
    pub(crate) rule: Cow<'static, str>,
    pub(crate) detail: Detail,
}

impl Entry {
    /// One of the launcher's own.
    pub(crate) fn new(kind: &'static str, verdict: &'static str, detail: &Value) -> Self {
        // Only an object that is too long does not fit, and ours are bounded.
        let detail = Detail::from_value(detail).unwrap_or_default();
        Self { kind: kind.into(), verdict: verdict.into(), detail, ..Self::default() }
    }

    pub(crate) fn of(mut self, tenant: &str, agent: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        agent.clone_into(&mut self.agent);
        self
    }

    pub(crate) fn at(mut self, time_ns: u64) -> Self {
        self.time_ns = time_ns;
        self
    }

    pub(crate) fn rule(mut self, rule: impl Into<Cow<'static, str>>) -> Self {
        self.rule = rule.into();
        self
    }

    pub(crate) fn as_new(&self) -> NewRecord<'_> {
        NewRecord {
            time_ns: self.time_ns,
            tenant: &self.tenant,
            agent: &self.agent,
            task: &self.task,
            trace: &self.trace,
            kind: &self.kind,
            verdict: &self.verdict,
            rule: &self.rule,
            detail: self.detail.clone(),
        }
    }
}

impl From<AuditEntry> for Entry {
    fn from(e: AuditEntry) -> Self {
        Self {
            time_ns: 0,
            tenant: e.tenant,
            agent: e.agent,
            task: e.task,
            trace: e.trace,
            kind: e.kind.into(),
            verdict: e.verdict.into(),
            rule: e.rule.into(),
            detail: e.detail,
        }
    }
}
