//! Requests as OpenAI's clients send them, parsed at the door.
//!
//! What is checked here does not depend on a model: size, depth, and the fields that this crate acts on. All other
//! fields are the backend's business and pass through.

use serde_json::{Map, Value};

use crate::render::fits;
use crate::{Error, Kind, Result};

/// The longest body in bytes.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;
/// The most choices of one call.
const MAX_CHOICES: u64 = 128;

/// Fields by which some server is told to produce more than `max_tokens` and `n` say, or to connect elsewhere. They
/// would void the quote or the privacy rule, so they are refused instead of passed on.
const REFUSED: &[(&str, &str)] = &[
    ("n_predict", "is llama.cpp's own: use max_tokens"),
    ("num_predict", "is Ollama's own: use max_tokens"),
    ("max_new_tokens", "is not OpenAI's: use max_tokens"),
    ("max_output_tokens", "is not of chat completions: use max_tokens"),
    ("n_cmpl", "is llama.cpp's own: use n"),
    ("best_of", "is not of chat completions: use n"),
    ("kv_transfer_params", "would make the backend connect elsewhere"),
];

/// A request that can be planned. Made only by parsing.
#[derive(Clone)]
pub struct Request {
    pub(crate) kind: Kind,
    pub(crate) model: String,
    pub(crate) body: Map<String, Value>,
    /// What the client allows for one choice, in tokens.
    pub(crate) max_output: Option<u64>,
    pub(crate) choices: u64,
    stream: bool,
    pub(crate) include_usage: bool,
}

impl std::fmt::Debug for Request {
    /// Without the body: prompts do not belong into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("kind", &self.kind)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Reads the body of `/v1/chat/completions` or `/v1/embeddings`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over 4 MiB; [`Error::Invalid`] unless it is a JSON object of at most 64 levels whose
    /// `model`, `messages` or `input`, `n`, `max_tokens`, `max_completion_tokens`, `stream` and `stream_options` are
    /// what OpenAI says, without another server's fields that would get round them.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge { what: "the request", limit: MAX_BYTES });
        }
        let value = serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid("body", format!("is not JSON: {error}")))?;
        Self::checked(kind, value)
    }

    /// As [`Request::parse`], from a value.
    ///
    /// # Errors
    /// As [`Request::parse`].
    pub fn from_value(kind: Kind, value: Value) -> Result<Self> {
        let request = Self::checked(kind, value)?;
        let mut room = Room(MAX_BYTES);
        serde_json::to_writer(&mut room, &request.body)
            .map_err(|_| Error::TooLarge { what: "the request", limit: MAX_BYTES })?;
        Ok(request)
    }

    fn checked(kind: Kind, value: Value) -> Result<Self> {
        if !fits(&value, MAX_DEPTH) {
            return Err(Error::invalid("body", format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        let Value::Object(body) = value else {
            return Err(Error::invalid("body", "must be a JSON object"));
        };
        let model = match body.get("model") {
            Some(Value::String(model)) if (1..=128).contains(&model.len()) => model.clone(),
            _ => return Err(Error::invalid("model", "must be a name of 1 to 128 bytes")),
        };
        for (field, why) in REFUSED {
            if body.get(*field).is_some_and(|value| !value.is_null()) {
                return Err(Error::invalid(*field, *why));
            }
        }
        match (kind, body.get("messages"), body.get("input")) {
            (Kind::Generate, Some(Value::Array(messages)), _) if !messages.is_empty() => {}
            (Kind::Generate, ..) => return Err(Error::invalid("messages", "must be a list with a message")),
            (Kind::Embed, _, Some(Value::String(_) | Value::Array(_))) => {}
            (Kind::Embed, ..) => return Err(Error::invalid("input", "must be a text or a list")),
        }
        let limits =
            [number(&body, "max_tokens", u64::MAX)?, number(&body, "max_completion_tokens", u64::MAX)?];
        let options = match body.get("stream_options") {
            None | Some(Value::Null) => None,
            Some(Value::Object(options)) => Some(options),
            Some(_) => return Err(Error::invalid("stream_options", "must be an object")),
        };
        let include_usage = match options {
            Some(options) => flag(options, "include_usage", "stream_options.include_usage")?,
            None => false,
        };
        Ok(Self {
            kind,
            model,
            max_output: limits.into_iter().flatten().min(),
            choices: number(&body, "n", MAX_CHOICES)?.unwrap_or(1),
            stream: flag(&body, "stream", "stream")?,
            include_usage,
            body,
        })
    }

    /// What is asked for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The model's name or alias, as the client wrote it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the client wants the answer as a stream.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }
}

fn number(body: &Map<String, Value>, field: &str, high: u64) -> Result<Option<u64>> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if (1..=high).contains(&number) => Ok(Some(number)),
            _ if high == u64::MAX => Err(Error::invalid(field, "must be a whole number from 1")),
            _ => Err(Error::invalid(field, format!("must be a whole number from 1 to {high}"))),
        },
    }
}

