//! What runs used, summed up for the agents that they are of. Pure: looks come in, sums are there to be told.
//!
//! A run counts from its beginning when that was in this daemon's time, and from the first look at it otherwise: what it had used before
//! was told by the daemon before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aion_launcher_proto::v1 as launcher;

use super::latency::{Calls, Latency};
use super::limits::Limits;

/// Agents that are told apart; what comes after them is counted as `other`.
const MOST: usize = 2000;
/// The same, of those with histograms, which have some fifty lines each.
const MOST_HISTOGRAMS: usize = 200;
const OTHER: &str = "other";

/// Whose figures: tenant and agent by name. The processes of attempts are their agent's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Whose {
    pub(crate) tenant: String,
    pub(crate) agent: String,
}

/// Bytes of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// What a run has used so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Used {
    pub(super) bytes: Bytes,
    pub(super) calls: BTreeMap<Calls, Latency>,
}

struct Run {
    incarnation: u32,
    whose: Whose,
    /// What of it was counted.
    counted: Used,
    over: bool,
}

/// The sums.
#[derive(Default)]
pub(super) struct Sums {
    runs: HashMap<String, Run>,
    pub(super) bytes: BTreeMap<Whose, Bytes>,
    pub(super) calls: BTreeMap<Whose, BTreeMap<Calls, Latency>>,
    /// Of those that run.
    pub(super) limits: BTreeMap<Whose, Limits>,
}

impl Bytes {
    const fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }

    const fn add(&mut self, more: Self) {
        self.sent = self.sent.saturating_add(more.sent);
        self.received = self.received.saturating_add(more.received);
    }
}

impl Used {
    fn since(&self, before: &Self) -> Self {
        let none = Latency::default();
        let of =
            |(kind, now): (&Calls, &Latency)| (*kind, now.since(before.calls.get(kind).unwrap_or(&none)));
        Self { bytes: self.bytes.since(before.bytes), calls: self.calls.iter().map(of).collect() }
    }

    fn add(&mut self, more: &Self) {
        self.bytes.add(more.bytes);
        add_calls(&mut self.calls, &more.calls);
    }
}

fn add_calls(sums: &mut BTreeMap<Calls, Latency>, more: &BTreeMap<Calls, Latency>) {
    for (kind, more) in more {
        sums.entry(*kind).or_default().add(more);
    }
}

/// The place of one agent's sum: its own, or that of all others.
fn place<'a, V: Default>(
    sums: &'a mut BTreeMap<Whose, V>,
    whose: &Whose,
    most: usize,
    runs: &HashMap<String, Run>,
) -> &'a mut V {
    if sums.len() >= most && !sums.contains_key(whose) {
        // Who does not run makes room, and begins at 0 when it comes back.
        let live: BTreeSet<&Whose> = runs.values().filter(|run| !run.over).map(|run| &run.whose).collect();
        sums.retain(|one, _| live.contains(one) || one.agent == OTHER);
    }
    let key = match sums.len() < most || sums.contains_key(whose) {
        true => whose.clone(),
        false => Whose { tenant: OTHER.to_owned(), agent: OTHER.to_owned() },
    };
    sums.entry(key).or_default()
}

impl Sums {
    /// Forgets the runs that are in the launcher's table no more.
    pub(super) fn keep(&mut self, table: &[launcher::AgentState]) {
        let there: BTreeSet<&str> = table.iter().map(|state| state.id.as_str()).collect();
        self.runs.retain(|id, _| there.contains(id.as_str()));
        let live: BTreeSet<&Whose> =
            self.runs.values().filter(|run| !run.over).map(|run| &run.whose).collect();
        self.limits.retain(|whose, _| live.contains(whose));
    }

    /// A look at what a run has used; `since_ns` is when this daemon began.
    pub(super) fn looked(&mut self, state: &launcher::AgentState, since_ns: u64, whose: &Whose, used: &Used) {
        let known = self.runs.get(&state.id).filter(|run| run.incarnation == state.incarnation);
        // Its end was told while this look was on its way.
        if known.is_some_and(|run| run.over) {
            return;
        }
        self.count(state, since_ns, whose, used, false);
    }

    /// A run is over; this may be told several times.
    pub(super) fn ended(&mut self, state: &launcher::AgentState, since_ns: u64, whose: &Whose) {
        let known = self.runs.get(&state.id).filter(|run| run.incarnation == state.incarnation);
        if known.is_some_and(|run| run.over) {
            return;
        }
        let bytes = Bytes { sent: state.net_tx_bytes, received: state.net_rx_bytes };
        self.count(state, since_ns, whose, &Used { bytes, calls: BTreeMap::new() }, true);
    }

