//! What runs used, summed up for the agents that they are of. Pure: looks come in, sums are there to be told.
//!
//! A run counts from its beginning, unless it was in the launcher's table when this daemon first saw that: what it had used before was told
//! by the daemon before. Clocks are not asked, which go back.

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

#[derive(Default)]
struct Room {
    bytes: bool,
    calls: bool,
}

/// The sums.
pub(super) struct Sums {
    /// When this daemon began, by the clock of launches.
    since_ns: u64,
    runs: HashMap<String, Run>,
    /// Ids and incarnations of the table that this daemon found; none: it has not seen one yet.
    older: Option<HashMap<String, u32>>,
    /// Who runs, as far as is known.
    live: BTreeSet<Whose>,
    /// Whether those that do not run may still make room: once in a look.
    room: Room,
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
    live: &BTreeSet<Whose>,
    room: &mut bool,
) -> &'a mut V {
    if sums.len() >= most && !sums.contains_key(whose) && std::mem::take(room) {
        // Who does not run makes room, and begins at 0 when it comes back.
        sums.retain(|one, _| live.contains(one) || one.agent == OTHER);
    }
    let key = match sums.len() < most || sums.contains_key(whose) {
        true => whose.clone(),
        false => Whose { tenant: OTHER.to_owned(), agent: OTHER.to_owned() },
    };
    sums.entry(key).or_default()
}

impl Sums {
    pub(super) fn new(since_ns: u64) -> Self {
        Self {
            since_ns,
            runs: HashMap::new(),
            older: None,
            live: BTreeSet::new(),
            room: Room::default(),
            bytes: BTreeMap::new(),
            calls: BTreeMap::new(),
            limits: BTreeMap::new(),
        }
    }

    /// What the launcher has; the first time this is what the daemon before has told of, but for what was launched since, while the
    /// table was on its way.
    pub(super) fn found(&mut self, table: &[launcher::AgentState]) {
        let of = |state: &launcher::AgentState| (state.id.clone(), state.incarnation);
        if self.older.is_none() {
            let before = table.iter().filter(|state| state.started_ns < self.since_ns);
            self.older = Some(before.map(of).collect());
        }
    }

    /// A look begins: forgets the runs that are in the launcher's table no more.
    pub(super) fn keep(&mut self, table: &[launcher::AgentState]) {
        self.found(table);
        let there: BTreeSet<&str> = table.iter().map(|state| state.id.as_str()).collect();
        self.runs.retain(|id, _| there.contains(id.as_str()));
        if let Some(older) = &mut self.older {
            older.retain(|id, _| there.contains(id.as_str()));
        }
        self.live = self.runs.values().filter(|run| !run.over).map(|run| run.whose.clone()).collect();
        self.room = Room { bytes: true, calls: true };
        self.limits.retain(|whose, _| self.live.contains(whose));
    }

    /// A look at what a run has used.
    pub(super) fn looked(&mut self, state: &launcher::AgentState, whose: &Whose, used: &Used) {
        // Its end was told while this look was on its way.
        if !self.is_past(state) {
            self.count(state, whose, used, false);
        }
    }

    /// A run is over; this may be told several times.
    pub(super) fn ended(&mut self, state: &launcher::AgentState, whose: &Whose) {
        if !self.is_past(state) {
            let bytes = Bytes { sent: state.net_tx_bytes, received: state.net_rx_bytes };
            self.count(state, whose, &Used { bytes, calls: BTreeMap::new() }, true);
        }
    }

    /// Whether all of this run was counted: it is over, or the next one was seen, which took its place.
    fn is_past(&self, state: &launcher::AgentState) -> bool {
        self.runs.get(&state.id).is_some_and(|run| {
            run.incarnation > state.incarnation || (run.incarnation == state.incarnation && run.over)
        })
    }

    fn is_older(&self, state: &launcher::AgentState) -> bool {
        let found = self.older.as_ref().and_then(|older| older.get(&state.id));
        found.is_some_and(|incarnation| state.incarnation <= *incarnation)
    }

