//! System calls that the filter hands to us: answered with the errno of the plan, and counted.
//!
//! The first of a kind is told at once, further ones once a second with their number, so that a hostile agent
//! cannot flood the journal with them. The table has one entry for each call number, and there are few.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use aion_agent_journal::DeniedCall;
use aion_sandbox::NotifyRule;
use aion_sys::seccomp;

const INTERVAL: Duration = Duration::from_secs(1);
const MAX_KINDS: usize = 1024;
/// What a call gets that the plan has no rule for.
const EPERM: i32 = libc::EPERM;

/// The listener of an agent's filter.
#[derive(Debug)]
pub(crate) struct Denials {
    listener: Option<OwnedFd>,
    rules: Vec<NotifyRule>,
    counts: Vec<Count>,
}

#[derive(Debug)]
struct Count {
    call: DeniedCall,
    told: Option<Instant>,
}

impl Denials {
    pub(crate) fn new(listener: Option<OwnedFd>, rules: Option<Vec<NotifyRule>>) -> Self {
        Self { listener, rules: rules.unwrap_or_default(), counts: Vec::new() }
    }

    pub(crate) fn listener(&self) -> Option<&OwnedFd> {
        self.listener.as_ref()
    }

    /// No process with the filter is left.
    pub(crate) fn close(&mut self) {
        self.listener = None;
    }

    /// Answers the call that waits.
    pub(crate) fn answer(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok(Some(call)) = seccomp::receive(listener.as_fd()) else { return };
        let errno = self.rules.iter().find(|r| r.nr == call.nr).map_or(EPERM, |r| r.errno);
        // Should this fail, the caller waits for an answer until it is killed: it does not go on.
        let _ = seccomp::refuse(listener.as_fd(), call.id, errno);
        self.count(DeniedCall { nr: call.nr, pid: call.pid, count: 1, errno });
    }

    fn count(&mut self, call: DeniedCall) {
        let room = self.counts.len() < MAX_KINDS;
        match self.counts.iter_mut().find(|c| c.call.nr == call.nr) {
            Some(known) if known.call.count == 0 => known.call = call,
            Some(known) => {
                known.call.count = known.call.count.saturating_add(1);
                if known.call.pid != call.pid {
                    known.call.pid = 0;
                }
            }
            None if room => self.counts.push(Count { call, told: None }),
            None => {}
        }
    }

    /// Gives what is due to `write`, which answers whether it could be told. Everything, at the end.
    pub(crate) fn tell(&mut self, end: bool, mut write: impl FnMut(DeniedCall) -> bool) {
        if self.counts.iter().all(|c| c.call.count == 0) {
            return;
        }
        let now = Instant::now();
        for known in self.counts.iter_mut().filter(|c| c.call.count > 0) {
            let due = end || known.told.is_none_or(|t| now.duration_since(t) >= INTERVAL);
            if due && write(known.call) {
                known.call.count = 0;
                known.told = Some(now);
            }
        }
    }

    /// When something is due that is not told yet.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let waiting = self.counts.iter().filter(|c| c.call.count > 0);
        waiting.map(|c| c.told.map_or(Duration::ZERO, |t| INTERVAL.saturating_sub(t.elapsed()))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_counted() {
        let mut denials = Denials::new(None, None);
        let mut told = Vec::new();
        let call = |pid| DeniedCall { nr: 9, pid, count: 1, errno: 1 };
        denials.count(call(5));
        denials.tell(false, |c| {
            told.push(c);
            true
        });
        for pid in [5, 5, 6] {
            denials.count(call(pid));
        }
        denials.tell(false, |_| panic!("within the second"));
        assert!(denials.next_due().unwrap() <= INTERVAL);
        denials.tell(true, |_| false);
        denials.tell(true, |c| {
            told.push(c);
            true
        });
        assert_eq!(told, [call(5), DeniedCall { nr: 9, pid: 0, count: 3, errno: 1 }]);
        assert_eq!(denials.next_due(), None);
    }
}
