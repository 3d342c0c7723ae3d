//! AION's gRPC services over the store and the launcher.
//!
//! ```text
//! accept ─Door─▶ Admission ─stage─▶ Authorized ─service─▶ Core ─▶ store, launcher
//!                                                          ▲
//!                                 supervise: launcher's notices, restarts, the event index
//! ```
//! [`Api`] is the component: made from options, a store and a launcher client; [`Api::serve`] runs it. Neighbours: `aiond` wires it
//! to a socket; nothing here knows how the process is set up.

mod agents;
mod approvals;
mod attach;
mod backup;
mod backup_service;
mod clock;
mod contract_task;
mod convert;
mod core;
mod detections;
mod events;
mod exec;
mod exec_exits;
mod explain;
mod figures;
mod files;
mod held_files;
mod host;
mod http_backend;
mod ingest;
mod jobs;
mod journal_watch;
mod kernel_host;
mod kernel_service;
mod launch;
mod lifecycle;
mod logs;
mod output;
mod permitted;
mod policies;
mod policy_service;
mod principal;
mod problem;
mod read;
mod reconcile;
mod register;
mod requests;
mod resolvers;
mod secrets;
mod serve;
mod service;
mod signed;
mod stage;
mod start;
mod stats;
mod stop;
mod supervise;
mod syscall_service;
mod syscalls;
mod task_service;
mod tasks;
mod terminal;
mod timers;
mod tool_runs;
mod tool_servers;
mod trail;

pub use crate::core::Options;
pub use crate::detections::{ReloadRules, ReloadedRules};
pub use crate::principal::{Admission, Door, Principal, Role, Stranger};
pub use crate::serve::{Api, Error};
