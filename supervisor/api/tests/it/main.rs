//! The services against a launcher that keeps a table and starts no process, on the real socket protocol.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod daemon;
mod door;
mod events;
mod exec;
mod fake;
mod lifecycle;
mod logs;
mod register;
mod requests;
mod signed;
