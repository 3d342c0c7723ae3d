//! aiond: AION's API as an unprivileged daemon.
//!
//! This binary only assembles: flags, state folder, socket, user; then the store, the launcher and the services. The order
//! matters: what needs root is done first, what faces untrusted bytes comes after root is gone.

mod config;
mod grpc;
mod listen;
#[cfg(test)]
mod man;
mod options;
mod privileges;
mod run;
mod state;
mod telemetry;
mod watchdog;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::options::Options;

fn main() -> ExitCode {
    let result = Options::parse().absolute().map_err(anyhow::Error::from).and_then(run::run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be set up yet, and who starts the daemon by hand looks here.
            let _ = writeln!(std::io::stderr(), "aiond: {error:#}");
            ExitCode::FAILURE
        }
    }
}
