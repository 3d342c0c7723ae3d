//! What waits for the engine: a lane for each tenant, drained in turn, and one for what the daemon itself and the
//! agents say, drained first. A tenant's flood fills its own lane and waits there.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aion_scheduler::Name;
use aion_types::ErrorCode;
use tokio::sync::Notify;

use crate::error::Error;
use crate::work::Work;

/// Commands of one tenant that may wait.
const LANE: usize = 4096;
/// Commands in one group.
pub(crate) const GROUP: usize = 512;
/// Groups on their way to the disk while the next one is applied.
const IN_FLIGHT: usize = 2;
/// How long a full lane is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

struct Lane {
    work: VecDeque<Work>,
    commands: usize,
    room: Arc<Notify>,
}

#[derive(Default)]
struct State {
    system: VecDeque<Work>,
    lanes: HashMap<Name, Lane>,
    /// Lanes with work, in the order of their turns.
    turns: VecDeque<Name>,
    in_flight: usize,
    /// A write failed; the engine has to go back to what is on disk.
    failed: bool,
    closed: bool,
}

/// The inbox. Shared by everybody who wants something of the engine.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    ready: Condvar,
}

/// What the engine finds.
pub(crate) enum Taken {
    /// Work, perhaps none because the time is up.
    Work,
    /// A write failed.
    Failed,
    /// Nothing comes any more.
    Closed,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one step: a panicked holder left it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in what the daemon or an agent says.
    pub(crate) fn system(&self, work: Work) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.system.push_back(work);
        drop(state);
        self.ready.notify_one();
    }

    /// Hands in what a tenant asks for; waits while its lane is full.
    pub(crate) async fn tenant(&self, tenant: &Name, work: Work) -> Result<(), Error> {
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut work = work;
        loop {
            let room = {
                let mut state = self.lock();
                if state.closed {
                    return Err(Error::away());
                }
                let State { lanes, turns, .. } = &mut *state;
                let lane = match lanes.get_mut(tenant) {
                    Some(lane) => lane,
                    None => lanes.entry(Arc::clone(tenant)).or_insert_with(|| Lane {
                        work: VecDeque::new(),
                        commands: 0,
                        room: Arc::default(),
                    }),
                };
                if lane.commands < LANE {
                    if lane.work.is_empty() {
                        turns.push_back(Arc::clone(tenant));
                    }
                    lane.commands += work.commands();
                    lane.work.push_back(work);
                    None
                } else {
                    Some((Arc::clone(&lane.room).notified_owned(), work))
                }
            };
            let Some((room, back)) = room else { break };
            work = back;
            if tokio::time::timeout_at(until, room).await.is_err() {
                return Err(Error {
                    retry_after_ms: Some(1000),
                    ..Error::new(
                        ErrorCode::ResourceExhausted,
                        format!("{LANE} requests of tenant {tenant} wait to be recorded"),
                    )
                });
            }
        }
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for work and takes up to a group of it.
    pub(crate) fn take(&self, into: &mut Vec<Work>, until: Option<Instant>) -> Taken {
        let mut state = self.lock();
        loop {
            if state.failed {
                return Taken::Failed;
            }
            let work = !state.system.is_empty() || !state.turns.is_empty();
            let room = state.in_flight < IN_FLIGHT;
            if room && work {
                break;
            }
            if state.closed && !work && state.in_flight == 0 {
                return Taken::Closed;
            }
            let now = Instant::now();
            state = match until {
                Some(until) if room && until <= now => break,
                Some(until) if room => {
                    self.ready.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0
                }
                _ => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let mut commands = 0;
        while commands < GROUP {
            let Some(work) = state.system.pop_front() else { break };
            commands += work.commands();
            into.push(work);
        }
        while commands < GROUP {
            let Some(name) = state.turns.pop_front() else { break };
            let Some(lane) = state.lanes.get_mut(&name) else { continue };
            let Some(work) = lane.work.pop_front() else { continue };
            commands += work.commands();
            let was_full = lane.commands >= LANE;
            lane.commands -= work.commands();
            if was_full && lane.commands < LANE {
                lane.room.notify_waiters();
            }
            if !lane.work.is_empty() {
                state.turns.push_back(name);
            }
            into.push(work);
        }
        Taken::Work
    }

    /// A group is on its way to the disk.
    pub(crate) fn departed(&self) {
        self.lock().in_flight += 1;
    }

    /// It has arrived, or not.
    pub(crate) fn arrived(&self, well: bool) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        state.failed |= !well;
        drop(state);
        self.ready.notify_one();
    }

    /// The engine has gone back to what is on disk.
    pub(crate) fn recovered(&self) {
        self.lock().failed = false;
    }

    /// Nothing more comes; what is there is still done.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for lane in state.lanes.values() {
            lane.room.notify_waiters();
        }
        drop(state);
        self.ready.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Commands that wait.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.lock();
        state.system.len() + state.lanes.values().map(|lane| lane.commands).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use aion_scheduler::Command;

    use super::*;

    fn work() -> Work {
        Work::Command(Command::Tick)
    }

    #[tokio::test]
    async fn tenants_take_turns_and_a_flood_waits_in_its_own_lane() {
        let inbox = Arc::new(Inbox::default());
        let (loud, calm): (Name, Name) = ("loud".into(), "calm".into());
        for _ in 0..LANE {
            inbox.tenant(&loud, work()).await.unwrap();
        }
        let flood = tokio::spawn({
            let (inbox, loud) = (Arc::clone(&inbox), Arc::clone(&loud));
            async move { inbox.tenant(&loud, work()).await }
        });
        inbox.tenant(&calm, work()).await.unwrap();
        assert!(inbox.lock().turns.iter().any(|name| **name == *calm));
        let mut taken = Vec::new();
        assert!(matches!(inbox.take(&mut taken, None), Taken::Work));
        assert_eq!(taken.len(), GROUP);
        // The calm one's came with the first turn.
        assert!(!inbox.lock().turns.iter().any(|name| **name == *calm));
        flood.await.unwrap().unwrap();
    }

    #[test]
    fn the_engine_waits_for_the_disk_and_hears_of_failures() {
        let inbox = Inbox::default();
        inbox.system(work());
        inbox.departed();
        inbox.departed();
        inbox.arrived(false);
        assert!(matches!(inbox.take(&mut Vec::new(), None), Taken::Failed));
        inbox.recovered();
        inbox.close();
        let mut taken = Vec::new();
        assert!(matches!(inbox.take(&mut taken, None), Taken::Work));
        assert_eq!(taken.len(), 1);
        inbox.arrived(true);
        assert!(matches!(inbox.take(&mut taken, None), Taken::Closed));
    }
}
