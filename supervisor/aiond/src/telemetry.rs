//! Where spans go: flags and OpenTelemetry's variables, read while files can be reached.

use std::env;

use aion_telemetry::Settings;
use anyhow::{Context as _, Result};

use crate::options::Options;

/// The options that say it.
pub(crate) const OPTIONS: [&str; 3] = ["otlp-endpoint", "otlp-protocol", "otlp-certificate"];

/// None: nobody wants spans.
pub(crate) fn settings(options: &Options) -> Result<Option<Settings>> {
    let Some(endpoint) = options.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    // In the environment alone: what is on a command line everybody sees.
    let headers = env::var("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
    let mut settings = Settings::new(endpoint, &options.otlp_protocol)?.headers(&headers)?;
    settings = settings.resource(&env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
    if let Ok(name) = env::var("OTEL_SERVICE_NAME") {
        settings = settings.named(&name);
    }
    if let Some(path) = &options.otlp_certificate {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        settings = settings.authority(pem);
    }
    Ok(Some(settings))
}
