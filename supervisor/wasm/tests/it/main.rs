//! The runner with real modules: Rust compiled for WASI preview 2 and 1.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may stop, and tells its figures"
)]

mod guest;
mod hostile;
mod measure;
mod sample;
mod sandbox;
mod serve;
