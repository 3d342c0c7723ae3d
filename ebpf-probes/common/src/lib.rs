//! What the BPF programs and user space share: map layouts, record layouts, and the decoder of records.
//!
//! `no_std`, no dependency, no allocation. The programs (`ebpf-probes/programs`) write the `#[repr(C)]`
//! structures of [`layout`]; [`decode`] turns a record of the ring buffer into an [`Event`] and never panics,
//! whatever the bytes. A change of a layout that older pinned values or records do not fit raises [`layout::ABI`].
#![no_std]

#[cfg(test)]
extern crate std;

mod decode;
pub mod device;
mod event;
pub mod hour;
pub mod layout;
pub mod ngram;
pub mod withheld;

pub use decode::{DecodeError, decode};
pub use event::{
    Comm, Credentials, DeniedDevice, DeniedHook, Event, Exec, Exit, FileOpen, Fork, Kind, LimitKind, Net,
    NetLimit, NetOp, Oom, Origin, PrivChange, PrivSource, Syscall, Verdict,
};