    fn count(&mut self, state: &launcher::AgentState, since_ns: u64, whose: &Whose, used: &Used, over: bool) {
        let known = self.runs.remove(&state.id).filter(|run| run.incarnation == state.incarnation);
        let mut counted = match known {
            Some(run) => run.counted,
            None if state.started_ns >= since_ns => Used::default(),
            None => used.clone(),
        };
        let more = used.since(&counted);
        // Never less than before, also where the launcher could not read what there is.
        counted.add(&more);
        let run = Run { incarnation: state.incarnation, whose: whose.clone(), counted, over };
        self.runs.insert(state.id.clone(), run);
        // Most of the table has ended long ago.
        if over && more.bytes == Bytes::default() {
            return;
        }
        place(&mut self.bytes, whose, MOST, &self.runs).add(more.bytes);
        if !more.calls.is_empty() {
            add_calls(place(&mut self.calls, whose, MOST_HISTOGRAMS, &self.runs), &more.calls);
        }
    }

    /// An agent's limits of the network as they are now.
    pub(super) fn limited(&mut self, whose: &Whose, limits: Option<Limits>) {
        match limits {
            // An account that nobody reads is no sum of others.
            Some(limits) if self.limits.len() < MOST || self.limits.contains_key(whose) => {
                self.limits.insert(whose.clone(), limits);
            }
            Some(_) => {}
            None => {
                self.limits.remove(whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(agent: &str) -> Whose {
        Whose { tenant: "t".into(), agent: agent.into() }
    }

    fn state(id: &str, incarnation: u32, started_ns: u64) -> launcher::AgentState {
        launcher::AgentState { id: id.into(), incarnation, started_ns, ..Default::default() }
    }

    fn used(sent: u64, received: u64) -> Used {
        Used { bytes: Bytes { sent, received }, ..Used::default() }
    }

    /// This daemon began at 100.
    const SINCE: u64 = 100;

    #[test]
    fn runs_are_counted_from_this_daemon_s_beginning_to_their_end() {
        let mut sums = Sums::default();
        let a = whose("a");
        sums.looked(&state("1", 1, 50), SINCE, &a, &used(1000, 1000));
        assert_eq!(sums.bytes[&a], Bytes::default(), "it was told by the daemon before");
        sums.looked(&state("1", 1, 50), SINCE, &a, &used(1010, 1000));
        let mut end = state("1", 1, 50);
        (end.net_tx_bytes, end.net_rx_bytes) = (1012, 1001);
        sums.ended(&end, SINCE, &a);
        sums.ended(&end, SINCE, &a);
        // A look that was under way.
        sums.looked(&state("1", 1, 50), SINCE, &a, &used(1011, 1000));
        assert_eq!(sums.bytes[&a], Bytes { sent: 12, received: 1 });
        // The next incarnation begins at 0.
        sums.looked(&state("1", 2, 150), SINCE, &a, &used(5, 0));
        assert_eq!(sums.bytes[&a], Bytes { sent: 17, received: 1 });
        // What could not be read takes nothing back, and nothing is counted twice.
        sums.looked(&state("1", 2, 150), SINCE, &a, &used(0, 0));
        sums.looked(&state("1", 2, 150), SINCE, &a, &used(5, 0));
        assert_eq!(sums.bytes[&a], Bytes { sent: 17, received: 1 });
    }

    #[test]
    fn attempts_are_their_agent_s_however_short_they_are() {
        let mut sums = Sums::default();
        let a = whose("a");
        for id in ["1", "2", "3"] {
            // Nobody looked while it ran.
            let end = launcher::AgentState { net_tx_bytes: 7, ..state(id, 1, 150) };
            sums.ended(&end, SINCE, &a);
            sums.keep(&[]);
        }
        assert_eq!(sums.bytes[&a].sent, 21);
        assert!(sums.runs.is_empty());
        // One that ended before this daemon began is nothing new.
        sums.ended(&launcher::AgentState { net_tx_bytes: 7, ..state("4", 1, 50) }, SINCE, &a);
        assert_eq!(sums.bytes[&a].sent, 21);
    }

    #[test]
    fn names_are_bounded_and_who_runs_no_more_makes_room() {
        let mut sums = Sums::default();
        for n in 0..MOST + 5 {
            let (id, whose) = (n.to_string(), whose(&n.to_string()));
            sums.looked(&state(&id, 1, 150), SINCE, &whose, &used(1, 0));
        }
        let other = Whose { tenant: OTHER.into(), agent: OTHER.into() };
        assert_eq!((sums.bytes.len(), sums.bytes[&other].sent), (MOST + 1, 5));
        sums.keep(&[]);
        sums.looked(&state("new", 1, 150), SINCE, &whose("new"), &used(3, 0));
        assert_eq!((sums.bytes.len(), sums.bytes[&whose("new")].sent), (2, 3));
    }

    #[test]
    fn limits_are_of_those_that_run() {
        let mut sums = Sums::default();
        let a = whose("a");
        sums.looked(&state("1", 1, 150), SINCE, &a, &used(0, 0));
        sums.limited(&a, Some(Limits::default()));
        sums.keep(&[state("1", 1, 150)]);
        assert!(sums.limits.contains_key(&a));
        sums.keep(&[]);
        assert!(sums.limits.is_empty());
    }
}
