//! An event as the engine sees it: who, when, what, and its fields by name.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::kinds::KindId;

/// The kind of a sample: what an agent used since the one before. It is no record of the audit log.
pub const SAMPLE: &str = "agent.sample";

/// Whose event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// The agent's id.
    pub agent: &'a str,
    /// Its name, for exceptions.
    pub name: &'a str,
    /// Its tenant.
    pub tenant: &'a str,
}

/// One event.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Whose.
    pub who: Who<'a>,
    /// What happened.
    pub kind: KindId,
    /// `allowed`, `denied` or `error`.
    pub verdict: &'a str,
    /// Wall clock, ns.
    pub time_ns: u64,
    /// The record's number in the audit log; 0 for a sample.
    pub seq: u64,
    /// The record's detail.
    pub detail: &'a Map<String, Value>,
}

impl Event<'_> {
    /// A text; empty where there is none.
    pub(crate) fn text(&self, field: &str) -> Cow<'_, str> {
        if field == "verdict" {
            return Cow::Borrowed(self.verdict);
        }
        match self.detail.get(field) {
            Some(Value::String(text)) => Cow::Borrowed(text),
            Some(Value::Array(items)) => {
                let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                Cow::Owned(words.join(" "))
            }
            Some(Value::Number(number)) => Cow::Owned(number.to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    /// A number, where there is one.
    pub(crate) fn number(&self, field: &str) -> Option<i64> {
        if field == "times" {
            return Some(self.times());
        }
        let number = self.detail.get(field)?;
        number.as_i64().or_else(|| number.as_u64().map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, field: &str) -> bool {
        match field {
            "loopback" => {
                self.text("addr").parse::<IpAddr>().is_ok_and(|addr| addr.to_canonical().is_loopback())
            }
            _ => self.detail.get(field).and_then(Value::as_bool).unwrap_or_default(),
        }
    }

    /// For how many of its kind it stands: some are told once, with a count.
    fn times(&self) -> i64 {
        let told = ["count", "refused"].into_iter().find_map(|name| self.detail.get(name)?.as_i64());
        told.unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_read_by_type() {
        let detail = json!({"argv": ["sh", "-c", "x"], "port": 443, "addr": "::ffff:127.0.0.1", "count": 7});
        let event = Event {
            who: Who { agent: "a", name: "n", tenant: "t" },
            kind: KindId::parse("net.connect").unwrap(),
            verdict: "denied",
            time_ns: 1,
            seq: 1,
            detail: detail.as_object().unwrap(),
        };
        assert_eq!(event.text("argv"), "sh -c x");
        assert_eq!(event.text("verdict"), "denied");
        assert_eq!(
            (event.number("port"), event.number("addr"), event.number("times")),
            (Some(443), None, Some(7))
        );
        assert!(event.flag("loopback") && !event.flag("memfd"));
    }
}
