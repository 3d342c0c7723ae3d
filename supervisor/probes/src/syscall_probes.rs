//! The system-call probes, attached only while an agent asks: they cost every process on the host.
//!
//! What should be attached follows from the agents in the map, so it is right again after a restart.

use std::fs;

use aion_probe_types::layout::flag;
use aya::programs::{BtfTracePoint, ProgramError};

use crate::bpffs::{Pins, io_error};
use crate::error::Error;
use crate::load;
use crate::programs::{SYS_ENTER, SYS_EXIT};

#[derive(Debug)]
pub(crate) struct SyscallProbes {
    pins: Pins,
    generation: u32,
}

/// Program, and the modes that need it.
const WANTED: [(&str, u32); 2] = [(SYS_ENTER, flag::LATENCY), (SYS_EXIT, flag::SYSCALLS)];

impl SyscallProbes {
    pub(crate) const fn new(pins: Pins, generation: u32) -> Self {
        Self { pins, generation }
    }

    /// Attaches what `flags` (of all agents together) need and is not attached.
    pub(crate) fn ensure(&mut self, flags: u32) -> Result<(), Error> {
        for (name, modes) in WANTED {
            if flags & modes != 0 && !self.pins.link(name, self.generation).exists() {
                self.attach(name)?;
            }
        }
        Ok(())
    }

    /// Detaches what `flags` do not need.
    pub(crate) fn settle(&mut self, flags: u32) -> Result<(), Error> {
        for (name, modes) in WANTED {
            let link = self.pins.link(name, self.generation);
            if flags & modes == 0 && link.exists() {
                // The pin was the only reference.
                fs::remove_file(&link).map_err(|source| io_error("remove the pin", &link, source))?;
            }
        }
        Ok(())
    }

    pub(crate) fn attached(&self) -> bool {
        WANTED.iter().any(|(name, _)| self.pins.link(name, self.generation).exists())
    }

    fn attach(&self, name: &'static str) -> Result<(), Error> {
        let failed = |source: ProgramError| Error::Attach { program: name, source: Box::new(source) };
        let mut program =
            BtfTracePoint::from_pin(self.pins.program(name, self.generation)).map_err(failed)?;
        let id = program.attach().map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        load::pin(link.into(), name, &self.pins.link(name, self.generation))
    }
}
