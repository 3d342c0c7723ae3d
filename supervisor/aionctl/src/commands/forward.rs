//! Passing signals on to an agent without waiting for the answer: the daemon may be away.

use std::time::Duration;

use aion_client::{Client, api};
use aion_types::ErrorCode;
use tokio::signal::unix::SignalKind;
use tokio::time::Instant;

use crate::output::note;

/// A second ctrl-c within this time means it.
const SOON: Duration = Duration::from_secs(2);
const SIGKILL: i32 = 9;

/// Whether to go on standing for the agent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
}

pub(super) struct Forwarder {
    client: Client,
    agent: String,
    presses: Presses,
}

impl Forwarder {
    pub(super) fn new(client: &Client, agent: &str) -> Self {
        Self { client: client.clone(), agent: agent.to_owned(), presses: Presses::default() }
    }

    /// Passes a signal on.
    pub(super) fn signal(&mut self, kind: SignalKind) -> Next {
        let mut signal = kind.as_raw_value();
        if kind == SignalKind::interrupt() {
            match self.presses.press(Instant::now()) {
                1 => {}
                2 => {
                    note("killing the agent");
                    signal = SIGKILL;
                }
                _ => return Next::Leave,
            }
        }
        let client = self.client.clone();
        let request = api::KillRequest { agent: self.agent.clone(), signal, ..Default::default() };
        tokio::spawn(async move {
            if let Err(error) = client.kill(request).await {
                // An agent that ends on the first of two signals is no longer there for the second.
                if !matches!(error.code(), ErrorCode::AgentNotRunning | ErrorCode::AgentNotFound) {
                    let name = crate::signal::name(signal);
                    note(&format!("warning: {name} could not be passed on: {error}"));
                }
            }
        });
        Next::Stay
    }
}

/// Counts presses of ctrl-c that follow each other quickly.
#[derive(Debug, Default)]
struct Presses {
    last: Option<Instant>,
    count: u32,
}

impl Presses {
    fn press(&mut self, now: Instant) -> u32 {
        let again = self.last.is_some_and(|last| now.duration_since(last) <= SOON);
        self.count = if again { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_press_kills_and_the_third_leaves() {
        let mut presses = Presses::default();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!([0, 1, 3, 10, 13].map(|second| presses.press(at(second))), [1, 2, 3, 1, 1]);
    }
}