    fn count(&mut self, state: &launcher::AgentState, whose: &Whose, used: &Used, over: bool) {
        let known = self.runs.remove(&state.id).filter(|run| run.incarnation == state.incarnation);
        let mut counted = match known {
            Some(run) => run.counted,
            None if self.is_older(state) => used.clone(),
            None => Used::default(),
        };
        let more = used.since(&counted);
        // Never less than before, also where the launcher could not read what there is.
        counted.add(&more);
        let run = Run { incarnation: state.incarnation, whose: whose.clone(), counted, over };
        self.runs.insert(state.id.clone(), run);
        if !over {
            self.live.insert(whose.clone());
        }
        // Most of the table has ended long ago.
        if over && more.bytes == Bytes::default() {
            return;
        }
        place(&mut self.bytes, whose, MOST, &self.live, &mut self.room.bytes).add(more.bytes);
        if !more.calls.is_empty() {
            let room = &mut self.room.calls;
            add_calls(place(&mut self.calls, whose, MOST_HISTOGRAMS, &self.live, room), &more.calls);
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

    const SINCE: u64 = 1000;

    fn whose(agent: &str) -> Whose {
        Whose { tenant: "t".into(), agent: agent.into() }
    }

    fn state(id: &str, incarnation: u32) -> launcher::AgentState {
        launcher::AgentState { id: id.into(), incarnation, ..Default::default() }
    }

    fn used(sent: u64, received: u64) -> Used {
        Used { bytes: Bytes { sent, received }, ..Used::default() }
    }

    #[test]
    fn runs_are_counted_from_this_daemon_s_beginning_to_their_end() {
        let mut sums = Sums::new(SINCE);
        let a = whose("a");
        sums.found(&[state("1", 1)]);
        sums.looked(&state("1", 1), &a, &used(1000, 1000));
        assert_eq!(sums.bytes[&a], Bytes::default(), "it was told by the daemon before");
        sums.looked(&state("1", 1), &a, &used(1010, 1000));
        let mut end = state("1", 1);
        (end.net_tx_bytes, end.net_rx_bytes) = (1012, 1001);
        sums.ended(&end, &a);
        sums.ended(&end, &a);
        // A look that was under way.
        sums.looked(&state("1", 1), &a, &used(1011, 1000));
        assert_eq!(sums.bytes[&a], Bytes { sent: 12, received: 1 });
        // The next incarnation begins at 0.
        sums.looked(&state("1", 2), &a, &used(5, 0));
        assert_eq!(sums.bytes[&a], Bytes { sent: 17, received: 1 });
        // An end that is told late was counted, or is lost with the look that missed it.
        sums.ended(&end, &a);
        sums.looked(&state("1", 1), &a, &used(1012, 1001));
        assert_eq!(sums.bytes[&a], Bytes { sent: 17, received: 1 });
        // What could not be read takes nothing back, and nothing is counted twice.
        sums.looked(&state("1", 2), &a, &used(0, 0));
        sums.looked(&state("1", 2), &a, &used(5, 0));
        assert_eq!(sums.bytes[&a], Bytes { sent: 17, received: 1 });
    }

    #[test]
    fn attempts_are_their_agent_s_however_short_they_are() {
        let mut sums = Sums::new(SINCE);
        let a = whose("a");
        // One that ended before this daemon began is nothing new.
        sums.found(&[state("4", 1)]);
        sums.ended(&launcher::AgentState { net_tx_bytes: 7, ..state("4", 1) }, &a);
        assert!(sums.bytes.is_empty());
        for id in ["1", "2", "3"] {
            // Nobody looked while it ran.
            let end = launcher::AgentState { net_tx_bytes: 7, ..state(id, 1) };
            sums.ended(&end, &a);
            sums.keep(&[]);
        }
        assert_eq!(sums.bytes[&a].sent, 21);
        assert!(sums.runs.is_empty());
    }

    #[test]
    fn what_is_launched_while_the_table_is_on_its_way_is_counted() {
        let mut sums = Sums::new(SINCE);
        let a = whose("a");
        let new = launcher::AgentState { started_ns: SINCE, net_tx_bytes: 7, ..state("1", 1) };
        sums.found(std::slice::from_ref(&new));
        sums.ended(&new, &a);
        assert_eq!(sums.bytes[&a].sent, 7);
    }

    #[test]
    fn names_are_bounded_and_who_runs_no_more_makes_room() {
        let mut sums = Sums::new(SINCE);
        for n in 0..MOST + 5 {
            let (id, whose) = (n.to_string(), whose(&n.to_string()));
            sums.looked(&state(&id, 1), &whose, &used(1, 0));
        }
        let other = Whose { tenant: OTHER.into(), agent: OTHER.into() };
        assert_eq!((sums.bytes.len(), sums.bytes[&other].sent), (MOST + 1, 5));
        sums.keep(&[]);
        sums.looked(&state("new", 1), &whose("new"), &used(3, 0));
        assert_eq!((sums.bytes.len(), sums.bytes[&whose("new")].sent), (2, 3));
        // Once in a look.
        let short = |id: &str| launcher::AgentState { net_tx_bytes: 1, ..state(id, 1) };
        for n in 0..MOST {
            let id = format!("short-{n}");
            sums.ended(&short(&id), &whose(&id));
        }
        assert_eq!((sums.bytes.len(), sums.bytes[&other].sent), (MOST, 7));
        sums.keep(&[]);
        sums.ended(&short("late"), &whose("late"));
        assert_eq!((sums.bytes.len(), sums.bytes[&whose("late")].sent), (2, 1));
    }

    #[test]
    fn limits_are_of_those_that_run() {
        let mut sums = Sums::new(SINCE);
        let a = whose("a");
        sums.looked(&state("1", 1), &a, &used(0, 0));
        sums.limited(&a, Some(Limits::default()));
        sums.keep(&[state("1", 1)]);
        assert!(sums.limits.contains_key(&a));
        sums.keep(&[]);
        assert!(sums.limits.is_empty());
    }
}
