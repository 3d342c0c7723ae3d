//! The most tokens that a request can take, known before it is sent.
//!
//! The tokenizers of language models work on bytes or fall back to them: a token of ordinary text covers at least one
//! byte, so text has no more tokens than bytes. What a chat template adds (roles, separators, a default system prompt,
//! tool instructions) is covered by fixed allowances, and what it writes out as JSON is taken at its longest. Where
//! bytes say nothing, as with pictures, server-side tools or fields that nobody here knows, the model's context is the
//! bound. Not covered: tokenizers that lengthen text first, as Unicode's NFKC does to U+FDFA.

use serde_json::{Map, Value};

use crate::render::{len, written_len};
use crate::{Kind, Request, Tokens};

/// What a template puts around the conversation, in tokens. The longest known, with a date and instructions for tools,
/// stay below half of it.
const PER_REQUEST: u64 = 1024;
/// What it puts around a message or a part of one.
const PER_MESSAGE: u64 = 32;
/// What surrounds an embedding's input: start, end and a prefix space.
const PER_INPUT: u64 = 8;

/// Fields of a request that add nothing to the prompt beyond their own text.
const KNOWN: &[&str] = &[
    "add_generation_prompt",
    "cache_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "dimensions",
    "dynatemp_range",
    "encoding_format",
    "frequency_penalty",
    "function_call",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "include_reasoning",
    "json_schema",
    "keep_alive",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "min_p",
    "min_tokens",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "repeat_last_n",
    "repeat_penalty",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "store",
    "stream",
    "stream_options",
    "structured_outputs",
    "temperature",
    "think",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "typical_p",
    "user",
    "verbosity",
];

/// Fields of a message that are text.
const KNOWN_OF_MESSAGE: &[&str] = &[
    "content",
    "function_call",
    "name",
    "reasoning",
    "reasoning_content",
    "refusal",
    "role",
    "tool_call_id",
    "tool_calls",
];

/// The most tokens of a request whose output per choice is at most `max_output`, on a model with this context.
pub(crate) fn most(request: &Request, context: u64, max_output: u64) -> Tokens {
    match request.kind {
        Kind::Generate => {
            // Rejected tokens of a predicted output are billed as output, beyond max_tokens.
            let predicted = request.body.get("prediction").map_or(0, written_len);
            let output = max_output.saturating_add(predicted).saturating_mul(request.choices);
            Tokens { input: conversation(&request.body).unwrap_or(context).min(context), output }
        }
        Kind::Embed => Tokens { input: inputs(&request.body, context), output: 0 },
    }
}

/// None when bytes say nothing.
fn conversation(body: &Map<String, Value>) -> Option<u64> {
    let mut sum = PER_REQUEST;
    for (name, value) in body {
        sum = sum.saturating_add(match (name.as_str(), value) {
            ("model", _) | (_, Value::Null) => 0,
            ("messages", Value::Array(messages)) => {
                messages.iter().map(message).try_fold(0, |sum: u64, one| Some(sum.saturating_add(one?)))?
            }
            ("tools", Value::Array(tools)) if !tools.iter().all(is_function) => return None,
            (known, value) if KNOWN.contains(&known) => written_len(value),
            _ => return None,
        });
    }
    Some(sum)
}

/// Fields that a template writes into the prompt.
const PROMPT: &[&str] = &["messages", "tools", "functions", "response_format"];

/// What a conversation's prompt weighs as JSON, in quarters of a token; None when bytes say nothing. Letters and spaces make words, of which
/// four bytes are a token; every other byte may be one by itself.
pub(crate) fn prompt_quarters(body: &Map<String, Value>) -> Option<u64> {
    conversation(body)?;
    let quarters = |byte: u8| if byte.is_ascii_alphabetic() || byte == b' ' { 1 } else { 4 };
    let weight = |value: &Value| value.to_string().bytes().map(quarters).sum::<u64>();
    Some(PROMPT.iter().filter_map(|name| body.get(*name)).map(weight).sum())
}

/// A tool that the client runs. Others, as a web search, put what they find into the prompt.
fn is_function(tool: &Value) -> bool {
    matches!(tool.get("type").and_then(Value::as_str), Some("function" | "custom"))
}

fn message(message: &Value) -> Option<u64> {
    let mut sum = PER_MESSAGE;
    for (name, value) in message.as_object()? {
        sum = sum.saturating_add(match (name.as_str(), value) {
            (_, Value::Null) => 0,
            ("content", Value::Object(_)) => return None,
            ("content", Value::Array(parts)) => {
                parts.iter().map(part).try_fold(0, |sum: u64, one| Some(sum.saturating_add(one?)))?
            }
            (known, Value::String(text)) if KNOWN_OF_MESSAGE.contains(&known) => len(text),
            (known, value) if KNOWN_OF_MESSAGE.contains(&known) => written_len(value),
            _ => return None,
        });
    }
    Some(sum)
}

