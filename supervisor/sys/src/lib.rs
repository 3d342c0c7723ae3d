//! System calls that std and rustix do not have, behind signatures that cannot be misused.
//!
//! One module per topic of the kernel. Apart from the probes this is the only crate with `unsafe`; nothing
//! here decides anything. Errors are the kernel's ([`Errno`]). Where rustix has a safe call (the mount API,
//! openat2, memfd, waitid, sendmsg), the callers use rustix.

pub mod activation;
pub mod agent;
pub mod bpf;
pub mod clone;
pub mod disk;
pub mod frame;
pub mod idmap;
pub mod keyring;
pub mod landlock;
pub mod loopdev;
pub mod memory_files;
pub mod mount;
pub mod ns;
pub mod park;
pub mod peer;
mod raw;
pub mod seccomp;
pub mod signal;

pub use rustix::io::{Errno, Result};
