//! What must hold for any bytes that come from outside: one module for each reader.
//!
//! `check` panics when it does not hold. libFuzzer calls it (`tests/fuzz/fuzz_targets`), and so does a test with a corpus of its own
//! (`seeds`) and a seeded mutator (`mutate`), so that every run of the test suite exercises the readers.

#![allow(clippy::panic, reason = "a panic is how a fuzz target reports")]

pub mod door;
pub mod frame;
pub mod journal;
pub mod manifest;
pub mod mutate;
pub mod probe_event;
pub mod request;
pub mod seccomp_profile;
