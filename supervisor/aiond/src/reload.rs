//! The log, and the configuration read again while aiond runs.

use std::sync::Arc;

use aion_signing::{Guard, Trust};
use anyhow::{Context as _, Result};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::options::{LogFormat, Options};
use crate::settings::Loaded;
use crate::signatures;

/// Sets what is logged from now on.
pub(crate) type SetLog = Box<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>;

/// Sets the log up.
///
/// # Errors
/// When its level cannot be read.
pub(crate) fn log(options: &Options) -> Result<SetLog> {
    let filter = EnvFilter::try_new(&options.log).with_context(|| format!("--log {:?}", options.log))?;
    let lines = || tracing_subscriber::fmt().with_writer(std::io::stderr);
    let (set, handle): (_, SetLog) = match options.log_format {
        LogFormat::Json => {
            let builder = lines().with_env_filter(filter).json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            (
                builder.try_init().map_err(|error| error.to_string()),
                Box::new(move |filter| Ok(handle.reload(filter)?)),
            )
        }
        LogFormat::Journald => {
            let journal = tracing_journald::layer().context("systemd's journal is not there")?;
            let (filter, handle) = reload::Layer::new(filter);
            let all = tracing_subscriber::registry().with(filter);
            let set = all.with(journal.with_field_prefix(Some("AION".to_owned()))).try_init();
            (set.map_err(|error| error.to_string()), Box::new(move |filter| Ok(handle.reload(filter)?)))
        }
        LogFormat::Text => {
            let builder = lines().with_env_filter(filter).with_ansi(false).with_filter_reloading();
            let handle = builder.reload_handle();
            (
                builder.try_init().map_err(|error| error.to_string()),
                Box::new(move |filter| Ok(handle.reload(filter)?)),
            )
        }
    };
    set.map_err(|error| anyhow::anyhow!("cannot set up the log: {error}"))?;
    Ok(handle)
}

/// Reads the configuration again while aiond runs.
pub(crate) struct Reloader {
    /// What the daemon runs with.
    running: Loaded,
    set_log: SetLog,
    guard: Arc<Guard>,
}

impl Reloader {
    pub(crate) fn new(loaded: &Loaded, set_log: SetLog, guard: Arc<Guard>) -> Self {
        Self { running: loaded.clone(), set_log, guard }
    }

    /// What can change while aiond runs does; what cannot is told. Files that are not valid change nothing.
    pub(crate) fn reload(&mut self) {
        match signatures::trust(&self.running.options.trusted_keys) {
            Ok(trust) => {
                let names = |trust: &Trust| -> Vec<_> {
                    trust.keys().iter().map(|key| format!("{} {}", key.name(), key.fingerprint())).collect()
                };
                if names(&trust) != names(&self.guard.trust()) {
                    tracing::info!(keys = ?names(&trust), "other keys are trusted");
                }
                self.guard.exchange(trust);
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the trusted keys were not taken; those of before hold"
                );
            }
        }
        let again = match self.running.read_again() {
            Ok(again) => again,
            Err(refused) => {
                for problem in &refused.0 {
                    tracing::error!(problem, "the configuration was not taken; what was before holds");
                }
                return;
            }
        };
        for (option, told) in again.changes(&self.running) {
            if option != "log" {
                tracing::warn!(change = told, "this waits for a restart: systemctl restart aiond");
                continue;
            }
            let set = EnvFilter::try_new(&again.options.log).map_err(anyhow::Error::from);
            match set.and_then(|filter| (self.set_log)(filter)) {
                Ok(()) => {
                    tracing::info!(change = told, "the log's level was changed");
                    self.running.take("log", &again);
                }
                Err(error) => tracing::error!(error = format!("{error:#}"), "the log's level was not taken"),
            }
        }
    }
}
