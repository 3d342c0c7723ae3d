//! Rows of the event index, and what a reader may ask of them.

use aion_types::{AgentId, TenantId};

/// One audit record, as indexed. Protobuf, because there are many of them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EventRow {
    /// The record's sequence number in the audit log; also its cursor.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// Wall clock, ns since 1970.
    #[prost(uint64, tag = "2")]
    pub time_ns: u64,
    /// Whose it is; empty for records of the host.
    #[prost(string, tag = "3")]
    pub tenant: String,
    /// The agent's id; empty when the record is about none.
    #[prost(string, tag = "4")]
    pub agent: String,
    /// Task, when there is one.
    #[prost(string, tag = "5")]
    pub task: String,
    /// Trace, when there is one.
    #[prost(string, tag = "6")]
    pub trace: String,
    /// For example `proc.exec`.
    #[prost(string, tag = "7")]
    pub kind: String,
    /// allowed, denied, error or empty.
    #[prost(string, tag = "8")]
    pub verdict: String,
    /// The rule that decided, when one did.
    #[prost(string, tag = "9")]
    pub rule: String,
    /// The rest, as one JSON object.
    #[prost(string, tag = "10")]
    pub detail_json: String,
}

/// A kind, or all kinds below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KindPattern {
    /// Exactly this.
    Exact(String),
    /// Everything that begins so; the text ends with a dot.
    Below(String),
}

impl KindPattern {
    /// Reads `net.connect` or `net.*`. None when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = |s: &str| {
            !s.is_empty()
                && s.len() <= 64
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b))
        };
        match text.strip_suffix(".*") {
            Some(prefix) if word(prefix) => Some(Self::Below(format!("{prefix}."))),
            Some(_) => None,
            None if word(text) => Some(Self::Exact(text.to_owned())),
            None => None,
        }
    }

    fn matches(&self, kind: &str) -> bool {
        match self {
            Self::Exact(exact) => kind == exact,
            Self::Below(prefix) => kind.starts_with(prefix.as_str()),
        }
    }
}

/// What a reader wants to see. Empty lists mean "any".
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// Only this tenant's records.
    pub tenant: TenantId,
    /// Also the host's own records, which belong to no tenant.
    pub host_records: bool,
    /// Only of these agents.
    pub agents: Vec<AgentId>,
    /// Only of these kinds.
    pub kinds: Vec<KindPattern>,
    /// Only with these verdicts.
    pub verdicts: Vec<String>,
    /// Not older.
    pub since_ns: Option<u64>,
    /// Not younger.
    pub until_ns: Option<u64>,
}

impl EventQuery {
    /// Everything that a tenant may see.
    #[must_use]
    pub const fn of_tenant(tenant: TenantId, host_records: bool) -> Self {
        Self {
            tenant,
            host_records,
            agents: Vec::new(),
            kinds: Vec::new(),
            verdicts: Vec::new(),
            since_ns: None,
            until_ns: None,
        }
    }

    /// Whether a row is among what was asked for.
    #[must_use]
    pub fn matches(&self, row: &EventRow) -> bool {
        let visible = row.tenant == self.tenant.as_str() || (self.host_records && row.tenant.is_empty());
        visible
            && (self.agents.is_empty() || self.agents.iter().any(|id| id.as_str() == row.agent))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.matches(&row.kind)))
            && (self.verdicts.is_empty() || self.verdicts.contains(&row.verdict))
            && self.since_ns.is_none_or(|t| row.time_ns >= t)
            && self.until_ns.is_none_or(|t| row.time_ns <= t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert_eq!(KindPattern::parse("net.*"), Some(KindPattern::Below("net.".into())));
        assert_eq!(KindPattern::parse("net.connect"), Some(KindPattern::Exact("net.connect".into())));
        for bad in ["", ".*", "*", "n*t", "net.*.x*", "NET"] {
            assert_eq!(KindPattern::parse(bad), None, "{bad}");
        }
        let net = KindPattern::parse("net.*").unwrap();
        assert!(net.matches("net.bind") && !net.matches("network") && !net.matches("net"));
    }

    #[test]
    fn a_tenant_sees_its_own() {
        let row = |tenant: &str| EventRow { tenant: tenant.into(), ..EventRow::default() };
        let mut query = EventQuery::of_tenant(TenantId::parse("a").unwrap(), false);
        assert!(query.matches(&row("a")) && !query.matches(&row("b")) && !query.matches(&row("")));
        query.host_records = true;
        assert!(query.matches(&row("")) && !query.matches(&row("b")));
    }
}
