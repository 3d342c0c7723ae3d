//! Runs one WebAssembly tool: a module is compiled once, and each call is an instance of its own.
//!
//! A call is one run of a WASI command: its arguments are JSON on standard input, its result is JSON on standard output.
//! Neighbours: `aion-mcp` speaks to whoever calls; the sandbox around this process bounds what a bug of the runtime
//! could reach. Invariant: whatever a module does, its call ends in time, and the next one finds nothing of it.

mod capture;
mod failure;
mod ledger;
mod limits;
mod module;
mod run;
mod ticker;
mod toolbox;

pub use failure::{Failure, LoadError};
pub use limits::{Dir, Limits};
pub use module::{Kind, Module, Report};
pub use run::{Outcome, Usage};
pub use toolbox::{Description, Tool};
