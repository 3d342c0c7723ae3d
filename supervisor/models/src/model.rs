//! A model that was taken in: its checked configuration with key, circuit breaker and counters.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::breaker::{Breaker, Outcome, State, Ticket};
use crate::metrics::Counters;
use crate::{ApiKey, Error, Kind, ModelConfig, ModelMetrics, Options, Result};

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) key: Option<ApiKey>,
    /// Its place among those that share an alias.
    pub(crate) order: u64,
    /// Changes with every configuration, so that no answer of an older one is found in the cache.
    pub(crate) revision: u64,
    pub(crate) counters: Arc<Counters>,
    chat: Url,
    embeddings: Url,
    breaker: Mutex<Breaker>,
}

impl Model {
    /// Takes a configuration in. With `old`, its place and its counters go on.
    pub(crate) fn new(
        config: ModelConfig,
        key: Option<ApiKey>,
        options: &Options,
        revision: u64,
        old: Option<&Self>,
    ) -> Result<Self> {
        if let Some(problem) = config.check().into_iter().next() {
            return Err(Error::invalid(problem.field, problem.message));
        }
        let breaker = Breaker::new(options.breaker_failures, options.breaker_pause);
        Ok(Self {
            chat: config.endpoint(Kind::Generate)?,
            embeddings: config.endpoint(Kind::Embed)?,
            config,
            key,
            order: old.map_or(revision, |old| old.order),
            revision,
            counters: old.map(|old| Arc::clone(&old.counters)).unwrap_or_default(),
            breaker: Mutex::new(breaker),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) const fn url(&self, kind: Kind) -> &Url {
        match kind {
            Kind::Generate => &self.chat,
            Kind::Embed => &self.embeddings,
        }
    }

    /// Lets one attempt through, or says how long to wait.
    pub(crate) fn admit(self: &Arc<Self>) -> std::result::Result<Permit, Duration> {
        let ticket = self.breaker().admit(Instant::now())?;
        Ok(Permit { model: Arc::clone(self), ticket, outcome: Outcome::Abandoned })
    }

    pub(crate) fn state(&self) -> State {
        self.breaker().state(Instant::now())
    }

    pub(crate) fn metrics(&self) -> ModelMetrics {
        self.counters.snapshot(self.config.name.clone(), self.config.local, self.state())
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt under way. Dropped without a word, as when the caller goes away, it says nothing about the backend but
/// makes room for the next probe.
#[derive(Debug)]
pub(crate) struct Permit {
    model: Arc<Model>,
    ticket: Ticket,
    outcome: Outcome,
}

impl Permit {
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut breaker = self.model.breaker();
        let before = breaker.state(now);
        breaker.settle(self.ticket, self.outcome, now);
        let after = breaker.state(now);
        drop(breaker);
        if before != after {
            tracing::warn!(model = self.model.name(), circuit = after.as_str(), "circuit changed");
        }
    }
}
