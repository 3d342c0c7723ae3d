//! The crate against a real HTTP server that plays an OpenAI-compatible backend.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod answers;
mod backend;
mod failures;
mod privacy;
mod streams;

use std::time::Duration;

use aion_models::{Answer, ApiKey, Call, Kind, ModelConfig, Models, Options, Plan, Privacy, Request, Result};
use backend::Backend;
use serde_json::{Value, json};

/// What no error, Debug or answer may show.
const KEY: &str = "sk-test-Zx81kLmNq0";

/// Options whose waits fit a test.
fn quick() -> Options {
    Options {
        backoff: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        breaker_pause: Duration::from_secs(1),
        ..Options::default()
    }
}

/// The model `m` at this backend: local, with prices.
fn config(backend: &Backend) -> ModelConfig {
    let mut config = ModelConfig::new("m", backend.url(), 8192);
    config.local = true;
    config.upstream = Some("secret-upstream-name".into());
    config.usd_per_mtok_in = 1_000_000;
    config.usd_per_mtok_out = 2_000_000;
    config.timeout_ms = 5000;
    config
}

fn models(backend: &Backend, change: impl FnOnce(&mut ModelConfig)) -> Models {
    let models = Models::new(quick()).unwrap();
    let mut config = config(backend);
    change(&mut config);
    models.put(config, Some(ApiKey::new(KEY).unwrap())).unwrap();
    models
}

fn body(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Say hello, please."}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn plan(models: &Models, more: Value) -> Plan {
    let request = Request::from_value(Kind::Generate, body(more)).unwrap();
    models.plan(&request, Privacy { allow_cloud: true }).unwrap()
}

/// Daemons spawn these.
fn is_send<T: Send>(_: &T) {}

async fn ask(models: &Models) -> Result<Answer> {
    let call = Call::default();
    let answer = models.answer(plan(models, json!({})), &call);
    is_send(&answer);
    answer.await
}
