//! JSON-RPC 2.0 messages as the protocol restricts them: parsed from untrusted bytes, built for sending.
//!
//! Pure. Neighbours: both sides' dispatchers. Invariant: a [`Message`] is one of the three valid forms; ids are
//! strings or whole numbers.

use serde_json::{Map, Number, Value, json};

/// The body is not JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is not a valid message.
pub const INVALID_REQUEST: i64 = -32600;
/// There is no such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The method's parameters are not valid.
pub const INVALID_PARAMS: i64 = -32602;
/// The side that answers has failed.
pub const INTERNAL_ERROR: i64 = -32603;

/// A parsed value takes some 32 bytes, its text as few as two: this bounds the memory of a hostile message to a small
/// multiple of the limit in bytes.
pub const MAX_VALUES: usize = 1 << 18;

/// The longest text of an error that is kept, in bytes.
const MAX_ERROR_TEXT: usize = 4096;

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// The code; those of JSON-RPC are the constants of this crate.
    pub code: i64,
    /// For people; at most 4096 bytes of what was sent.
    pub message: String,
    /// Whatever else was sent.
    pub data: Option<Value>,
}

/// Names a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Number(Number),
    Text(String),
}

impl Id {
    pub(crate) fn read(value: &Value) -> Option<Self> {
        match value {
            // `2.0` and `1e3` are numbers to JSON, but no ids to the protocol.
            Value::Number(number) if !number.is_f64() => Some(Self::Number(number.clone())),
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }

    /// The number, when it is one that a client of this crate could have given.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            Self::Text(_) => None,
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone()),
        }
    }
}

/// One valid message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Message {
    Request {
        id: Id,
        method: String,
        params: Map<String, Value>,
    },
    Notification {
        method: String,
    },
    /// The id is missing when the peer could not read the request's.
    Answer {
        id: Option<Id>,
        outcome: Result<Value, RpcError>,
    },
}

/// Why a value is no message, and whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defect {
    pub(crate) id: Option<Id>,
    pub(crate) what: &'static str,
}

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NotJson,
    TooManyValues,
}

/// Parses bytes of a bounded length.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, Unreadable> {
    if values_at_most(bytes) > MAX_VALUES {
        return Err(Unreadable::TooManyValues);
    }
    serde_json::from_slice(bytes).map_err(|_| Unreadable::NotJson)
}

/// An upper bound of the number of values in a JSON text, without parsing it.
#[must_use]
pub fn values_at_most(bytes: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b':' | b'[' | b'{' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

impl Message {
    /// Sorts a value into the three forms.
    pub(crate) fn from_value(value: Value) -> Result<Self, Defect> {
        let Value::Object(mut object) = value else {
            return Err(Defect { id: None, what: "it is not an object" });
        };
        let named = object.remove("id");
        let id = named.as_ref().and_then(Id::read);
        let defect = |id: Option<Id>, what| Err(Defect { id, what });
        if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return defect(id, "it is not of version 2.0");
        }
        let has_result = object.contains_key("result");
        let has_error = object.contains_key("error");
        if let Some(method) = object.remove("method") {
            let Value::String(method) = method else {
                return defect(id, "the method is not a string");
            };
            if has_result || has_error {
                return defect(id, "it is both a request and an answer");
            }
            let params = match object.remove("params") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(params)) => params,
                Some(_) => return defect(id, "the parameters are not an object"),
            };
            return match (named, id) {
                (None, _) => Ok(Self::Notification { method }),
                (Some(_), Some(id)) => Ok(Self::Request { id, method, params }),
                (Some(_), None) => defect(None, "the id is neither a string nor a whole number"),
            };
        }
        if id.is_none() && !matches!(named, Some(Value::Null)) {
            return defect(None, "it has neither a method nor a valid id");
        }
        match (object.remove("result"), object.remove("error")) {
            (Some(result), None) if id.is_some() => Ok(Self::Answer { id, outcome: Ok(result) }),
            (None, Some(error)) => match read_error(error) {
                Some(error) => Ok(Self::Answer { id, outcome: Err(error) }),
                None => defect(id, "the error is malformed"),
            },
            _ => defect(id, "it has not exactly one of a result and an error"),
        }
    }
}

fn read_error(error: Value) -> Option<RpcError> {
    let Value::Object(mut error) = error else { return None };
    let code = error.get("code")?.as_i64()?;
    let Some(Value::String(mut message)) = error.remove("message") else { return None };
    shorten(&mut message, MAX_ERROR_TEXT);
    Some(RpcError { code, message, data: error.remove("data") })
}

/// Cuts a text to a number of bytes, at a character's end.
pub(crate) fn shorten(text: &mut String, limit: usize) {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
}

pub(crate) fn request(id: u64, method: &str, params: Map<String, Value>) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

pub(crate) fn notification(method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": method })
}

/// Says that nobody waits for an answer any more.
pub(crate) fn cancelled(id: u64) -> Value {
    json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": { "requestId": id, "reason": "the caller no longer waits" },
    })
}

pub(crate) fn result(id: &Id, result: Value) -> Value {
    let mut answer = Map::new();
    answer.insert("jsonrpc".to_owned(), Value::from("2.0"));
    answer.insert("id".to_owned(), id.to_value());
    answer.insert("result".to_owned(), result);
    Value::Object(answer)
}

/// An error; without an id, `null` stands for it, as JSON-RPC has it.
pub(crate) fn failure(id: Option<&Id>, code: i64, message: &str) -> Value {
    let id = id.map_or(Value::Null, Id::to_value);
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message, Defect> {
        Message::from_value(read(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_three_forms() {
        let message = parse(r#"{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":1}}"#).unwrap();
        assert!(matches!(message, Message::Request { id: Id::Text(_), params, .. } if params["x"] == 1));
        let message = parse(r#"{"jsonrpc":"2.0","method":"m","params":null}"#).unwrap();
        assert_eq!(message, Message::Notification { method: "m".to_owned() });
        let message = parse(r#"{"jsonrpc":"2.0","id":7,"result":null}"#).unwrap();
        assert!(
            matches!(message, Message::Answer { id: Some(id), outcome: Ok(_) } if id.as_u64() == Some(7))
        );
        let message = parse(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#).unwrap();
        assert!(matches!(message, Message::Answer { id: None, outcome: Err(error) } if error.code == -1));
    }

    #[test]
    fn what_is_none_of_them() {
        for text in [
            "1",
            "[]",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":[],"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[1]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":2}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn many_small_values_are_refused_before_they_are_parsed() {
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert_eq!(read(many.as_bytes()), Err(Unreadable::TooManyValues));
        // In a string they cost nothing.
        let text = format!(r#""\"{}""#, ",[{:".repeat(MAX_VALUES));
        assert!(read(text.as_bytes()).is_ok());
        // Nor does depth end the stack.
        assert_eq!(read("[".repeat(100_000).as_bytes()), Err(Unreadable::NotJson));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "aé".to_owned();
        shorten(&mut text, 2);
        assert_eq!(text, "a");
        shorten(&mut text, 9);
        assert_eq!(text, "a");
    }
}
