//! Parameters of calls, one by one: what is of the wrong kind is refused with the field's name.

use aion_syscall::Refusal;
use serde_json::{Map, Value};

/// A text; none: it is not there.
pub(crate) fn text<'p>(params: &'p Map<String, Value>, field: &str) -> Result<Option<&'p str>, Refusal> {
    match params.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::field(format!("params.{field}"), "it is not a text")),
    }
}

/// A number within bounds, or the usual one.
pub(crate) fn number(
    params: &Map<String, Value>,
    field: &str,
    usual: u64,
    least: u64,
    most: u64,
) -> Result<u64, Refusal> {
    match params.get(field) {
        None | Some(Value::Null) => Ok(usual),
        Some(value) => value.as_u64().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            Refusal::field(format!("params.{field}"), format!("it is not a number from {least} to {most}"))
        }),
    }
}
