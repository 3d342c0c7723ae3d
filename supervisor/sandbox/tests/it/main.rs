//! The launch path on the real kernel, as root: every test launches agents and looks at what they see.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may end, and say why"
)]

mod cgroup;
mod ends;
mod exec;
mod failures;
mod harness;
mod host;
mod init_binary;
mod inside;
mod layers;
mod memory_files;
mod output;
mod programs;
mod shared_limits;
mod terminal;
mod wire;
