//! The engine with a real journal, real sockets and agents of the tests' own.

mod bad_input;
mod crash;
mod preemption;
mod restart;
mod serving;
mod world;
