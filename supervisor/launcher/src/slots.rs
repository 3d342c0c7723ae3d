//! Slots: parked inits in groups of their own, a few of them made ahead of time.
//!
//! A slot is used once. One that is not used (it died, the launcher stops) goes with its group and gives its
//! range of user ids back. What the last agents were limited to is set beforehand, so that a launch like
//! them writes no limit at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use aion_cgroup::{AgentGroup, LimitEvent, Limits, Parent};
use aion_sandbox::{NetworkMode, Slot, SlotSpec, Spawner};
use aion_types::ErrorCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Failure;
use crate::failure::chain;
use crate::lock::lock;
use crate::state::UidRanges;

/// How long the kernel may take to let go of a group.
pub(crate) const GROUP_PATIENCE: Duration = Duration::from_secs(10);
/// After a slot could not be made.
const RETRY: Duration = Duration::from_secs(1);
/// A pool that is not empty is filled up this long after a launch.
const AFTER_LAUNCH: Duration = Duration::from_millis(5);

/// A slot and what belongs to it.
#[derive(Debug)]
pub(crate) struct ReadySlot {
    pub(crate) slot: Slot,
    pub(crate) held: Held,
}

/// What stays with the agent after its init was launched.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) name: String,
    pub(crate) group: AgentGroup,
    pub(crate) uid_base: u32,
    pub(crate) limit_events: Vec<LimitEvent>,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Slots {
    parent: Parent,
    spawner: Spawner,
    uids: Mutex<UidRanges>,
    ready: Mutex<VecDeque<ReadySlot>>,
    /// Wakes the refill thread.
    taken: Condvar,
    usual: Mutex<Limits>,
    pool: usize,
    epoch: u64,
    next: AtomicU64,
    stopping: AtomicBool,
}

impl Slots {
    pub(crate) fn new(parent: Parent, spawner: Spawner, pool: usize, epoch: u64) -> Arc<Self> {
        // What an agent without a manifest gets.
        let usual = Limits {
            cpu_millis: Some(1000),
            memory_bytes: Some(512 << 20),
            pids: Some(257),
            ..Limits::default()
        };
        Arc::new(Self {
            parent,
            spawner,
            uids: Mutex::new(UidRanges::new()),
            ready: Mutex::new(VecDeque::new()),
            taken: Condvar::new(),
            usual: Mutex::new(usual),
            pool,
            epoch,
            next: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        })
    }

    pub(crate) fn parent(&self) -> &Parent {
        &self.parent
    }

    pub(crate) fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Marks the range of an adopted agent.
    pub(crate) fn mark_uids(&self, base: u32) -> bool {
        lock(&self.uids).mark(base)
    }

    /// A slot with its limits set: from the pool, or made on the spot.
    ///
    /// # Errors
    /// `LAYER_FAILED` with the layer; nothing is left behind.
    pub(crate) fn take(
        &self,
        network: NetworkMode,
        limits: &Limits,
        allow_missing: bool,
    ) -> Result<(ReadySlot, Vec<aion_cgroup::Missing>), Failure> {
        // A network namespace that is empty yet serves both.
        let pooled = if network == NetworkMode::Host { None } else { self.pop() };
        let mut ready = match pooled {
            Some(ready) => ready,
            None => self.make(network)?,
        };
        ready.slot.will_have(network);
        lock(&self.usual).clone_from(limits);
        match ready.held.group.set_limits(limits, allow_missing) {
            Ok(missing) => Ok((ready, missing)),
            Err(e) => {
                self.discard(ready);
                Err(e.into())
            }
        }
    }

    /// Lets the pool be filled up again: after a launch, which should not have to share its processor.
    pub(crate) fn refill_soon(&self) {
        self.taken.notify_one();
    }

    fn pop(&self) -> Option<ReadySlot> {
        loop {
            match lock(&self.ready).pop_front() {
                // One whose init died while it waited (killed by hand, out of memory) is of no use.
                Some(ready) if has_ended(&ready.slot) => self.discard(ready),
                other => return other,
            }
        }
    }

