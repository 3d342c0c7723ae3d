//! The models that operators have added: rows with sealed keys, and calls of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aion_models::{
    ApiKey, Call as ModelCall, Error, Event, Kind, ModelConfig, ModelMetrics, Models, Options, Plan, Privacy,
    Request, Tokens, Usage,
};
use aion_store::{Durability, Store, Table};
use aion_syscall::{Limit, Reason, Refusal};
use aion_tenants::{Sealer, Secret};
use aion_types::ErrorCode;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::redact::{Redactor, Streamed};
use crate::rows;

#[derive(Serialize, Deserialize)]
struct ModelRow {
    config: ModelConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_key: Option<String>,
}

/// What came of a call.
pub(crate) struct Said {
    pub(crate) body: Value,
    pub(crate) used: Limit,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    pub(crate) estimated: bool,
}

pub(crate) struct ModelsOf {
    store: Arc<Store>,
    sealer: Sealer,
    pub(crate) models: Models,
    /// To keep them out of what is told.
    keys: RwLock<BTreeMap<String, Secret>>,
    changes: AtomicU64,
}

fn place(name: &str) -> String {
    format!("model {name}")
}

fn internal(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Internal, ErrorCode::Internal, message)
}

impl ModelsOf {
    pub(crate) fn open(store: Arc<Store>, sealer: Sealer, offline: bool) -> Result<Self, Refusal> {
        let models = Models::new(Options { offline, ..Options::default() })
            .map_err(|error| internal(error.to_string()))?;
        let mut keys = BTreeMap::new();
        let mut found = Vec::new();
        store
            .rows(Table::Models, &[], None, 0, |row| {
                found.push(row);
                true
            })
            .map_err(|error| rows::failed(&error))?;
        for row in found {
            let row: ModelRow = serde_json::from_slice(&row.value).map_err(|error| rows::corrupt(&error))?;
            let name = row.config.name.clone();
            let opened = match row.sealed_key {
                Some(sealed) => {
                    let (key, secret) = open_key(&sealer, &name, &sealed)?;
                    keys.insert(name.clone(), secret);
                    Some(key)
                }
                None => None,
            };
            if let Err(error) = models.put(row.config, opened) {
                tracing::error!(model = name, %error, "a model cannot be used");
            }
        }
        Ok(Self { store, sealer, models, keys: RwLock::new(keys), changes: AtomicU64::new(0) })
    }

    pub(crate) fn add(&self, config: ModelConfig, key: Option<&Secret>) -> Result<(), Refusal> {
        let name = config.name.clone();
        let (mut opened, mut sealed_key) = (None, None);
        if let Some(key) = key {
            let text =
                std::str::from_utf8(key.expose()).map_err(|_| Refusal::field("key", "it is not text"))?;
            opened = Some(ApiKey::new(text.trim()).map_err(|error| refusal(error).at("key"))?);
            let sealed = self.sealer.seal(&place(&name), key).map_err(|error| internal(error.to_string()))?;
            sealed_key = Some(hex::encode(sealed));
        }
        if let Some(problem) = config.check().first() {
            return Err(Refusal::field(problem.field, problem.message.clone()));
        }
        let row = ModelRow { config: config.clone(), sealed_key };
        rows::put(&self.store, Table::Models, &[&name], 0, &row, Durability::Host)?;
        // Before the first call may use it.
        self.keep(&name, key.map(trimmed));
        self.models.put(config, opened).map_err(refusal)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Refusal> {
        if !self.models.remove(name) {
            return Err(not_found(name));
        }
        self.keep(name, None);
        rows::delete(&self.store, Table::Models, &[name])
    }

    fn keep(&self, name: &str, key: Option<Secret>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        match key {
            Some(key) => keys.insert(name.to_owned(), key),
            None => keys.remove(name),
        };
        drop(keys);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// All keys, with the names of their models.
    pub(crate) fn keys(&self) -> Vec<(String, Secret)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(name, key)| (name.clone(), key.clone())).collect()
    }

    /// Grows with each change of a key.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(crate) fn metrics(&self) -> Vec<ModelMetrics> {
        self.models.metrics()
    }
}

fn trimmed(key: &Secret) -> Secret {
    Secret::new(key.expose().trim_ascii().to_vec())
}

