//! What both sides' properties are stated with: bytes that are almost messages, and what an answer is.

use proptest::prelude::*;
use serde_json::{Map, Value};

/// Whether it is a valid JSON-RPC answer.
pub(crate) fn is_answer(value: &Value) -> bool {
    let valid_id = value.get("id").is_some_and(|id| id.is_string() || id.is_i64() || id.is_u64());
    let null_id = value.get("id").is_some_and(Value::is_null);
    let keys = value.as_object().map_or(0, Map::len);
    let result = valid_id && value.get("result").is_some_and(Value::is_object);
    let error = (valid_id || null_id)
        && value.get("error").is_some_and(|error| error["code"].is_i64() && error["message"].is_string());
    keys == 3 && value["jsonrpc"] == "2.0" && (result || error)
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(Value::from("echo")),
        Just(Value::from("2025-06-18")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = prop_oneof![
            Just("name".to_owned()),
            Just("arguments".to_owned()),
            Just("cursor".to_owned()),
            Just("protocolVersion".to_owned()),
            ".{0,4}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What is almost a message.
fn almost() -> impl Strategy<Value = Value> {
    let method = prop_oneof![
        Just(Value::from("initialize")),
        Just(Value::from("ping")),
        Just(Value::from("tools/list")),
        Just(Value::from("tools/call")),
        Just(Value::from("notifications/tools/list_changed")),
        json(),
    ];
    let version = prop_oneof![9 => Just(Value::from("2.0")), 1 => json()];
    let parts = (
        version,
        prop::option::weighted(0.8, method),
        prop::option::weighted(0.7, json()),
        prop::option::weighted(0.7, json()),
        prop::option::weighted(0.1, json()),
        prop::option::weighted(0.1, json()),
    );
    parts.prop_map(|(version, method, id, params, result, error)| {
        let rest = [("method", method), ("id", id), ("params", params), ("result", result), ("error", error)];
        let rest = rest.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Object(rest.chain([("jsonrpc".to_owned(), version)]).collect())
    })
}

/// Noise, JSON, almost messages, batches of them, and all of these cut short.
pub(crate) fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => json().prop_map(|value| value.to_string().into_bytes()),
        4 => almost().prop_map(|value| value.to_string().into_bytes()),
        2 => prop::collection::vec(almost(), 0..4)
            .prop_map(|batch| Value::from(batch).to_string().into_bytes()),
        1 => (almost(), 0..64usize).prop_map(|(value, end)| {
            let mut bytes = value.to_string().into_bytes();
            bytes.truncate(end);
            bytes
        }),
    ]
}
