//! aion-launcher: options, log, signals. Everything else is in the library.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use aion_launcher::options::{Action, LogFormat, Options, RunOptions};
use anyhow::Context as _;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const DAEMON_NICE: i32 = -10;

fn main() -> ExitCode {
    let options = Options::parse();
    log(options.run.log_format);
    let done = match &options.command {
        Some(Action::Hold) => aion_launcher::hold(),
        Some(Action::Purge { state, grace }) => {
            aion_launcher::purge(state, std::time::Duration::from_secs(u64::from(*grace)))
        }
        None => run(&options.run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where agents take all the processors, whoever is to stop them must not wait behind them. A niceness that was chosen stays. Inits
/// give it up again.
fn go_before_agents() {
    if rustix::process::getpriority_process(None) == Ok(0) {
        let _ = rustix::process::setpriority_process(None, DAEMON_NICE);
    }
}

fn run(options: &RunOptions) -> anyhow::Result<()> {
    go_before_agents();
    // What an agent asks for is opened as the agent's user: root's own groups must not open more.
    nix::unistd::setgroups(&[]).context("cannot give up root's supplementary groups")?;
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let running = aion_launcher::start(options)?;
    let stop = running.stopper();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            stop();
        }
    })?;
    running.serve()
}

fn log(format: LogFormat) {
    let filter = || EnvFilter::try_from_env("AION_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = || tracing_subscriber::fmt().with_env_filter(filter()).with_writer(std::io::stderr);
    let text = || lines().with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    match format {
        LogFormat::Text => text(),
        LogFormat::Json => lines().json().init(),
        LogFormat::Journald => match tracing_journald::layer() {
            // Fields are named as aiond's, so that one question finds what both say of an agent.
            Ok(journal) => {
                let journal = journal.with_field_prefix(Some("AION".to_owned()));
                tracing_subscriber::registry().with(filter()).with(journal).init();
            }
            // Agents need a launcher more than its log needs fields.
            Err(error) => {
                text();
                tracing::warn!(%error, "systemd's journal is not there: the log is written to standard error");
            }
        },
    }
}
