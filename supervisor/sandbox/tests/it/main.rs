//! The launch path on the real kernel, as root: every test launches agents and looks at what they see.

mod bench_init;
mod ends;
mod exec;
mod failures;
mod harness;
mod inside;
mod layers;
mod output;
mod programs;
mod terminal;
