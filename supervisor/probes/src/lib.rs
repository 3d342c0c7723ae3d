//! The probes: loads the BPF object once, pins it, and adopts the pinned state after a restart.
//!
//! [`Probes::open_or_load`] gives two halves: [`Probes`] (control and counters, shareable between threads)
//! and [`EventRing`] (the reader of records, owned by one drain thread). Nothing that an agent needs hangs on
//! this process: maps, links and programs are pinned. Records are decoded by `aion-probe-types`.

mod bpffs;
mod config;
mod counters;
#[cfg(feature = "log")]
mod debug_log;
mod devices;
mod egress;
mod error;
mod grams;
mod heap;
mod limits;
mod load;
mod mapping;
mod maps;
mod missed;
mod options;
mod probes;
mod programs;
mod report;
mod ring;
mod slots;
mod syscall_probes;
mod tables;
mod throttle;
mod withheld;

pub use aion_probe_types::{
    Comm, Credentials, DecodeError, DeniedDevice, DeniedHook, Event, Exec, Exit, FileOpen, Fork, Kind,
    LimitKind, Net, NetLimit, NetOp, Oom, Origin, PrivChange, PrivSource, Syscall, Verdict, decode,
};
pub use config::{AgentConfig, AuditMode, NetPolicy};
pub use counters::{AgentCounters, FinalCounters, NetBytes, SyscallCounter};
#[cfg(feature = "log")]
pub use debug_log::DebugLog;
pub use devices::DeviceUse;
pub use error::Error;
pub use grams::{GramCounts, GramModel};
pub use limits::{ConnectionRate, NetLimits, NetUse};
pub use options::{Object, Options};
pub use probes::{Opened, Probes};
pub use report::{Adoption, ProgramReport, ProgramState, Report};
pub use ring::{Drained, EventRing, Pressure};
pub use withheld::{FileAccess, FilePlace, WithheldFile};
