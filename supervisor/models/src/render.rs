//! Walks over JSON values: how deep, how long when a chat template writes them out, and a hash that does not depend on
//! the order of fields.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Whether nothing is nested deeper than `levels`. The walk itself goes no deeper than that.
pub(crate) fn fits(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, below)),
        Value::Object(fields) => fields.values().all(|field| fits(field, below)),
        _ => true,
    }
}

/// The most bytes that the value has when a template writes it as JSON: indented by four spaces, as Llama's templates
/// do, with everything beyond ASCII escaped, as Python's `json.dumps` does.
pub(crate) fn written_len(value: &Value) -> u64 {
    written(value, 1)
}

fn written(value: &Value, level: u64) -> u64 {
    let line = 1 + 4 * level + 2;
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(number) => len(&number.to_string()),
        Value::String(text) => string(text),
        Value::Array(items) => items.iter().fold(line + 2, |sum, item| sum + line + written(item, level + 1)),
        Value::Object(fields) => fields
            .iter()
            .fold(line + 2, |sum, (name, field)| sum + line + string(name) + 2 + written(field, level + 1)),
    }
}

fn string(text: &str) -> u64 {
    text.chars().fold(2, |sum, letter| {
        sum + match letter {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            ' '..='~' => 1,
            _ if letter.len_utf16() == 2 => 12,
            _ => 6,
        }
    })
}

/// The length in bytes, in the type that tokens are counted in.
pub(crate) fn len(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

/// All bytes of all strings within, which is the text that a streamed delta brings.
pub(crate) fn text_len(value: &Value) -> u64 {
    match value {
        Value::String(text) => len(text),
        Value::Array(items) => items.iter().map(text_len).sum(),
        Value::Object(fields) => fields.values().map(text_len).sum(),
        _ => 0,
    }
}

/// Feeds the value to the hash so that equal values, and only those, give equal bytes, whatever order their fields came
/// in.
pub(crate) fn digest(value: &Value, hash: &mut Sha256) {
    match value {
        Value::Array(items) => {
            hash.update(format!("[{}:", items.len()));
            for item in items {
                digest(item, hash);
            }
        }
        Value::Object(fields) => {
            hash.update(format!("{{{}:", fields.len()));
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            for (name, field) in sorted {
                hash.update(format!("{}:{name}", name.len()));
                digest(field, hash);
            }
        }
        Value::String(text) => hash.update(format!("\"{}:{text}", text.len())),
        Value::Null | Value::Bool(_) | Value::Number(_) => hash.update(format!("{value};")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hash(value: &Value) -> Vec<u8> {
        let mut hash = Sha256::new();
        digest(value, &mut hash);
        hash.finalize().to_vec()
    }

    #[test]
    fn depth() {
        assert!(fits(&json!([[1]]), 3) && !fits(&json!([[1]]), 2));
        assert!(fits(&json!({"a": {"b": 1}}), 3) && !fits(&json!({"a": {"b": [1]}}), 3));
    }

    #[test]
    fn written_is_never_shorter_than_any_writing() {
        for value in [
            json!({"a": [1, 2, {"b": "c\nd\"", "e": null}], "é": "日本😀", "f": {}, "g": [], "h": -1.5e300}),
            json!([[[[["deep"]]]]]),
            json!("\u{1}\u{7f}"),
            json!(false),
        ] {
            let mut pretty = Vec::new();
            let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            serde::Serialize::serialize(
                &value,
                &mut serde_json::Serializer::with_formatter(&mut pretty, format),
            )
            .unwrap();
            assert!(written_len(&value) >= u64::try_from(pretty.len()).unwrap(), "{value}");
            assert!(written_len(&value) >= len(&value.to_string()));
        }
        assert_eq!(string("日😀"), 2 + 6 + 12);
    }

    #[test]
    fn the_hash_ignores_order_only() {
        let read = |text: &str| hash(&serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"a":1,"b":[2]}"#), read(r#"{"b":[2],"a":1}"#));
        let different = [
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"["a",1]"#,
            r#"["a1"]"#,
            r#"["a","1"]"#,
            r#"[["a"],1]"#,
        ];
        for (at, one) in different.iter().enumerate() {
            for other in &different[at + 1..] {
                assert_ne!(read(one), read(other));
            }
        }
    }
}
