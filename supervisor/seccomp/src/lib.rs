//! Seccomp profiles: data in `profiles/seccomp/*.json`, checked, and compiled to one BPF program.
//!
//! `Profile::load` reads and validates, `compile` makes the bytes that `aion-init` loads into the kernel.
//! libseccomp resolves names and builds the binary tree over system-call numbers; rules that look at
//! arguments are put in front of it (see `guard`). Nothing here is ever killed: a call is allowed, fails with
//! an errno, or fails with an errno after it was reported to the listener (`notify`).

mod bpf;
mod compile;
mod error;
mod guard;
mod load;
mod names;
mod profile;
mod raw;

pub use compile::{Arch, Compiled, compile};
pub use error::Error;
pub use profile::{Action, Group, Profile};

/// The profile of an agent that asks for none.
pub const DEFAULT_PROFILE: &str = "default-restrictive";

/// The JSON Schema of a profile file.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(raw::File).to_value()
}