    fn make(&self, network: NetworkMode) -> Result<ReadySlot, Failure> {
        let uid_base = lock(&self.uids)
            .take()
            .ok_or_else(|| Failure::new(ErrorCode::ResourceExhausted, "all ranges of user ids are in use"))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("slot-{:x}-{number:x}", self.epoch);
        let group = AgentGroup::create(&self.parent, &name).map_err(|e| {
            lock(&self.uids).give_back(uid_base);
            Failure::from(e)
        })?;
        let mut held = Held { name, group, uid_base, limit_events: Vec::new() };
        match self.park(&mut held, network) {
            Ok(slot) => Ok(ReadySlot { slot, held }),
            Err(failure) => {
                self.release(&held);
                Err(failure)
            }
        }
    }

    fn park(&self, held: &mut Held, network: NetworkMode) -> Result<Slot, Failure> {
        // Only made ready: whatever of it the host cannot do is told when an agent asks for it.
        let usual = lock(&self.usual).clone();
        let _ = held.group.set_limits(&usual, true);
        held.limit_events = held.group.limit_events()?;
        let mut spec = SlotSpec::new(held.uid_base);
        spec.network = network;
        spec.cgroup = held
            .group
            .dir()
            .map(|dir| dir.try_clone_to_owned())
            .transpose()
            .map_err(|e| Failure::internal(format!("cannot copy a descriptor: {e}")))?;
        spec.v1_doors = held.group.v1_doors()?.into_iter().map(|door| (door.enter, door.leave)).collect();
        Ok(self.spawner.spawn(spec)?)
    }

    /// Ends a slot that no agent took.
    pub(crate) fn discard(&self, ready: ReadySlot) {
        ready.slot.discard();
        self.release(&ready.held);
    }

    /// Gives back what an agent held: kills what is left in the group and removes it. True when all is gone;
    /// otherwise the range of ids stays taken, and the next launcher tries again.
    pub(crate) fn release(&self, held: &Held) -> bool {
        match held.group.kill_and_remove(GROUP_PATIENCE) {
            Ok(()) => {
                lock(&self.uids).give_back(held.uid_base);
                true
            }
            Err(e) => {
                tracing::error!(cgroup = %held.group.path().display(), error = chain(&e), "a control group cannot be removed");
                false
            }
        }
    }

    /// Keeps the pool full; `more` makes other things ready when there is nothing else to do.
    pub(crate) fn refill(&self, mut more: impl FnMut()) {
        more();
        while !self.stopping.load(Ordering::Relaxed) {
            let missing = lock(&self.ready).len() < self.pool;
            if missing {
                match self.make(NetworkMode::None) {
                    Ok(ready) => lock(&self.ready).push_back(ready),
                    Err(failure) => {
                        tracing::error!(code = failure.code.as_str(), %failure, "cannot make a slot");
                        let ready = lock(&self.ready);
                        drop(self.taken.wait_timeout(ready, RETRY));
                    }
                }
                continue;
            }
            more();
            let ready = lock(&self.ready);
            if ready.len() >= self.pool && !self.stopping.load(Ordering::Relaxed) {
                let ready = self.taken.wait(ready).unwrap_or_else(PoisonError::into_inner);
                let left = ready.len();
                drop(ready);
                // The agent that was launched goes first, while there is a slot for the next one.
                if left > 0 && !self.stopping.load(Ordering::Relaxed) {
                    std::thread::sleep(AFTER_LAUNCH);
                }
            }
        }
        let waiting = std::mem::take(&mut *lock(&self.ready));
        for ready in waiting {
            self.discard(ready);
        }
    }

    /// Ends [`Self::refill`], which ends every slot that waits.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Whoever holds the lock has not yet looked, or waits already.
        drop(lock(&self.ready));
        self.taken.notify_all();
    }
}

fn has_ended(slot: &Slot) -> bool {
    let Some(pidfd) = slot.pidfd() else { return true };
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&now)), Ok(0))
}
