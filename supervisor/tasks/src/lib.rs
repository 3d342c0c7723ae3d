//! The engine of tasks: it feeds the core, writes what comes out, and only then answers and acts.
//!
//! ```text
//! clients ─Tasks─┐                      ┌─ answers, watchers
//! agents ─runtime─┼▶ inbox ─▶ engine ─▶ journal ─┤
//! aion-api ─Host─┘   (fair)  (one thread) (synced) └─ effects ─▶ agents' streams, Host
//! ```
//! [`Tasks`] is the handle. Neighbours: `aion-scheduler` decides, `aion-task-journal` keeps, `aion-api` lets requests in and
//! looks after agents' lives as a [`Host`]. Invariant: nothing is answered and nothing is done that is not on disk.

mod admin;
mod audit;
mod clock;
mod config;
mod connection;
mod convert;
mod doors;
mod effects;
mod engine;
mod error;
mod history;
mod host;
mod inbox;
mod jobs;
mod left;
mod list;
mod metrics;
mod read;
mod runtime;
mod sessions;
mod spec;
mod submit;
mod tasks;
mod work;

pub use crate::admin::replay_journal;
pub use crate::audit::AuditRecord;
pub use crate::connection::Connection;
pub use crate::doors::{Doors, Visitor};
pub use crate::error::Error;
pub use crate::host::{BoxFuture, Host, JobEnd, JobFound, JobLaunch, LaunchError, Place};
pub use crate::submit::Underway;
pub use crate::tasks::{Known, Options, Tasks};
pub use aion_task_journal::Replayed;
