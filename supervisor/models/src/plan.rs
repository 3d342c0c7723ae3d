//! From a request to a call that may be made: which backend, what is sent there, and the most that it can cost.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::Model;
use crate::price::usd_micros;
use crate::{Error, Kind, Models, Request, Result, Tokens, bound, cache, render};

/// What the caller's policy says about where a call may go. The default keeps it on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Privacy {
    /// Whether it may leave this host.
    pub allow_cloud: bool,
}

/// The most that a planned call can take. What it does take is in the answer, and is not more, as long as the backend
/// keeps to `max_tokens` and its context is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The model's public name.
    pub model: String,
    /// Whether the call stays on this host.
    pub local: bool,
    /// The most tokens each way.
    pub tokens: Tokens,
    /// The most tokens together.
    pub tokens_max: u64,
    /// The highest cost in millionths of a dollar.
    pub usd_micros_max: u64,
}

/// A call that privacy allows, to a backend that was chosen, with its bounds. Made only by [`Models::plan`], and used
/// up by the call, so that what was quoted is what is sent.
pub struct Plan {
    pub(crate) model: Arc<Model>,
    pub(crate) kind: Kind,
    pub(crate) quote: Quote,
    pub(crate) include_usage: bool,
    body: Map<String, Value>,
    stream_options: Map<String, Value>,
}

impl Models {
    /// Chooses the backend for a request and bounds what the call can take.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CloudDenied`], or [`Error::Invalid`] when the model is not for this kind of call
    /// or the request asks for something that its prices do not cover.
    pub fn plan(&self, request: &Request, privacy: Privacy) -> Result<Plan> {
        let model = self.route(&request.model, request.kind, privacy)?;
        if let Some(rule) = self.cloud_rule(privacy)
            && bound::fetches(&request.body)
        {
            return Err(Error::CloudDenied { model: model.config.name.clone(), rule });
        }
        if model.config.usd_per_mtok_in > 0 || model.config.usd_per_mtok_out > 0 {
            check_prices(&request.body)?;
        }
        let most_output = u64::from(model.config.max_output_tokens);
        let output = request.max_output.map_or(most_output, |asked| asked.min(most_output));
        let tokens = bound::most(request, model.config.context_tokens.into(), output);
        let quote = Quote {
            model: model.config.name.clone(),
            local: model.config.local,
            tokens,
            tokens_max: tokens.total(),
            usd_micros_max: usd_micros(&model.config, tokens),
        };
        let mut body = request.body.clone();
        for field in ["max_tokens", "max_completion_tokens", "stream"] {
            body.remove(field);
        }
        let stream_options = match body.remove("stream_options") {
            Some(Value::Object(options)) => options,
            _ => Map::new(),
        };
        body.insert("model".to_owned(), json!(model.config.upstream.as_ref().unwrap_or(&model.config.name)));
        if request.kind == Kind::Generate {
            body.insert(model.config.output_limit.as_str().to_owned(), json!(output));
        }
        let include_usage = request.include_usage;
        Ok(Plan { model, kind: request.kind, quote, include_usage, body, stream_options })
    }
}

impl std::fmt::Debug for Plan {
    /// Without the body: prompts do not belong into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("kind", &self.kind).field("quote", &self.quote).finish_non_exhaustive()
    }
}

impl Plan {
    /// The most that the call can take.
    #[must_use]
    pub const fn quote(&self) -> &Quote {
        &self.quote
    }

    /// What is sent to the backend.
    pub(crate) fn body(&self, stream: bool) -> Result<Vec<u8>> {
        let mut body = self.body.clone();
        if stream {
            let mut options = self.stream_options.clone();
            options.insert("include_usage".to_owned(), json!(true));
            body.insert("stream".to_owned(), json!(true));
            body.insert("stream_options".to_owned(), Value::Object(options));
        }
        serde_json::to_vec(&body).map_err(|error| Error::invalid("body", error.to_string()))
    }

    /// The bytes of the prompt as JSON, whose quotes and names stand for what a template puts around the texts. None where
    /// bytes say nothing of its tokens.
    pub(crate) fn prompt_quarters(&self) -> Option<u64> {
        match self.kind {
            Kind::Generate => bound::prompt_quarters(&self.body),
            Kind::Embed => None,
        }
    }

    /// Whether the caller said what the answer may be: what of that is not used is charged for, too.
    pub(crate) fn predicts(&self) -> bool {
        self.body.contains_key("prediction")
    }

    /// The key that an answer is kept under for this scope.
    pub(crate) fn cache_key(&self, scope: &str) -> cache::Key {
        let mut hash = Sha256::new();
        let head = json!([scope, self.kind.as_str(), self.model.name(), self.model.revision]);
        render::digest(&head, &mut hash);
        hash.update("{");
        let mut fields: Vec<_> = self.body.iter().collect();
        fields.sort_unstable_by_key(|(name, _)| name.as_str());
        for (name, field) in fields {
            render::digest(&Value::String(name.clone()), &mut hash);
            render::digest(field, &mut hash);
        }
        hash.finalize().into()
    }
}

