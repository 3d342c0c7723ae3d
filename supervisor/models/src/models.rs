//! The table of models: taking them in, listing them, finding the one that a call goes to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::cache::Cache;
use crate::model::Model;
use crate::transport::Transport;
use crate::{
    ApiKey, BreakerState, CloudRule, Error, Kind, ModelConfig, ModelMetrics, Options, Privacy, Result,
    loopback,
};

/// All models. Cheap to clone; all clones share everything.
#[derive(Clone)]
pub struct Models {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Models {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) transport: Transport,
    table: RwLock<BTreeMap<String, Arc<Model>>>,
    cache: Mutex<Cache>,
    revisions: AtomicU64,
}

impl Inner {
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Models {
    /// Makes an empty table. Nothing is connected before the first call.
    ///
    /// # Errors
    /// [`Error::Setup`] when the HTTP clients cannot be made.
    pub fn new(options: Options) -> Result<Self> {
        let inner = Inner {
            transport: Transport::new(&options, loopback::system())?,
            table: RwLock::default(),
            cache: Mutex::new(Cache::new(options.cache_bytes)),
            revisions: AtomicU64::new(0),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How it was made.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Takes a model in, or replaces the one of its name: calls under way go on as they began, the circuit starts
    /// closed, the totals go on. The key goes to this model's backend only.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the first problem of [`ModelConfig::check`].
    pub fn put(&self, config: ModelConfig, key: Option<ApiKey>) -> Result<()> {
        if key.is_some() && !config.local && config.url.starts_with("http:") {
            tracing::warn!(model = config.name, "the key of this model is sent without TLS");
        }
        let revision = self.inner.revisions.fetch_add(1, Relaxed);
        let mut table = self.inner.table.write().unwrap_or_else(PoisonError::into_inner);
        let old = table.get(&config.name).map(Arc::as_ref);
        let model = Model::new(config, key, &self.inner.options, revision, old)?;
        table.insert(model.config.name.clone(), Arc::new(model));
        Ok(())
    }

    /// Takes a model out; whether it was there. Calls under way go on.
    pub fn remove(&self, name: &str) -> bool {
        self.inner.table.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }

    /// All models by name, without their keys.
    #[must_use]
    pub fn list(&self) -> Vec<ModelConfig> {
        self.all().iter().map(|model| model.config.clone()).collect()
    }

    /// What each model has done so far, by name.
    #[must_use]
    pub fn metrics(&self) -> Vec<ModelMetrics> {
        self.all().iter().map(|model| model.metrics()).collect()
    }

    fn all(&self) -> Vec<Arc<Model>> {
        let table = self.inner.table.read().unwrap_or_else(PoisonError::into_inner);
        table.values().map(Arc::clone).collect()
    }

    /// The model that a call of this name goes to: by name, else by alias, else a default; of several, the first that
    /// privacy allows, and one whose circuit is not open before one whose is.
    pub(crate) fn route(&self, name: &str, kind: Kind, privacy: Privacy) -> Result<Arc<Model>> {
        let mut found = self.named(name);
        if found.is_empty() {
            return Err(Error::NotFound { model: name.to_owned() });
        }
        found.retain(|model| model.config.kinds.contains(&kind));
        let Some(first) = found.first().map(Arc::clone) else {
            let message = format!("{name} is not for {}", kind.as_str());
            return Err(Error::invalid("model", message));
        };
        if let Some(rule) = self.cloud_rule(privacy) {
            found.retain(|model| model.config.local);
            if found.is_empty() {
                return Err(Error::CloudDenied { model: first.config.name.clone(), rule });
            }
        }
        let working = found.iter().find(|model| model.state() != BreakerState::Open);
        Ok(working.or(found.first()).map_or(first, Arc::clone))
    }

    /// The rule that keeps calls on this host, if any does.
    pub(crate) fn cloud_rule(&self, privacy: Privacy) -> Option<CloudRule> {
        if self.inner.options.offline {
            Some(CloudRule::OfflineMode)
        } else if privacy.allow_cloud {
            None
        } else {
            Some(CloudRule::AllowCloud)
        }
    }

    fn named(&self, name: &str) -> Vec<Arc<Model>> {
        let table = self.inner.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = table.get(name) {
            return vec![Arc::clone(model)];
        }
        let with = |alias: &str| {
            let has = |model: &&Arc<Model>| model.config.aliases.iter().any(|one| one == alias);
            let mut found: Vec<_> = table.values().filter(has).map(Arc::clone).collect();
            found.sort_by_key(|model| model.order);
            found
        };
        let found = with(name);
        if found.is_empty() { with("*") } else { found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(offline: bool) -> Models {
        let models = Models::new(Options { offline, ..Options::default() }).unwrap();
        let put = |name: &str, local: bool, aliases: &[&str], kinds: &[Kind]| {
            let mut config = ModelConfig::new(name, "http://localhost:1/v1", 1000);
            config.local = local;
            config.aliases = aliases.iter().map(ToString::to_string).collect();
            config.kinds = kinds.to_vec();
            models.put(config, None).unwrap();
        };
        put("z-cloud", false, &["fast", "*"], &[Kind::Generate]);
        put("a-local", true, &["fast"], &[Kind::Generate]);
        put("vectors", true, &["*"], &[Kind::Embed]);
        models
    }

    fn route(models: &Models, name: &str, kind: Kind, allow_cloud: bool) -> Result<String> {
        models.route(name, kind, Privacy { allow_cloud }).map(|model| model.config.name.clone())
    }

    #[test]
    fn routes_by_name_alias_and_default() {
        let models = models(false);
        let to = |name, kind| route(&models, name, kind, true);
        assert_eq!(to("a-local", Kind::Generate).unwrap(), "a-local");
        assert_eq!(to("fast", Kind::Generate).unwrap(), "z-cloud", "the one put first");
        assert_eq!(to("unheard-of", Kind::Generate).unwrap(), "z-cloud");
        assert_eq!(to("unheard-of", Kind::Embed).unwrap(), "vectors");
        assert!(matches!(to("fast", Kind::Embed), Err(Error::Invalid { field, .. }) if field == "model"));
        assert!(models.remove("z-cloud") && !models.remove("z-cloud"));
        assert_eq!(to("fast", Kind::Generate).unwrap(), "a-local");
        assert!(models.remove("vectors"));
        assert!(matches!(to("unheard-of", Kind::Generate), Err(Error::NotFound { .. })));
    }

    #[test]
    fn routes_by_privacy() {
        for (offline, allow_cloud, rule) in
            [(false, false, CloudRule::AllowCloud), (true, true, CloudRule::OfflineMode)]
        {
            let models = models(offline);
            let to = |name| route(&models, name, Kind::Generate, allow_cloud);
            assert_eq!(to("fast").unwrap(), "a-local", "privacy picks among those of an alias");
            for name in ["z-cloud", "unheard-of"] {
                match to(name).unwrap_err() {
                    Error::CloudDenied { model, rule: named } => {
                        assert_eq!((model.as_str(), named), ("z-cloud", rule));
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[test]
    fn replacing_keeps_place_and_totals() {
        let models = models(false);
        let before = models.named("z-cloud").remove(0);
        crate::metrics::Counters::one(&before.counters.calls);
        models.put(before.config.clone(), None).unwrap();
        assert_eq!(route(&models, "fast", Kind::Generate, true).unwrap(), "z-cloud");
        let after = models.named("z-cloud").remove(0);
        assert!(after.metrics().calls == 1 && after.revision != before.revision);
        assert_eq!(models.list().len(), 3);
    }

    #[test]
    fn an_open_circuit_leads_to_the_next() {
        let models = models(false);
        let first = models.named("z-cloud").remove(0);
        for _ in 0..5 {
            first.admit().unwrap().settle(crate::breaker::Outcome::Failed);
        }
        assert_eq!(route(&models, "fast", Kind::Generate, true).unwrap(), "a-local");
        assert_eq!(route(&models, "z-cloud", Kind::Generate, true).unwrap(), "z-cloud");
    }

    #[test]
    fn nothing_shows_a_key() {
        let models = models(false);
        let mut config = ModelConfig::new("keyed", "https://api.example.com/v1", 1000);
        let key = ApiKey::new("sk-very-secret-key").unwrap();
        models.put(config.clone(), Some(key.clone())).unwrap();
        let model = models.named("keyed").remove(0);
        let mut shown = format!("{models:?} {:?} {model:?}", models.list());
        config.name = "sk very".into();
        shown += &format!("{:?}", models.put(config, Some(key)).unwrap_err());
        shown += &serde_json::to_string(&models.list()).unwrap();
        assert!(shown.contains("keyed") && !shown.contains("secret"), "{shown}");
    }
}
