//! A span, made when what it tells of has ended.

use aion_types::TraceParent;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as Told, Status};
use sha2::{Digest as _, Sha256};

/// Where a span belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOf {
    trace: [u8; 16],
    parent: Option<[u8; 8]>,
    sampled: bool,
}

impl TraceOf {
    /// The trace that a caller names, in its own words: 32 hexadecimal digits, with or without the hyphens of a UUID, are the
    /// trace; another text stands for the one that its hash names; with none it is a new one. `parent` counts when it is of that trace.
    #[must_use]
    pub fn named(name: &str, parent: Option<TraceParent>) -> Self {
        let parent = parent.filter(|parent| name.is_empty() || parent.trace_id() == name);
        if let Some(parent) = parent {
            return Self { trace: parent.trace, parent: Some(parent.span), sampled: parent.sampled };
        }
        let digits: String = name.chars().filter(|c| *c != '-').collect();
        let mut trace = [0; 16];
        let is_id = hex::decode_to_slice(&digits, &mut trace).is_ok() && trace != [0; 16];
        if name.is_empty() {
            trace = random();
        } else if !is_id {
            trace.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
        }
        Self { trace, parent: None, sampled: true }
    }
}

/// What is told of a span besides.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A number with a fraction.
    Fraction(f64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Attribute {
    fn from(number: f64) -> Self {
        Self::Fraction(number)
    }
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// As `kernel.syscall`.
    pub name: &'static str,
    /// Where it belongs.
    pub of: TraceOf,
    /// When it began, nanoseconds since 1970.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// What is told besides; empty texts are left out.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The code of an error; none: it was done.
    pub error: Option<String>,
}

impl Span {
    /// Whether the caller wants to see it.
    pub(crate) const fn is_sampled(&self) -> bool {
        self.of.sampled
    }

    pub(crate) fn told(self) -> Told {
        let attributes = self.attributes.into_iter().filter_map(|(key, value)| {
            let value = match value {
                Attribute::Text(text) if text.is_empty() => return None,
                Attribute::Text(text) => Value::StringValue(text),
                Attribute::Number(number) => Value::IntValue(number),
                Attribute::Fraction(number) => Value::DoubleValue(number),
            };
            Some(key_value(key, value))
        });
        let status = self.error.map(|code| Status { message: code, code: StatusCode::Error.into() });
        Told {
            trace_id: self.of.trace.to_vec(),
            span_id: random::<8>().to_vec(),
            parent_span_id: self.of.parent.map(|span| span.to_vec()).unwrap_or_default(),
            name: self.name.to_owned(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: self.began_ns,
            end_time_unix_nano: self.ended_ns.max(self.began_ns),
            attributes: attributes.collect(),
            status,
            ..Told::default()
        }
    }
}

pub(crate) fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Chance; never zero, which stands for no id.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() || bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_trace_is_the_caller_s() {
        let parent = TraceParent::parse(PARENT).unwrap();
        let of = TraceOf::named("", Some(parent));
        assert_eq!((of.trace, of.parent, of.sampled), (parent.trace, Some(parent.span), false));
        assert_eq!(TraceOf::named(&parent.trace_id(), Some(parent)), of);
        // Another trace was named: that is what counts.
        let other = TraceOf::named("11111111-2222-3333-4444-555555555555", Some(parent));
        assert_eq!(hex::encode(other.trace), "11111111222233334444555555555555");
        assert_eq!((other.parent, other.sampled), (None, true));
        assert_eq!(TraceOf::named("my trace", None), TraceOf::named("my trace", None));
        assert_ne!(TraceOf::named("my trace", None), TraceOf::named("my other trace", None));
        assert_ne!(TraceOf::named("", None), TraceOf::named("", None));
        assert_ne!(TraceOf::named(&"0".repeat(32), None).trace, [0; 16]);
    }

    #[test]
    fn a_span_is_told_whole() {
        let span = Span {
            name: "kernel.syscall",
            of: TraceOf::named("", None),
            began_ns: 10,
            ended_ns: 5,
            attributes: vec![("a", "".into()), ("b", "x".into()), ("c", 7u64.into()), ("d", 0.5.into())],
            error: Some("TOOL_FAILED".to_owned()),
        };
        let told = span.told();
        assert_eq!((told.trace_id.len(), told.span_id.len(), told.parent_span_id.len()), (16, 8, 0));
        assert_eq!(told.end_time_unix_nano, 10, "it does not end before it began");
        assert_eq!(told.attributes.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["b", "c", "d"]);
        assert_eq!(told.status.unwrap().message, "TOOL_FAILED");
    }
}
