//! The launcher as it is shipped, on the real kernel: each test starts the binary on a state folder of its own and
//! speaks the protocol to it. Needs root, aion-init and the BPF object.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests may, their helpers too"
)]

mod adoption;
mod client;
mod daemon;
mod exec;
mod failures;
mod files;
mod fixtures;
mod grams;
mod leftovers;
mod lifecycle;
mod limits;
mod records;
mod tasks;
mod worker;
