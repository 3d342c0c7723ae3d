//! Writing an agent's output to stdout and stderr: byte for byte, in order, at once.

use std::io::{self, Write};

use aion_client::api::log_chunk::Stream;

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Stdout,
    Stderr,
}

impl To {
    /// The stream of a chunk; what is neither is told on stdout.
    pub(super) fn of(stream: i32) -> Self {
        if stream == Stream::Stderr as i32 { Self::Stderr } else { Self::Stdout }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Writes and flushes, so that the order between the two streams is the agent's.
    pub(super) fn write(self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => write(&mut io::stdout().lock(), data),
            Self::Stderr => write(&mut io::stderr().lock(), data),
        }
    }
}

fn write(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    out.write_all(data)?;
    out.flush()
}
