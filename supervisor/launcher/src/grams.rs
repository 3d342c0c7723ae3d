//! Sequences of agents' system calls: looked at while aiond asks for them, and what an agent is known for kept from one launch to the next.
//!
//! The probes learn and count. Asking is a lease: an aiond that is gone for a moment finds everything as it was, one that does not ask any
//! more costs the agents nothing. What was learned lies in the agent's folder and goes with it. A thread of its own ends the lease, and
//! writes at the launcher's end what agents that run on are known for, as the host may go down next.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aion_launcher_proto::v1;
use aion_probes::{GramModel, Probes};
use aion_types::AgentId;

use crate::agent::{Agent, Run};
use crate::failure::chain;
use crate::launcher::Launcher;
use crate::lock::lock;
use crate::state::replace;

/// For how long asking holds.
const LEASE: Duration = Duration::from_secs(600);
/// How often is looked whether it is over.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The file's first word: what its others mean. Then how many sequences were looked at, then the different ones.
const FORM: u64 = u64::from_le_bytes(*b"AIONGR61");
const HEAD: usize = 2;
const WORD: usize = 8;

/// Whether somebody asks.
#[derive(Debug)]
pub(crate) struct Grams {
    asked: Mutex<Option<Instant>>,
    began: Instant,
    /// Held between the probes and the file, one agent at a time: nobody reads there what is just being written.
    moving: Mutex<()>,
    stopping: (Mutex<bool>, Condvar),
}

impl Grams {
    pub(crate) fn new() -> Self {
        Self {
            asked: Mutex::default(),
            began: Instant::now(),
            moving: Mutex::default(),
            stopping: (Mutex::default(), Condvar::new()),
        }
    }

    fn ask(&self) {
        *lock(&self.asked) = Some(Instant::now());
    }

    /// Whether an agent that is launched now is looked at from its first call on.
    fn is_asked(&self) -> bool {
        lock(&self.asked).is_some_and(|at| at.elapsed() < LEASE)
    }

    /// Whether the lease is over; that of an earlier launcher's agents runs from this one's beginning.
    fn is_over(&self) -> bool {
        lock(&self.asked).unwrap_or(self.began).elapsed() >= LEASE
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        let (stopping, changed) = &self.stopping;
        *lock(stopping) = true;
        changed.notify_all();
    }

