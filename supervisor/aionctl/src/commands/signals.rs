//! The signals that this process gets while it stands for an agent, or has something half done.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// Those that are passed on to the agent, or end a command in good order.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    /// From now on the signals come here instead of ending the process.
    pub(super) fn catch() -> Outcome<Self> {
        Ok(Self {
            interrupt: stream(SignalKind::interrupt())?,
            terminate: stream(SignalKind::terminate())?,
            hangup: stream(SignalKind::hangup())?,
            quit: stream(SignalKind::quit())?,
        })
    }

    /// Waits for one, which ends what is half done: as a shell tells of a process that a signal ended.
    pub(super) async fn end(&mut self) -> Failure {
        let number = self.next().await.as_raw_value();
        Failure::silent(u8::try_from(number).unwrap_or(0).saturating_add(128))
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> SignalKind {
        // A stream ends only with the runtime; then the others decide.
        tokio::select! {
            Some(()) = self.interrupt.recv() => SignalKind::interrupt(),
            Some(()) = self.terminate.recv() => SignalKind::terminate(),
            Some(()) = self.hangup.recv() => SignalKind::hangup(),
            Some(()) = self.quit.recv() => SignalKind::quit(),
            else => std::future::pending().await,
        }
    }
}

/// The terminal's changes of size.
pub(super) fn window_changes() -> Outcome<Signal> {
    stream(SignalKind::window_change())
}

fn stream(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|error| Failure::new(1, "cannot catch signals").cause(&error))
}
