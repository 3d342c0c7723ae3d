//! The audit log as its users meet it: written, tailed, damaged, verified.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may stop, and says what it measured or why it skips"
)]

mod crash;
mod full_disk;
mod log;
mod mutation;
mod origin;
mod support;
mod tamper;
mod throughput;