fn open_key(sealer: &Sealer, name: &str, sealed: &str) -> Result<(ApiKey, Secret), Refusal> {
    let broken = || internal(format!("the key of model {name} does not open"));
    let sealed = hex::decode(sealed).map_err(|_| broken())?;
    let secret = sealer.open_sealed(&place(name), &sealed).map_err(|_| broken())?;
    let text = std::str::from_utf8(secret.expose()).map_err(|_| broken())?;
    let key = ApiKey::new(text.trim()).map_err(|_| broken())?;
    Ok((key, trimmed(&secret)))
}

fn not_found(name: &str) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(Reason::NotFound, ErrorCode::ModelNotFound, format!("there is no model {shown:?}"))
        .at("params.model")
        .hint("`aionctl model ls` shows what there is")
}

/// Reads the parameters: OpenAI's body, or `prompt` in the place of `messages`.
pub(crate) fn request(kind: Kind, params: &Map<String, Value>) -> Result<Request, Refusal> {
    let mut body = params.clone();
    if kind == Kind::Generate
        && !body.contains_key("messages")
        && let Some(prompt) = body.remove("prompt")
    {
        let Value::String(text) = prompt else {
            return Err(Refusal::field("params.prompt", "it is not a text"));
        };
        body.insert("messages".to_owned(), json!([{"role": "user", "content": text}]));
    }
    Request::from_value(kind, Value::Object(body)).map_err(refusal)
}

pub(crate) fn plan(models: &Models, request: &Request, allow_cloud: bool) -> Result<Plan, Refusal> {
    models.plan(request, Privacy { allow_cloud }).map_err(refusal)
}

const fn used(usage: Usage) -> Limit {
    Limit { usd_micros: usage.usd_micros, tokens: usage.tokens.total() }
}

fn said(body: Value, usage: Usage) -> Said {
    let Tokens { input: tokens_in, output: tokens_out } = usage.tokens;
    Said { body, used: used(usage), tokens_in, tokens_out, estimated: usage.estimated }
}

/// Asks a model. An error comes with what it may have cost.
pub(crate) async fn ask(
    models: &Models,
    plan: Plan,
    tenant: &str,
    timeout: Duration,
    chunks: Option<&mpsc::Sender<Value>>,
    redactor: &Redactor,
) -> Result<Said, (Refusal, Limit)> {
    let most = Limit { usd_micros: plan.quote().usd_micros_max, tokens: plan.quote().tokens_max };
    let cost = |error: &Error| if error.may_have_cost() { most } else { Limit::default() };
    let mut call = ModelCall::new(tenant);
    call.deadline = Instant::now().checked_add(timeout);
    let Some(chunks) = chunks else {
        let answer = models.answer(plan, &call).await.map_err(|error| {
            let cost = cost(&error);
            (refusal(error), cost)
        })?;
        return Ok(said(answer.body, answer.usage));
    };
    let mut stream = match models.stream(plan, &call).await {
        Ok(stream) => stream,
        Err(error) => {
            let cost = cost(&error);
            return Err((refusal(error), cost));
        }
    };
    let mut told = Streamed::new(redactor);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Chunk(chunk)) => {
                if chunks.send(told.part(chunk)).await.is_err() {
                    // Nobody listens any more: the backend is let go, and what it said is charged.
                    break;
                }
            }
            Ok(Event::Usage(_)) => {}
            Err(error) => {
                return Err((refusal(error), used(stream.usage())));
            }
        }
    }
    if let Some(last) = told.end() {
        let _ = chunks.send(last).await;
    }
    Ok(said(Value::Null, stream.usage()))
}

pub(crate) fn refusal(error: Error) -> Refusal {
    let message = error.to_string();
    let retry_after_ms = error.retry_after_ms();
    let mut refusal = match error {
        Error::NotFound { model } => not_found(&model),
        Error::CloudDenied { rule, .. } => Refusal::denied(message, format!("privacy: {rule}"))
            .hint("use a model that runs on this host (aionctl model add --local)"),
        Error::Invalid { field, .. } => Refusal::field(format!("params.{field}"), message),
        Error::TooLarge { .. } => Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message),
        Error::Timeout { .. } => Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message),
        Error::Unavailable { .. } => Refusal::new(Reason::Unavailable, ErrorCode::ModelFailed, message),
        // The backend does not like the request; the caller can mend that.
        Error::Upstream { status: 400 | 404 | 413 | 422, .. } => {
            Refusal::new(Reason::Invalid, ErrorCode::ModelFailed, message)
        }
        _ => Refusal::new(Reason::Failed, ErrorCode::ModelFailed, message),
    };
    refusal.retry_after_ms = retry_after_ms;
    refusal
}
