//! Log lines of the programs (aya-log), for debugging only: a full log buffer loses lines uncounted. Needs an
//! object built with its own `log` feature.

use aya::programs::links::PinnedLink;
use aya_log::EbpfLogger;

use crate::bpffs::Pins;
use crate::error::Error;

/// The program whose maps lead to the log's buffer; all programs share it.
const ANY: &str = "sched_process_exec";

/// Reads the programs' log lines into the `log` crate's logger.
pub struct DebugLog(EbpfLogger<&'static dyn log::Log>);

impl std::fmt::Debug for DebugLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugLog").finish_non_exhaustive()
    }
}

impl DebugLog {
    pub(crate) fn open(pins: &Pins, generation: u32) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Link {
            program: ANY.to_owned(),
            action: "read the log behind",
            source,
        };
        let link = PinnedLink::from_pin(pins.link(ANY, generation)).map_err(|e| failed(e.into()))?;
        let info = aya::programs::links::FdLink::from(link).info().map_err(|e| failed(e.into()))?;
        EbpfLogger::init_from_id(info.program_id()).map(Self).map_err(|e| failed(e.into()))
    }

    /// Hands over what waits.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}
