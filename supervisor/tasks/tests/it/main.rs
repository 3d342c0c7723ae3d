//! The engine with a real journal, real sockets and agents of the tests' own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

mod bad_input;
mod crash;
mod jobs;
mod preemption;
mod restart;
mod serving;
mod world;
