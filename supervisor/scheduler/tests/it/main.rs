//! The core as its users see it: commands in; events, rows and effects out.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod deadlines;
mod fairness;
mod rules;
mod sim;
mod world;
mod yields;
