//! The syscall contract: a body of a request, and the trace in its header.

use aion_syscall::{MAX_BODY, Refusal, Request};
use aion_types::{ErrorCode, TraceParent};
use serde_json::{Value, json};

/// What is read is within its bounds and the same after it was written; what is refused names its field in words that a terminal can
/// show.
pub fn check(data: &[u8]) {
    for name in [None, Some("tool.invoke"), Some("no name at all")] {
        match Request::parse(data, name) {
            Ok(request) => bounded(&request, data),
            Err(refusal) => explained(&refusal),
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Some(parent) = TraceParent::parse(&text) {
        let again = format!("00-{}-{}-00", parent.trace_id(), hex::encode(parent.span));
        let read = TraceParent::parse(&again);
        assert_eq!(read, Some(TraceParent { sampled: false, ..parent }), "{text:?}");
    }
}

fn bounded(request: &Request, data: &[u8]) {
    assert!(data.len() <= MAX_BODY);
    let context = &request.context;
    for id in [&context.task_id, &context.trace_id] {
        assert!(id.len() <= 128 && !id.contains(char::is_control), "{id:?}");
    }
    assert!(request.caps_required.len() <= 64);
    assert!(request.budget.latency_ms.is_none_or(|ms| (1..=600_000).contains(&ms)));
    assert!(request.budget.usd_micros.is_none_or(|usd| usd <= 1_000_000_000_000));
    let words: Vec<&str> = request.caps_required.iter().map(|(word, _)| word.as_str()).collect();
    let written = json!({
        "schema": "aion.syscall.v1", "syscall": request.syscall.as_str(),
        "agent_id": request.agent.as_ref().map(ToString::to_string),
        "context": {"task_id": context.task_id, "trace_id": context.trace_id},
        "caps_required": words, "params": request.params,
        "budget": {"tokens_max": request.budget.tokens, "latency_ms": request.budget.latency_ms},
    });
    let mut again = match Request::from_value(written, None) {
        Ok(again) => again,
        Err(refusal) => panic!("what was read is refused: {refusal}"),
    };
    // Millionths do not come back from a fraction to the last digit.
    again.budget.usd_micros = request.budget.usd_micros;
    assert_eq!(&again, request);
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = request.clone().within(Some(header)).context;
    assert!(traced.trace_id == context.trace_id || context.trace_id.is_empty());
    assert_eq!(traced.parent.is_some(), traced.trace_id == "0af7651916cd43dd8448eb211c80319c");
}

fn explained(refusal: &Refusal) {
    assert!(matches!(refusal.code, ErrorCode::InvalidField | ErrorCode::TooLarge), "{refusal}");
    assert!(!refusal.field.is_empty() || refusal.code == ErrorCode::TooLarge, "it names no field: {refusal}");
    for text in [&refusal.message, &refusal.field, &refusal.hint] {
        assert!(!text.contains(char::is_control), "words with control characters: {text:?}");
    }
    assert!(!refusal.message.is_empty() && refusal.message.len() < 2000, "no message: {refusal}");
}

/// Requests that are valid, or nearly.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let whole: Value = json!({
        "schema": "aion.syscall.v1", "syscall": "tool.invoke", "agent_id": "agent://tenantA/researcher-1",
        "context": {"task_id": "t-123", "trace_id": "0af7651916cd43dd8448eb211c80319c"},
        "caps_required": ["network", "gpu", "fs:read:/srv/**"],
        "params": {"tool": "web_search", "query": "\u{e4}\n\u{1f600}"}, "budget": {"usd_max": 0.05, "tokens_max": 7, "latency_ms": 3000}
    });
    let mut seeds: Vec<Vec<u8>> = [
        whole.to_string().as_str(),
        "{}",
        "{\"syscall\": \"tool.invoke\"}",
        "{\"syscall\": \"memory.get\", \"agent_id\": null, \"context\": {}, \"caps_required\": [], \"budget\": null}",
        "{\"syscall\": \"memory.get\", \"bu\\u0007dget\": {}}",
        "{\"syscall\": \"memory.get\", \"budget\": {\"\\u001b[31m\": 1}}",
        "{\"\": 1, \"syscall\": \"memory.get\"}",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "[]",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    seeds.push([b"{\"params\":".repeat(200), b"1".to_vec(), b"}".repeat(200)].concat());
    seeds
}

/// Pieces of JSON and of the contract's words.
pub const WORDS: &[&[u8]] = &[
    b"\"syscall\":\"memory.put\",",
    b"\"agent_id\":\"agent://a/b\",",
    b"\"context\":{\"task_id\":\"",
    b"\"caps_required\":[\"network\"],",
    b"\"budget\":{\"usd_max\":",
    b"\"latency_ms\":0",
    b"\"tokens_max\":9007199254740993",
    b"\"schema\":\"aion.syscall.v2\",",
    b"\"\\u0000\":",
    b"\\ud800",
    b"1e400",
    b"-0.0",
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\"",
    b"00-",
    b"-01",
];
