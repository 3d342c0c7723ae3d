//! Records: what a caller hands in, and what a reader gets.

use serde::Serialize;
use serde_json::Value;

use crate::{Error, Hash, Result};

/// The most bytes of one text field.
pub const MAX_FIELD: usize = 4096;
/// The most bytes of a detail.
pub const MAX_DETAIL: usize = 65_536;

/// A record to be appended. Empty texts are allowed; `time_ns` 0 means now.
#[derive(Debug, Clone, Default)]
pub struct NewRecord<'a> {
    /// Wall clock, ns since 1970.
    pub time_ns: u64,
    /// Whose.
    pub tenant: &'a str,
    /// The agent's id.
    pub agent: &'a str,
    /// The task it worked on.
    pub task: &'a str,
    /// The trace it belongs to.
    pub trace: &'a str,
    /// What happened, e.g. `proc.exec`.
    pub kind: &'a str,
    /// `allowed`, `denied` or `error`.
    pub verdict: &'a str,
    /// The rule that decided.
    pub rule: &'a str,
    /// Everything else.
    pub detail: Detail,
}

impl NewRecord<'_> {
    pub(crate) fn check(&self) -> Result<()> {
        for (field, text) in [
            ("tenant", self.tenant),
            ("agent", self.agent),
            ("task", self.task),
            ("trace", self.trace),
            ("kind", self.kind),
            ("verdict", self.verdict),
            ("rule", self.rule),
        ] {
            if text.len() > MAX_FIELD {
                return Err(Error::TooLong { field, len: text.len(), max: MAX_FIELD });
            }
        }
        Ok(())
    }
}

/// A JSON object on one line, checked when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail(String);

impl Detail {
    /// Parses untrusted text. It is stored compact, with the last of doubled keys.
    ///
    /// # Errors
    /// When it is not a JSON object, is nested deeper than 127, or is longer than [`MAX_DETAIL`].
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_DETAIL {
            return Err(Error::TooLong { field: "detail", len: text.len(), max: MAX_DETAIL });
        }
        let value = serde_json::from_str(text).map_err(|e| Error::DetailInvalid { why: e.to_string() })?;
        Self::from_value(&value)
    }

    /// Takes an object.
    ///
    /// # Errors
    /// When the value is not an object or is longer than [`MAX_DETAIL`].
    pub fn from_value(value: &Value) -> Result<Self> {
        if !value.is_object() {
            return Err(Error::DetailInvalid { why: "another JSON type".to_owned() });
        }
        Self::of(value)
    }

    /// Serialises a struct or map. It must serialise as an object and hold no raw JSON.
    ///
    /// # Errors
    /// When it does not serialise as an object or is longer than [`MAX_DETAIL`].
    pub fn of(object: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(object).map_err(|e| Error::DetailInvalid { why: e.to_string() })?;
        if text.len() > MAX_DETAIL {
            return Err(Error::TooLong { field: "detail", len: text.len(), max: MAX_DETAIL });
        }
        // serde_json escapes control characters, so only raw values could bring a line end in.
        if !text.starts_with('{') || text.bytes().any(|b| b == b'\n') {
            return Err(Error::DetailInvalid {
                why: "it does not serialise as an object on one line".to_owned(),
            });
        }
        Ok(Self(text))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Detail {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; the first is 1, and none is used twice.
    pub seq: u64,
    /// Wall clock, ns since 1970.
    pub time_ns: u64,
    /// Whose.
    pub tenant: String,
    /// The agent's id.
    pub agent: String,
    /// The task it worked on.
    pub task: String,
    /// The trace it belongs to.
    pub trace: String,
    /// What happened.
    pub kind: String,
    /// `allowed`, `denied` or `error`.
    pub verdict: String,
    /// The rule that decided.
    pub rule: String,
    /// Everything else: a JSON object.
    pub detail_json: String,
    /// The chain up to and with this record.
    pub hash: Hash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_one_object_on_one_line() {
        assert_eq!(Detail::parse("{ \"a\" :\n 1 }").unwrap().as_str(), r#"{"a":1}"#);
        assert_eq!(Detail::parse(r#"{"a":"x\ny"}"#).unwrap().as_str(), r#"{"a":"x\ny"}"#);
        for bad in [
            "",
            "1",
            "[]",
            "{",
            "{}{}",
            "{}\n{\"seq\":9}",
            &"[".repeat(60_000),
            &format!("{{\"a\":{}", "[".repeat(200)),
        ] {
            assert!(Detail::parse(bad).is_err(), "{}", &bad[..bad.len().min(40)]);
        }
        assert!(Detail::of(&"text").is_err());
        assert!(Detail::parse(&format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_DETAIL))).is_err());
    }
}