fn flag(body: &Map<String, Value>, field: &str, path: &str) -> Result<bool> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Error::invalid(path, "must be true or false")),
    }
}

/// A writer that keeps nothing and fails once it has got too much.
struct Room(usize);

impl std::io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(more: Value) -> Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn refused(kind: Kind, body: Value) -> String {
        match Request::from_value(kind, body).unwrap_err() {
            Error::Invalid { field, .. } => field,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn reads_what_matters() {
        let plain = Request::from_value(Kind::Generate, chat(json!({"n": null}))).unwrap();
        assert_eq!(
            (plain.max_output, plain.choices, plain.stream(), plain.include_usage),
            (None, 1, false, false)
        );
        let request = Request::from_value(
            Kind::Generate,
            chat(json!({"max_tokens": 10, "max_completion_tokens": 7, "n": 2, "stream": true,
                "stream_options": {"include_usage": true}})),
        )
        .unwrap();
        assert_eq!((request.max_output, request.choices, request.stream()), (Some(7), 2, true));
        assert!(request.include_usage && request.model() == "m" && request.kind() == Kind::Generate);
        assert!(Request::from_value(Kind::Embed, json!({"model": "m", "input": ["a"]})).is_ok());
    }

    #[test]
    fn each_refusal_names_its_field() {
        for (field, value) in [
            ("model", json!("")),
            ("model", json!("m".repeat(129))),
            ("messages", json!([])),
            ("messages", json!("hi")),
            ("n", json!(0)),
            ("n", json!(129)),
            ("n", json!(1.5)),
            ("max_tokens", json!(-1)),
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!("9")),
            ("stream", json!("yes")),
            ("stream_options", json!(true)),
            ("n_predict", json!(-1)),
            ("best_of", json!(9)),
            ("kv_transfer_params", json!({"remote_host": "198.51.100.1"})),
        ] {
            assert_eq!(refused(Kind::Generate, chat(json!({field: value}))), field);
        }
        assert_eq!(refused(Kind::Generate, json!([])), "body");
        assert_eq!(refused(Kind::Embed, json!({"model": "m"})), "input");
        assert!(matches!(
            Request::parse(Kind::Generate, b"{\"model\"").unwrap_err(),
            Error::Invalid { field, .. } if field == "body"
        ));
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let long = chat(json!({"user": "x".repeat(MAX_BYTES)}));
        assert!(matches!(Request::from_value(Kind::Generate, long.clone()), Err(Error::TooLarge { .. })));
        let bytes = serde_json::to_vec(&long).unwrap();
        assert!(matches!(Request::parse(Kind::Generate, &bytes), Err(Error::TooLarge { .. })));
        let nested = |levels| (0..levels).fold(json!(1), |value, _| json!([value]));
        assert!(Request::from_value(Kind::Generate, chat(json!({"x": nested(MAX_DEPTH - 2)}))).is_ok());
        assert_eq!(refused(Kind::Generate, chat(json!({"x": nested(MAX_DEPTH - 1)}))), "body");
        // Deep enough to overflow a stack, were it read.
        let text = format!("{{\"model\":\"m\",\"messages\":{}", "[".repeat(1_000_000));
        assert!(Request::parse(Kind::Generate, text.as_bytes()).is_err());
    }
}
