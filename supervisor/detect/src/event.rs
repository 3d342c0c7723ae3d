//! An event as the engine sees it: who, when, what, and its fields by name.

use std::borrow::Cow;
use std::fmt;
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

/// What an event tells, by name.
pub trait Fields: fmt::Debug {
    /// What a field says; none where it is not there or of no type that a rule can ask for.
    fn field(&self, name: &str) -> Option<Field<'_>>;
}

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field<'a> {
    /// A text; a list's words with spaces between.
    Text(Cow<'a, str>),
    /// A whole number.
    Number(i64),
    /// A flag.
    Flag(bool),
}

impl Field<'_> {
    pub(crate) fn as_ref(&self) -> Field<'_> {
        match self {
            Self::Text(text) => Field::Text(Cow::Borrowed(text)),
            Self::Number(number) => Field::Number(*number),
            Self::Flag(flag) => Field::Flag(*flag),
        }
    }
}

impl Fields for Map<String, Value> {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        match self.get(name)? {
            Value::String(text) => Some(Field::Text(Cow::Borrowed(text))),
            Value::Array(items) => {
                let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                Some(Field::Text(Cow::Owned(words.join(" "))))
            }
            Value::Number(number) => Some(match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Field::Number(number),
                (None, Some(_)) => Field::Number(i64::MAX),
                (None, None) => Field::Text(Cow::Owned(number.to_string())),
            }),
            Value::Bool(flag) => Some(Field::Flag(*flag)),
            Value::Null | Value::Object(_) => None,
        }
    }
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
    pub detail: &'a dyn Fields,
}

impl Event<'_> {
    /// A text; empty where there is none.
    pub(crate) fn text(&self, field: &str) -> Cow<'_, str> {
        if field == "verdict" {
            return Cow::Borrowed(self.verdict);
        }
        match self.detail.field(field) {
            Some(Field::Text(text)) => text,
            Some(Field::Number(number)) => Cow::Owned(number.to_string()),
            Some(Field::Flag(_)) | None => Cow::Borrowed(""),
        }
    }

    /// A number, where there is one.
    pub(crate) fn number(&self, field: &str) -> Option<i64> {
        if field == "times" {
            return Some(self.times());
        }
        self.whole(field)
    }

    fn whole(&self, field: &str) -> Option<i64> {
        match self.detail.field(field)? {
            Field::Number(number) => Some(number),
            Field::Text(_) | Field::Flag(_) => None,
        }
    }

    /// Whether a flag is set.
    pub(crate) fn flag(&self, field: &str) -> bool {
        match field {
            "loopback" => {
                self.text("addr").parse::<IpAddr>().is_ok_and(|addr| addr.to_canonical().is_loopback())
            }
            _ => self.detail.field(field) == Some(Field::Flag(true)),
        }
    }

    /// For how many of its kind it stands: some are told once, with a count.
    fn times(&self) -> i64 {
        let told = ["count", "refused"].into_iter().find_map(|name| self.whole(name));
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