    /// Waits; whether it is time to stop.
    fn pause(&self, time: Duration) -> bool {
        let (stopping, changed) = &self.stopping;
        let waited = changed.wait_timeout_while(lock(stopping), time, |stopping| !*stopping);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The thread.
pub(crate) fn run(launcher: &Launcher) {
    let Some(probes) = launcher.probes.get() else { return };
    while !launcher.grams.pause(LOOK_EVERY) {
        if launcher.grams.is_over() {
            each(launcher, probes, rest);
        }
    }
    each(launcher, probes, write_down);
}

type Act = fn(&Launcher, &Probes, &AgentId, u64);

/// All agents that are looked at, one after the other.
fn each(launcher: &Launcher, probes: &Probes, act: Act) {
    for agent in launcher.all() {
        if let Some(run) = agent.running()
            && probes.watches_grams(run.held.group.id())
        {
            act(launcher, probes, &agent.id, run.held.group.id());
        }
    }
}

/// Somebody asks for what is known of an agent: from now on it is looked at. None where its calls are not counted.
pub(crate) fn asked(launcher: &Launcher, agent: &Agent, run: &Run) -> Option<v1::Grams> {
    launcher.grams.ask();
    let probes = launcher.probes.get().filter(|_| run.probed)?;
    let cgroup_id = run.held.group.id();
    begin(launcher, probes, &agent.id, cgroup_id);
    let counts = probes.grams(cgroup_id).ok().flatten()?;
    Some(v1::Grams { looked: counts.looked, known: counts.known, unkept: counts.unkept })
}

/// An agent is about to run.
pub(crate) fn launching(launcher: &Launcher, probes: &Probes, id: &AgentId, cgroup_id: u64) {
    if launcher.grams.is_asked() {
        begin(launcher, probes, id, cgroup_id);
    }
}

fn begin(launcher: &Launcher, probes: &Probes, id: &AgentId, cgroup_id: u64) {
    let is_new = || !probes.watches_grams(cgroup_id) && probes.counts_syscalls(cgroup_id);
    if !is_new() {
        return;
    }
    let _moving = lock(&launcher.grams.moving);
    // Somebody else may have asked meanwhile.
    if !is_new() {
        return;
    }
    let model = std::fs::read(launcher.folder.grams(id)).ok().and_then(|bytes| decode(&bytes));
    // No agent fails for want of it: it is one more thing to look at.
    if let Err(e) = probes.watch_grams(cgroup_id, &model.unwrap_or_default()) {
        tracing::warn!(agent = %id, error = chain(&e), "the sequences of its system calls are not looked at");
    }
}

/// Lets an agent be, as nobody asks any more.
fn rest(launcher: &Launcher, probes: &Probes, id: &AgentId, cgroup_id: u64) {
    let _moving = lock(&launcher.grams.moving);
    if launcher.grams.is_over() {
        write_model(launcher, id, probes.rest_grams(cgroup_id));
    }
}

/// Writes down what an agent that runs on is known for.
fn write_down(launcher: &Launcher, probes: &Probes, id: &AgentId, cgroup_id: u64) {
    let _moving = lock(&launcher.grams.moving);
    write_model(launcher, id, probes.gram_model(cgroup_id));
}

fn write_model(launcher: &Launcher, id: &AgentId, model: Result<Option<GramModel>, aion_probes::Error>) {
    match model {
        Ok(Some(model)) => write(launcher, id, &model),
        // It has ended meanwhile, and was kept then.
        Ok(None) | Err(aion_probes::Error::UnknownAgent { .. }) => {}
        Err(e) => tracing::warn!(agent = %id, error = chain(&e), "what it is known for is lost"),
    }
}

/// Keeps what an agent is known for until it is launched again.
pub(crate) fn keep(launcher: &Launcher, id: &AgentId, model: &GramModel) {
    let _moving = lock(&launcher.grams.moving);
    write(launcher, id, model);
}

fn write(launcher: &Launcher, id: &AgentId, model: &GramModel) {
    let path = launcher.folder.grams(id);
    if let Err(e) = replace(&path, &encode(model)) {
        tracing::warn!(agent = %id, error = %e, "what it is known for is lost");
    }
}

fn encode(model: &GramModel) -> Vec<u8> {
    let words = [FORM, model.looked].into_iter().chain(model.grams.iter().copied());
    words.flat_map(u64::to_le_bytes).collect()
}

/// What is no gram the probes leave out.
fn decode(bytes: &[u8]) -> Option<GramModel> {
    let most = usize::try_from(GramModel::MAX_GRAMS).ok()? + HEAD;
    if !bytes.len().is_multiple_of(WORD) || bytes.len() > most * WORD {
        return None;
    }
    let word = |bytes: &[u8]| <[u8; WORD]>::try_from(bytes).ok().map(u64::from_le_bytes);
    let mut words = bytes.chunks_exact(WORD).filter_map(word);
    if words.next()? != FORM {
        return None;
    }
    let looked = words.next()?;
    Some(GramModel { looked, grams: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_nothing_else() {
        let model = GramModel { looked: 7, grams: vec![1, 2, 3] };
        let bytes = encode(&model);
        assert_eq!(decode(&bytes), Some(model));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None, "cut off");
        assert_eq!(decode(&bytes[..8]), None);
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&bytes[8..]), None, "of another form");
        let most = usize::try_from(GramModel::MAX_GRAMS).unwrap();
        assert!(decode(&encode(&GramModel { looked: 0, grams: vec![1; most] })).is_some());
        assert_eq!(decode(&encode(&GramModel { looked: 0, grams: vec![1; most + 1] })), None);
    }

    #[test]
    fn asking_holds_for_its_time() {
        let grams = Grams::new();
        assert!(!grams.is_asked() && !grams.is_over(), "an earlier launcher's lease may hold");
        grams.ask();
        assert!(grams.is_asked() && !grams.is_over());
    }

    #[test]
    fn who_stops_waits_no_longer() {
        let grams = Grams::new();
        assert!(!grams.pause(Duration::from_millis(1)));
        grams.stop();
        assert!(grams.pause(Duration::from_secs(3600)));
    }
}
