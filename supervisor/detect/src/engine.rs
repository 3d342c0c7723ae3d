//! The engine: each event to the rules of its kind, each rule with what it remembers of the agent.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::baseline::Baseline;
use crate::beat::Beats;
use crate::event::Event;
use crate::kinds;
use crate::rule::{Rule, When};
use crate::sequence::Sequences;
use crate::window::{Distinct, EXACT, Reached, Window};

/// Agents that are remembered at once; the one that was silent longest goes for another.
const MAX_AGENTS: usize = 4096;
/// A rule that has found something says nothing more of the agent for its window, and so long at least.
const QUIET_NS: u64 = 60 * 1_000_000_000;
/// An agent of which nothing came for so long beyond the longest window is forgotten.
const SILENT_NS: u64 = 600 * 1_000_000_000;
/// A clock that goes back further than events overtake each other was set back.
const SET_BACK_NS: u64 = 60 * 1_000_000_000;

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Arc<Rule>,
    /// The agent's id.
    pub agent: String,
    /// Its tenant.
    pub tenant: String,
    /// The time of the event that was the last it took.
    pub time_ns: u64,
    /// The record of that event; 0 for a sample.
    pub seq: u64,
    /// The time of the first event that counted, nearly.
    pub first_ns: u64,
    /// The record of that event.
    pub first_seq: u64,
    /// How many, or how much.
    pub value: u64,
    /// How often it would have said so since it last did.
    pub suppressed: u64,
}

/// How a rule has fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The rule.
    pub rule: Arc<Rule>,
    /// How often it found something, since the engine began.
    pub fired: u64,
    /// How often it would have while it was quiet.
    pub suppressed: u64,
    /// When it last did; 0: never.
    pub last_ns: u64,
}

#[derive(Debug, Clone)]
enum State {
    Window(Window),
    Distinct(Distinct),
    Sequences(Sequences),
    Beats(Beats),
    Baseline(Baseline),
}

#[derive(Debug, Clone)]
struct Cell {
    state: State,
    quiet_until_ns: u64,
    suppressed: u64,
}

#[derive(Debug, Clone, Default)]
struct Agent {
    last_ns: u64,
    cells: HashMap<usize, Cell>,
}

/// The engine.
#[derive(Debug, Clone)]
pub struct Engine {
    rules: Vec<Status>,
    /// Places of enabled rules, by kind.
    by_kind: Vec<Vec<usize>>,
    /// Whether one of them reads what events of the kind tell.
    reads: Vec<bool>,
    agents: HashMap<String, Agent>,
    longest_ns: u64,
    evicted: u64,
}

