//! The drain thread: kernel records from the probes' ring buffer, and denied calls from the agents' journals,
//! into the audit log.
//!
//! Records come without a wake-up, so the thread looks by itself: often while records come, seldom while none
//! do, not at all while no agent runs. Strict agents are frozen while the buffer is too full to be sure.

mod event;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aion_probes::EventRing;
use aion_types::AgentId;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::clock;
use crate::failure::chain;
use crate::launcher::Launcher;
use crate::lock::{lock, read};
use crate::{denials, drops, limits, network_limits};

const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(80);
/// Journals and counters are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Agents that a look is for at most: a look reads files of each.
const LOOKED_AT: usize = 128;
/// Records that are handed over together.
const BATCH: usize = 256;
/// Percent of the buffer from which on strict agents stand still until it is empty.
const HIGH_WATER: u64 = 50;
/// Rounds of one call, each of at most a whole buffer.
const ROUNDS: usize = 8;
/// How long a caller of [`Drain::now`] waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The handle.
#[derive(Debug)]
pub(crate) struct Drain {
    wake: EventFd,
    asked: Mutex<u64>,
    done: (Mutex<u64>, Condvar),
    running: AtomicBool,
    stopping: AtomicBool,
}

impl Drain {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            wake: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            asked: Mutex::default(),
            done: (Mutex::default(), Condvar::new()),
            running: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        })
    }

    /// Returns when every record that was there at the call has been handed to the audit log; false when that
    /// takes too long (the audit log's disk is full).
    pub(crate) fn now(&self) -> bool {
        if !self.running.load(Ordering::Acquire) {
            return true;
        }
        let mine = {
            let mut asked = lock(&self.asked);
            *asked += 1;
            *asked
        };
        self.poke();
        let (done, changed) = &self.done;
        let waited = changed.wait_timeout_while(lock(done), PATIENCE, |done| *done < mine);
        let late = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        if late {
            tracing::error!("the drain thread does not keep up");
        }
        !late
    }

    /// Wakes the thread: an agent runs.
    pub(crate) fn poke(&self) {
        let _ = self.wake.write(1);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.poke();
    }

    /// The thread is about to start: callers of [`Self::now`] wait for it.
    pub(crate) fn begins(&self) {
        self.running.store(true, Ordering::Release);
    }

    fn ends(&self) {
        self.running.store(false, Ordering::Release);
        self.answer(u64::MAX);
    }

    fn answer(&self, up_to: u64) {
        let (done, changed) = &self.done;
        let mut done = lock(done);
        *done = (*done).max(up_to);
        changed.notify_all();
    }
}

/// The thread's life. Without probes it looks after journals alone.
pub(crate) fn run(launcher: &Arc<Launcher>, mut ring: Option<EventRing>) {
    let drain = &launcher.drain;
    let epoll = match watch(drain, ring.as_ref()) {
        Ok(epoll) => epoll,
        Err(e) => {
            drain.ends();
            return tracing::error!(error = %e, "cannot watch the ring buffer");
        }
    };
    let (mut pause, mut looked, mut after) = (SHORTEST, Instant::now(), None);
    loop {
        let idle = read(&launcher.owners).is_empty();
        let timeout = if idle {
            EpollTimeout::NONE
        } else {
            EpollTimeout::try_from(pause).unwrap_or(EpollTimeout::MAX)
        };
        let mut events = [EpollEvent::empty(); 4];
        let _ = epoll.wait(&mut events, timeout);
        let _ = drain.wake.read();
        let up_to = *lock(&drain.asked);
        let count = ring.as_mut().map_or(0, |ring| empty(launcher, ring));
        drain.answer(up_to);
        pause = if count > 0 { SHORTEST } else { (pause * 2).min(LONGEST) };
        if looked.elapsed() >= LOOK_EVERY {
            after = look(launcher, after.as_ref());
            looked = Instant::now();
        }
        if drain.stopping.load(Ordering::Relaxed) {
            return drain.ends();
        }
    }
}

