//! `aiond check-config`: everything that a start reads, read and judged; nothing is opened for writing, and nobody is served.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::Files;
use crate::options::Options;
use crate::privileges::Account;
use crate::settings::Loaded;
use crate::{alerts, folders, grpc, telemetry};

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
        wrong.push(loaded.problem("log", &error, "write `info`, or `aiond=debug,info`"));
    }
    let unread = options.names_credential();
    if !unread {
        let spans = telemetry::settings(options).with_context(|| loaded.said_by(&telemetry::OPTIONS));
        wrong.extend(spans.err().map(|error| format!("{error:#}")));
        let grpc = grpc::settings(options).with_context(|| loaded.said_by(&grpc::OPTIONS));
        wrong.extend(grpc.err().map(|error| format!("{error:#}")));
    }
    wrong.extend(alerts::settings(loaded).err().map(|refused| refused.to_string()));
    wrong.extend(become_aiond(options).err().map(|error| format!("{error:#}")));
    wrong.extend(loaded.files.iter().filter_map(|file| unreadable(file)));
    // What root could read above the service may not; what nobody could read was told.
    let keys = options.key_files().map(Path::to_owned).chain(alerts::files(loaded));
    let keys: Vec<String> = keys.map(|path| path.display().to_string()).collect();
    let told = |file: &str| wrong.iter().any(|said| said.contains(file));
    let more: Vec<String> =
        keys.iter().filter(|file| !told(file)).filter_map(|file| unreadable(file)).collect();
    wrong.extend(more);
    wrong.extend(folders::problems(loaded));
    let (files, unreadable) = Files::look(options);
    wrong.extend(unreadable);
    wrong.extend(files.problems(&options.state));
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
        for (what, path) in files.built_in() {
            writeln!(out, "{}: not there; the built-in {what} count", path.display())?;
        }
        writeln!(out, "the configuration, profiles and policies are valid")?;
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

/// Root may read everything, and is not who reads these with each reload, or at a start under systemd: that is aiond's user.
fn become_aiond(options: &Options) -> Result<()> {
    Account::resolve(&options.user, &options.group)?.drop_to()
}

/// Why that user cannot read a file of the configuration.
fn unreadable(file: &str) -> Option<String> {
    let error = std::fs::File::open(file).err()?;
    Some(format!(
        "{file}: user {} cannot read it, whom aiond runs as ({error}); let that user read it and get through all folders above it",
        nix::unistd::geteuid()
    ))
}