impl Engine {
    /// An engine with rules that were checked.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut engine = Self {
            rules: Vec::new(),
            by_kind: vec![Vec::new(); kinds::COUNT],
            reads: vec![false; kinds::COUNT],
            agents: HashMap::new(),
            longest_ns: 0,
            evicted: 0,
        };
        engine.replace(rules);
        engine
    }

    /// Takes other rules. What is remembered for a rule that is there as before stays, and how it has fared.
    pub fn replace(&mut self, rules: Vec<Rule>) {
        let old = std::mem::take(&mut self.rules);
        let mut moved = HashMap::new();
        self.by_kind.iter_mut().for_each(Vec::clear);
        self.reads.fill(false);
        for rule in rules {
            let at = self.rules.len();
            let before = old.iter().position(|status| *status.rule == rule);
            for (kind, (places, reads)) in
                kinds::kind_names().zip(self.by_kind.iter_mut().zip(&mut self.reads))
            {
                if rule.wants(kind) {
                    places.push(at);
                    *reads |= rule.reads();
                }
            }
            match before {
                Some(place) => {
                    moved.insert(place, at);
                    self.rules.push(old[place].clone());
                }
                None => self.rules.push(Status { rule: Arc::new(rule), fired: 0, suppressed: 0, last_ns: 0 }),
            }
        }
        for agent in self.agents.values_mut() {
            let cells = std::mem::take(&mut agent.cells);
            agent.cells = cells.into_iter().filter_map(|(at, cell)| Some((*moved.get(&at)?, cell))).collect();
        }
        self.longest_ns = self.rules.iter().map(|status| status.rule.window_ns).max().unwrap_or(0);
    }

    /// The rules and how they have fared.
    #[must_use]
    pub fn status(&self) -> &[Status] {
        &self.rules
    }

    /// The longest window of a rule.
    #[must_use]
    pub const fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// Agents that are remembered.
    #[must_use]
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Agents that were forgotten for want of room.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Whether some rule looks at a kind: what none looks at need not be read.
    #[must_use]
    pub fn wants(&self, kind: crate::KindId) -> bool {
        self.by_kind.get(kind.0).is_some_and(|places| !places.is_empty())
    }

    /// Whether some rule looks at what events of a kind tell: where none does, it is enough that they came.
    #[must_use]
    pub fn reads(&self, kind: crate::KindId) -> bool {
        self.reads.get(kind.0).copied().unwrap_or_default()
    }

    /// Looks at an event.
    pub fn observe(&mut self, event: &Event<'_>, findings: &mut Vec<Finding>) {
        let Some(places) = self.by_kind.get(event.kind.0).filter(|places| !places.is_empty()) else { return };
        if !self.agents.contains_key(event.who.agent) {
            if self.agents.len() >= MAX_AGENTS
                && let Some(silent) = self.agents.iter().min_by_key(|(_, agent)| agent.last_ns)
            {
                let silent = silent.0.clone();
                self.agents.remove(&silent);
                self.evicted += 1;
            }
            self.agents.insert(event.who.agent.to_owned(), Agent::default());
        }
        let Some(agent) = self.agents.get_mut(event.who.agent) else { return };
        if event.time_ns.saturating_add(SET_BACK_NS) < agent.last_ns {
            *agent = Agent::default();
        }
        // Records of different origins overtake each other a little.
        let now_ns = event.time_ns.max(agent.last_ns);
        agent.last_ns = now_ns;
        for &at in places {
            let Some(status) = self.rules.get_mut(at) else { continue };
            let rule = &status.rule;
            if !rule.filters().any(|filter| filter.matches(event)) || rule.excepts(event) {
                continue;
            }
            let cell = agent.cells.entry(at).or_insert_with(|| Cell::new(rule));
            let Some(reached) = cell.add(rule, now_ns, event) else { continue };
            if now_ns < cell.quiet_until_ns {
                cell.suppressed += 1;
                status.suppressed += 1;
                continue;
            }
            cell.quiet_until_ns = now_ns.saturating_add(rule.window_ns.max(QUIET_NS));
            let suppressed = std::mem::take(&mut cell.suppressed);
            status.fired += 1;
            status.last_ns = now_ns;
            findings.push(Finding {
                rule: Arc::clone(&status.rule),
                agent: event.who.agent.to_owned(),
                tenant: event.who.tenant.to_owned(),
                time_ns: now_ns,
                seq: event.seq,
                first_ns: reached.first_ns,
                first_seq: reached.first_seq,
                value: reached.value,
                suppressed,
            });
        }
    }

    /// Forgets an agent: it ended, begins anew, or an operator let it go on.
    pub fn forget(&mut self, agent: &str) {
        self.agents.remove(agent);
    }

    /// Begins to count anew, after events of the past were looked at once more. What they left is remembered.
    pub fn count_anew(&mut self) {
        for status in &mut self.rules {
            (status.fired, status.suppressed, status.last_ns) = (0, 0, 0);
        }
    }

    /// Forgets agents of which nothing came for long.
    pub fn tidy(&mut self, now_ns: u64) {
        let keep = self.longest_ns.saturating_add(SILENT_NS);
        self.agents.retain(|_, agent| agent.last_ns.saturating_add(keep) > now_ns);
    }
}

impl Cell {
    fn new(rule: &Rule) -> Self {
        let state = match &rule.when {
            When::Count { at_least, .. } => State::Window(Window::new(rule.window_ns, *at_least <= EXACT)),
            When::Sum { .. } => State::Window(Window::new(rule.window_ns, false)),
            When::Distinct { .. } => State::Distinct(Distinct::default()),
            When::Sequence(_) => State::Sequences(Sequences::default()),
            When::Beacon(_) => State::Beats(Beats::default()),
            When::Deviation(_) => State::Baseline(Baseline::default()),
        };
        Self { state, quiet_until_ns: 0, suppressed: 0 }
    }

    fn add(&mut self, rule: &Rule, now_ns: u64, event: &Event<'_>) -> Option<Reached> {
        let amount = |field: &str| u64::try_from(event.number(field).unwrap_or(0)).unwrap_or(0);
        match (&mut self.state, &rule.when) {
            (State::Window(window), When::Count { at_least, .. }) => {
                window.add(now_ns, event.seq, 1, *at_least)
            }
            (State::Window(window), When::Sum { field, at_least, .. }) => {
                window.add(now_ns, event.seq, amount(field), *at_least)
            }
            (State::Distinct(distinct), When::Distinct { field, at_least, .. }) => {
                let value = hash([&*event.text(field)]);
                distinct.add(rule.window_ns, now_ns, event.seq, value, *at_least)
            }
            (State::Sequences(sequences), When::Sequence(steps)) => {
                sequences.add(steps, rule.window_ns, now_ns, event)
            }
            (State::Beats(beats), When::Beacon(beacon)) => {
                let key = hash(beacon.by.iter().map(|field| event.text(field)));
                beats.add(beacon, rule.window_ns, now_ns, event.seq, key)
            }
            (State::Baseline(line), When::Deviation(deviation)) => {
                line.add(deviation, now_ns, event.seq, amount(deviation.rate.source().1))
            }
            // A cell is made for its rule.
            _ => None,
        }
    }
}

/// A hash that is the same in every run.
pub(crate) fn hash<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for text in texts {
        text.as_ref().hash(&mut hasher);
    }
    hasher.finish()
}