fn watch(drain: &Drain, ring: Option<&EventRing>) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&drain.wake, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    if let Some(ring) = ring {
        // Level-triggered it would be ready with every single record.
        epoll.add(ring.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1))?;
    }
    Ok(epoll)
}

/// Empties the ring buffer into the audit log. Answers how many records came.
fn empty(launcher: &Arc<Launcher>, ring: &mut EventRing) -> usize {
    let mut total = 0;
    let mut frozen = Vec::new();
    for _ in 0..ROUNDS {
        if frozen.is_empty() && ring.pressure().percent() >= HIGH_WATER {
            frozen = freeze_strict(launcher);
        }
        let count = round(launcher, ring);
        total += count;
        if count == 0 {
            break;
        }
    }
    for (agent, run) in frozen {
        // Whoever froze it meanwhile wants it frozen.
        if !agent.lock().record.paused
            && let Err(e) = run.held.group.thaw(Duration::ZERO)
            && run.held.group.is_frozen()
        {
            tracing::error!(agent = %agent.id, error = chain(&e), "a strict agent cannot be thawed");
        }
    }
    total
}

fn round(launcher: &Arc<Launcher>, ring: &mut EventRing) -> usize {
    let offset = clock::wall_ns().saturating_sub(clock::monotonic_ns());
    let mut batch: Vec<Entry> = Vec::new();
    let mut unknown = 0usize;
    let drained = ring.drain(&mut |event| {
        let Some(owner) = read(&launcher.owners).get(&event.cgroup_id).cloned() else {
            unknown += 1;
            return;
        };
        batch.push(event::entry(&event, &owner, offset));
        if batch.len() >= BATCH {
            launcher.audit.append_bulk(std::mem::take(&mut batch));
        }
    });
    launcher.audit.append_bulk(batch);
    if unknown > 0 {
        // They cannot be told whose they were; that there were some can.
        let detail = serde_json::json!({ "dropped": unknown, "why": "the agent is gone" });
        launcher.audit.append(vec![Entry::new("events.dropped", "error", &detail)]);
        tracing::warn!(count = unknown, "records of agents that are gone");
    }
    match drained {
        Ok(drained) => {
            if drained.undecodable > 0 {
                tracing::error!(count = drained.undecodable, "records that cannot be decoded");
            }
            drained.events
        }
        Err(e) => {
            tracing::error!(error = chain(&e), "the ring buffer's back-pressure cannot be read");
            0
        }
    }
}

fn freeze_strict(launcher: &Launcher) -> Vec<(Arc<Agent>, Arc<Run>)> {
    let mut frozen = running(launcher);
    frozen.retain(|(agent, run)| run.strict && !agent.lock().record.paused);
    for (_, run) in &frozen {
        // Only begun: waiting until all stand still would keep the buffer full meanwhile.
        let _ = run.held.group.freeze(Duration::ZERO);
    }
    frozen
}

fn running(launcher: &Launcher) -> Vec<(Arc<Agent>, Arc<Run>)> {
    launcher.all().into_iter().filter_map(|agent| agent.running().map(|run| (agent, run))).collect()
}

/// What is only looked at now and then: denied calls, losses, and limits that no event told of.
/// Begins behind this agent, and gives whom the next look begins behind: of many agents each has its turn.
fn look(launcher: &Arc<Launcher>, after: Option<&AgentId>) -> Option<AgentId> {
    let running = running(launcher);
    let first = after.map_or(0, |after| running.partition_point(|(agent, _)| agent.id <= *after));
    let mut rest = running.into_iter().skip(first);
    let mut last = None;
    for (agent, run) in rest.by_ref().take(LOOKED_AT) {
        denials::read(launcher, &agent, &run);
        limits::look(launcher, &agent, &run, false);
        network_limits::look(launcher, &agent, &run, false);
        if run.probed
            && let Some(probes) = launcher.probes.get()
            && let Ok(dropped) = probes.dropped(run.held.group.id())
        {
            drops::tell(launcher, &agent, &run, dropped);
            agent.lock().record.agent.dropped_events = dropped;
        }
        last = Some(agent.id.clone());
    }
    rest.next().and(last)
}
