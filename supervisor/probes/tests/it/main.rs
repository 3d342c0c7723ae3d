//! The probes on the real kernel. Needs root, cgroup v2 and the object (`cargo xtask build`); says why it
//! skips. `helper` is what the tests run inside agents.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "tests say why they skip, and fail by panic")]

mod audit;
mod devices;
mod grams;
mod helper;
mod lifecycle;
mod limits;
mod loss;
mod lsm;
mod network;
mod restart;
mod withheld;
mod world;