/// Refuses what has a price of its own: the table knows text by the token, nothing else.
fn check_prices(body: &Map<String, Value>) -> Result<()> {
    let is_text = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(|one| one == "text"));
    let is_plain =
        |tool: &Value| matches!(tool.get("type").and_then(Value::as_str), None | Some("function" | "custom"));
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        let priced = match name.as_str() {
            "web_search_options" | "audio" => false,
            "modalities" => is_text(value),
            "service_tier" => matches!(value.as_str(), Some("auto" | "default" | "flex")),
            "tools" => value.as_array().is_none_or(|tools| tools.iter().all(is_plain)),
            _ => true,
        };
        if !priced {
            return Err(Error::invalid(
                name,
                "has a price of its own, which the model's prices do not cover",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelConfig, Options, OutputLimit};

    fn models(change: impl FnOnce(&mut ModelConfig)) -> Models {
        let models = Models::new(Options::default()).unwrap();
        let mut config = ModelConfig::new("m", "http://localhost:1/v1", 10_000);
        config.local = true;
        change(&mut config);
        models.put(config, None).unwrap();
        models
    }

    fn plan(models: &Models, more: Value) -> Result<Plan> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        models.plan(&Request::from_value(Kind::Generate, body)?, Privacy::default())
    }

    fn sent(models: &Models, more: Value, stream: bool) -> Value {
        serde_json::from_slice(&plan(models, more).unwrap().body(stream).unwrap()).unwrap()
    }

    #[test]
    fn what_is_sent_carries_the_bound() {
        let models = models(|config| {
            config.max_output_tokens = 100;
            config.upstream = Some("real/name".into());
        });
        let messages = json!([{"role": "user", "content": "hi"}]);
        assert_eq!(
            sent(&models, json!({"temperature": 0, "new_field": {"a": [1]}}), false),
            json!({"model": "real/name", "messages": messages, "temperature": 0, "new_field": {"a": [1]},
                "max_tokens": 100})
        );
        assert_eq!(sent(&models, json!({"max_tokens": 7}), false)["max_tokens"], 7);
        assert_eq!(sent(&models, json!({"max_tokens": u64::MAX}), false)["max_tokens"], 100);
        let both = sent(&models, json!({"max_tokens": 9, "max_completion_tokens": 8}), false);
        assert!(both["max_tokens"] == 8 && both.get("max_completion_tokens").is_none());
        let stream = json!({"stream": true, "stream_options": {"include_usage": false, "x": 1}});
        let plain = sent(&models, stream.clone(), false);
        assert!(plain.get("stream").is_none() && plain.get("stream_options").is_none());
        let streamed = sent(&models, stream, true);
        assert_eq!(streamed["stream_options"], json!({"include_usage": true, "x": 1}));
        assert_eq!(streamed["stream"], true);
    }

    #[test]
    fn the_limit_is_sent_as_the_backend_reads_it() {
        let models = models(|config| config.output_limit = OutputLimit::MaxCompletionTokens);
        let body = sent(&models, json!({"max_tokens": 5}), false);
        assert!(body["max_completion_tokens"] == 5 && body.get("max_tokens").is_none());
    }

    #[test]
    fn quotes() {
        let models = models(|config| {
            config.usd_per_mtok_in = 1_000_000;
            config.usd_per_mtok_out = 10_000_000;
        });
        let one = plan(&models, json!({"max_tokens": 50})).unwrap();
        let quote = one.quote();
        assert_eq!(quote.tokens.output, 50);
        assert_eq!(quote.tokens_max, quote.tokens.input + 50);
        assert_eq!(quote.usd_micros_max, quote.tokens.input + 500);
        assert_eq!(plan(&models, json!({"max_tokens": 50, "n": 3})).unwrap().quote().tokens.output, 150);
    }

    #[test]
    fn what_prices_do_not_cover_is_refused() {
        let paid = models(|config| config.usd_per_mtok_out = 1);
        let free = models(|_| ());
        for (field, value) in [
            ("service_tier", json!("priority")),
            ("modalities", json!(["text", "audio"])),
            ("web_search_options", json!({})),
            ("tools", json!([{"type": "web_search"}])),
        ] {
            let error = plan(&paid, json!({field: value})).unwrap_err();
            assert!(matches!(error, Error::Invalid { field: named, .. } if named == field));
            assert!(plan(&free, json!({field: value})).is_ok());
        }
        assert!(
            plan(&paid, json!({"service_tier": "default", "modalities": ["text"], "audio": null})).is_ok()
        );
    }

    #[test]
    fn a_local_call_makes_nobody_fetch() {
        let image = |url: &str| {
            let part = json!({"type": "image_url", "image_url": {"url": url}});
            json!({"messages": [{"role": "user", "content": [part]}]})
        };
        let models = models(|_| ());
        assert!(matches!(
            plan(&models, image("http://198.51.100.1/?what=the+agent+knows")),
            Err(Error::CloudDenied { .. })
        ));
        assert!(plan(&models, image("data:image/png;base64,AA==")).is_ok());
    }

    #[test]
    fn cache_keys_differ_by_scope_body_and_configuration() {
        let models = models(|_| ());
        let key = |scope: &str, more| plan(&models, more).unwrap().cache_key(scope);
        let first = key("a", json!({"seed": 1, "top_p": 1}));
        assert_eq!(first, key("a", json!({"top_p": 1, "seed": 1})));
        assert_ne!(first, key("b", json!({"seed": 1, "top_p": 1})));
        assert_ne!(first, key("a", json!({"seed": 2, "top_p": 1})));
        assert_ne!(first, key("a", json!({"seed": 1, "top_p": 1, "max_tokens": 5})));
        models.put(models.list().remove(0), None).unwrap();
        assert_ne!(first, key("a", json!({"seed": 1, "top_p": 1})));
    }
}