fn part(part: &Value) -> Option<u64> {
    match part.get("type")?.as_str()? {
        kind @ ("text" | "refusal") => Some(PER_MESSAGE + len(part.get(kind)?.as_str()?)),
        _ => None,
    }
}

fn inputs(body: &Map<String, Value>, context: u64) -> u64 {
    let known = |name: &String| matches!(name.as_str(), "model" | "input") || KNOWN.contains(&name.as_str());
    let all_known = body.keys().all(known);
    let ids = |ids: &[Value]| count(ids).saturating_add(PER_INPUT).min(context);
    let one = |input: &Value| match input {
        _ if !all_known => context,
        Value::String(text) => len(text).saturating_add(PER_INPUT).min(context),
        Value::Array(items) if items.iter().all(Value::is_number) => ids(items),
        _ => context,
    };
    match body.get("input") {
        Some(Value::Array(many)) if !many.iter().all(Value::is_number) => {
            many.iter().fold(0, |sum: u64, input| sum.saturating_add(one(input)))
        }
        Some(input) => one(input),
        None => 0,
    }
}

fn count(ids: &[Value]) -> u64 {
    u64::try_from(ids.len()).unwrap_or(u64::MAX)
}

/// Whether a message makes the backend fetch something: a part that is no text and holds a URL other than `data:`.
/// Such a call leaves the host even when the model does not.
pub(crate) fn fetches(body: &Map<String, Value>) -> bool {
    let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
    messages.filter_map(|message| message.get("content")).any(|content| match content {
        Value::Array(parts) => parts.iter().any(|item| part(item).is_none() && has_url(item)),
        Value::Object(_) => has_url(content),
        _ => false,
    })
}

fn has_url(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            let text = text.trim_start();
            let data = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("data:"));
            !data && text.contains(':')
        }
        Value::Array(items) => items.iter().any(has_url),
        Value::Object(fields) => fields.values().any(has_url),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONTEXT: u64 = 100_000;

    fn chat(more: Value) -> Request {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Request::from_value(Kind::Generate, body).unwrap()
    }

    fn input(more: Value) -> u64 {
        most(&chat(more), CONTEXT, 10).input
    }

    #[test]
    fn text_is_bounded_by_its_bytes() {
        assert_eq!(input(json!({})), PER_REQUEST + PER_MESSAGE + 4 + 5);
        let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "日本"}]}]});
        assert_eq!(input(parts), PER_REQUEST + PER_MESSAGE + 4 + PER_MESSAGE + 6);
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
        assert_eq!(input(json!({"tools": tools})), input(json!({})) + written_len(&tools));
        let long = json!({"messages": [{"role": "user", "content": "x".repeat(200_000)}]});
        assert_eq!(input(long), CONTEXT);
    }

    #[test]
    fn what_bytes_say_nothing_of_takes_the_context() {
        let with = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
        for opaque in [
            with(json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
            with(json!({"type": "input_audio"})),
            json!({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}),
            json!({"chat_template": "{% for i in range(9999) %}x{% endfor %}"}),
            json!({"tools": [{"type": "web_search"}]}),
            json!({"something_new": 1}),
        ] {
            assert_eq!(input(opaque.clone()), CONTEXT, "{opaque}");
        }
    }

    #[test]
    fn output_counts_choices_and_predictions() {
        assert_eq!(most(&chat(json!({"n": 3})), CONTEXT, 10).output, 30);
        let prediction = json!({"prediction": {"type": "content", "content": "x".repeat(100)}});
        assert!(most(&chat(prediction), CONTEXT, 10).output >= 110);
    }

    #[test]
    fn embeddings_are_bounded_by_input() {
        let input = |input: Value| {
            let body = json!({"model": "m", "input": input, "dimensions": 8});
            most(&Request::from_value(Kind::Embed, body).unwrap(), 100, 10)
        };
        assert_eq!(input(json!("abc")), Tokens { input: 3 + PER_INPUT, output: 0 });
        assert_eq!(input(json!(["abc", "x".repeat(1000)])).input, 3 + PER_INPUT + 100);
        assert_eq!(input(json!([1, 2, 3])).input, 3 + PER_INPUT);
        assert_eq!(input(json!([[1, 2], [3]])).input, 3 + 2 * PER_INPUT);
    }

    #[test]
    fn sees_what_would_be_fetched() {
        let with = |part: Value| chat(json!({"messages": [{"role": "user", "content": [part]}]}));
        let image = |url: &str| with(json!({"type": "image_url", "image_url": {"url": url}}));
        assert!(
            fetches(&image("https://example.com/?secret").body)
                && fetches(&image(" file:///etc/passwd").body)
        );
        assert!(!fetches(&image("data:image/png;base64,AA==").body));
        assert!(!fetches(&with(json!({"type": "text", "text": "see https://example.com"})).body));
        assert!(fetches(&with(json!({"type": "text", "text": 1, "url": "http://x"})).body));
    }
}
