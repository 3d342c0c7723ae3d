//! aiond: AION's API as an unprivileged daemon.
//!
//! This binary only assembles: flags, state folder, socket, user; then the store, the launcher and the services. The order
//! matters: what needs root is done first, what faces untrusted bytes comes after root is gone.

mod alerts;
mod check;
mod config;
mod folders;
mod grpc;
mod health;
mod listen;
#[cfg(test)]
mod man;
mod options;
mod privileges;
mod reload;
mod replay;
mod run;
mod settings;
mod signatures;
mod state;
mod telemetry;
mod variables;
mod watchdog;

use std::io::Write as _;
use std::process::ExitCode;

use crate::options::Action;
use crate::settings::Loaded;

fn main() -> ExitCode {
    let loaded = Loaded::from_command_line(std::env::args_os().collect()).map_err(anyhow::Error::from);
    let result = loaded.and_then(|loaded| match loaded.options.action {
        Some(Action::CheckConfig) => check::check(&loaded),
        Some(Action::ReplayJournal) => replay::replay(&loaded),
        None => run::run(loaded),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be set up yet, and who starts the daemon by hand looks here.
            let _ = writeln!(std::io::stderr(), "aiond: {error:#}");
            ExitCode::FAILURE
        }
    }
}
