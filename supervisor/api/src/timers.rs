//! What is due when: restarts, and the removal of agents that remove themselves.
//!
//! A clock only says "look at this agent now"; what is to be done follows from its record. So a clock that is set twice,
//! or goes off late, does no harm.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aion_types::{AgentId, TenantId};
use tokio::sync::Notify;

use crate::clock::now_ns;

/// The clocks.
#[derive(Default)]
pub(crate) struct Timers {
    due: Mutex<BTreeSet<(u64, TenantId, AgentId)>>,
    set: Notify,
}

impl Timers {
    /// Has an agent looked at, at a wall-clock time.
    pub(crate) fn set(&self, at_ns: u64, tenant: &TenantId, id: &AgentId) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).insert((at_ns, tenant.clone(), id.clone()));
        self.set.notify_one();
    }

    /// Waits for the next agent that is due.
    pub(crate) async fn next(&self) -> (TenantId, AgentId) {
        loop {
            let wait = {
                let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
                let now = now_ns();
                match due.first() {
                    Some((at, ..)) if *at <= now => {
                        if let Some((_, tenant, id)) = due.pop_first() {
                            return (tenant, id);
                        }
                        continue;
                    }
                    // The wall clock may be set meanwhile, so a sleep is never long.
                    Some((at, ..)) => Duration::from_nanos(at - now).min(Duration::from_secs(5)),
                    None => Duration::from_secs(3600),
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.set.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_earliest_comes_first() {
        let timers = Timers::default();
        let tenant = TenantId::parse("t").unwrap();
        let id = |n| AgentId::from_parts(n, 0);
        let now = now_ns();
        timers.set(now + 60_000_000, &tenant, &id(2));
        timers.set(now + 20_000_000, &tenant, &id(1));
        timers.set(0, &tenant, &id(3));
        for expected in [3, 1, 2] {
            assert_eq!(timers.next().await.1, id(expected));
        }
        assert!(now_ns() >= now + 60_000_000);
    }
}
