//! The privileged half of AION: owns cgroups, processes, probes, volumes and the audit log.
//!
//! One narrow protocol on a Unix socket, every field checked at the door ([`request`]). An agent's life is in
//! `launch`, `agent` and `exits`; what a new launcher takes over is in [`state`] and `adopt`. Plain threads,
//! no network, no YAML. See `docs/launcher.md`.

mod failure;
pub mod request;
pub mod state;

pub use failure::Failure;
