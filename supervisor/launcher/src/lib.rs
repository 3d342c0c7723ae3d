//! The privileged half of AION: owns cgroups, processes, probes, volumes and the audit log.
//!
//! One narrow protocol on a Unix socket (`server`), every field checked at the door ([`request`]). An agent's life
//! is in `launch`, `agent`, `exits` and `ending`; what a new launcher takes over is in [`state`] and `adopt`.
//! Plain threads, no network, no YAML. See `docs/launcher.md`.

mod adopt;
mod agent;
mod audit;
mod ceilings;
mod clock;
mod denials;
mod devices;
mod drain;
mod drops;
mod egress;
mod ending;
mod exec;
mod exits;
mod failure;
mod files;
mod grams;
mod hold;
mod host;
mod hub;
mod launch;
mod launcher;
mod limits;
mod lock;
#[cfg(test)]
mod man;
mod network_limits;
mod ops;
pub mod options;
mod plan;
mod process;
mod profiles;
mod purge;
pub mod request;
mod restrain;
mod run;
mod server;
mod service;
mod slots;
pub mod state;
mod task;
mod terminal;
mod withhold;
mod workspace;

pub use failure::Failure;
pub use hold::hold;
pub use purge::purge;
pub use run::{Running, start};
