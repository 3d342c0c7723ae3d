//! `aiond check-config`: everything that a start reads, read and judged; nothing is opened for writing, and nobody is served.

use std::io::Write as _;

use anyhow::{Result, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::Files;
use crate::settings::Loaded;
use crate::{alerts, grpc, telemetry};

/// Says what the files set, or all that is wrong.
///
/// # Errors
/// When a start would fail because of a file.
pub(crate) fn check(loaded: &Loaded) -> Result<()> {
    let (options, mut wrong) = (&loaded.options, Vec::new());
    // A word that is no level is taken for a target's name, of which there is nothing to see.
    let is_word = |part: &&str| !part.contains(['=', '[', ':']) && part.parse::<LevelFilter>().is_err();
    let word = options.log.split(',').map(str::trim).find(is_word);
    let refused = EnvFilter::try_new(&options.log).err().map(|error| error.to_string());
    if let Some(error) = refused.or_else(|| word.map(|word| format!("{word:?} is no level"))) {
        wrong.push(match loaded.setting("log") {
            Some(setting) => setting.problem(&error, "write `info`, or `aiond=debug,info`").to_string(),
            None => format!("--log: {error}"),
        });
    }
    let unread = options.names_credential();
    if !unread {
        wrong.extend(telemetry::settings(options).err().map(|error| format!("{error:#}")));
        wrong.extend(grpc::settings(options).err().map(|error| format!("{error:#}")));
    }
    wrong.extend(alerts::settings(loaded).err().map(|refused| refused.to_string()));
    match Files::read(options) {
        Ok(files) => wrong.extend(files.problems(&options.state)),
        Err(error) => wrong.push(format!("{error:#}")),
    }
    let mut out = std::io::stdout().lock();
    for file in &loaded.files {
        writeln!(out, "{file}: read")?;
    }
    for line in loaded.describe() {
        writeln!(out, "  {line}")?;
    }
    if unread {
        writeln!(
            out,
            "certificates and keys are not looked at: some are credentials, which only the service has"
        )?;
    }
    if alerts::unread(loaded) {
        writeln!(out, "files of webhooks that are credentials are not looked at: only the service has them")?;
    }
    if wrong.is_empty() {
        writeln!(out, "the configuration, profiles and policies are valid")?;
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}
