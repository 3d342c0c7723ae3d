//! The state machine's outside: commands in, events, rows and effects out. The rules are in the modules beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;

use crate::codec_rows::Globals;
use crate::entity::{Agent, Lane, Node, Tenant};
use crate::row::keys;
use crate::store::{Keyed, Slab, Tasks};
use crate::task::flag;
use crate::{
    Attempt, Command, Config, ConfigError, Effect, Ended, Event, EventKind, Name, Refusal, Reply, Row,
    TaskNumber,
};

/// What came of commands that were accepted. Events and rows are to be on disk before the effects run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What the last command answers.
    pub reply: Reply,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What changed; of rows with the same key the last one counts.
    pub rows: Vec<Row>,
    /// What is to be done.
    pub effects: Vec<Effect>,
}

/// What a timer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Tenant(u32),
    Agent(u32),
    Task(u64),
}

/// What is to be written at the next flush.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) rows: Vec<Row>,
    pub(crate) tasks: Vec<u64>,
    pub(crate) tenants: Vec<u32>,
    pub(crate) lanes: Vec<u32>,
    pub(crate) agents: Vec<u32>,
    pub(crate) globals: bool,
}

/// Ids of tasks that ended lately: their rows may still be on their way to the disk, where the engine looks for them.
#[derive(Debug)]
pub(crate) struct Recent {
    order: VecDeque<(u32, Name)>,
    ended: HashMap<(u32, Name), Ended, Keyed>,
}

impl Recent {
    fn new(seed: u64) -> Self {
        Self { order: VecDeque::new(), ended: HashMap::with_hasher(Keyed(seed)) }
    }

    pub(crate) fn add(&mut self, tenant: u32, id: Name, ended: Ended, most: usize) {
        self.order.push_back((tenant, id.clone()));
        self.ended.insert((tenant, id), ended);
        while self.order.len() > most {
            if let Some(oldest) = self.order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }

    pub(crate) fn get(&self, tenant: u32, id: &Name) -> Option<Ended> {
        self.ended.get(&(tenant, id.clone())).copied()
    }
}

/// The state of everything.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) now: u64,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) next_number: u64,
    pub(crate) next_event: u64,
    pub(crate) tasks: Tasks,
    pub(crate) tenants: Slab<Tenant>,
    pub(crate) lanes: Slab<Lane>,
    pub(crate) agents: Slab<Agent>,
    pub(crate) names: BTreeMap<Name, u32>,
    pub(crate) attempts: BTreeMap<Attempt, u64>,
    pub(crate) node: Node,
    pub(crate) timers: BTreeSet<(u64, Timer)>,
    pub(crate) recent: Recent,
    pub(crate) dirty: Dirty,
    pub(crate) stale: u64,
    pub(crate) expired: u64,
    /// Sets are being rebuilt: what becomes ready was so before, and keeps its virtual time.
    pub(crate) rebuilding: bool,
    pub(crate) nobody: Name,
}

impl Scheduler {
    /// An empty one.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            now: 0,
            epoch: 0,
            seq: 0,
            next_number: 1,
            next_event: 1,
            tasks: Tasks::new(config.hash_seed),
            tenants: Slab::default(),
            lanes: Slab::default(),
            agents: Slab::default(),
            names: BTreeMap::new(),
            attempts: BTreeMap::new(),
            node: Node::default(),
            timers: BTreeSet::new(),
            recent: Recent::new(config.hash_seed),
            dirty: Dirty::default(),
            stale: 0,
            expired: 0,
            rebuilding: false,
            nobody: "".into(),
            config,
        })
    }

    /// Applies one command and gives what came of it, rows included.
    ///
    /// # Errors
    /// The command was refused, and nothing changed.
    pub fn apply(&mut self, now: u64, command: Command) -> Result<Applied, Refusal> {
        let mut applied = Applied::default();
        applied.reply = self.apply_into(now, command, &mut applied)?;
        self.flush(&mut applied);
        Ok(applied)
    }

    /// Like [`Scheduler::apply`], but adds events and effects to `out` and leaves the rows for [`Scheduler::flush`]: for a group of
    /// commands that is written as one batch, a row that changes many times is written once.
    ///
    /// # Errors
    /// The command was refused, and nothing changed.
    pub fn apply_into(&mut self, now: u64, command: Command, out: &mut Applied) -> Result<Reply, Refusal> {
        let before = self.now;
        self.now = now.max(before);
        match self.perform(command, out) {
            Ok(reply) => {
                self.run_timers(out);
                self.schedule(out);
                self.dirty.globals = true;
                Ok(reply)
            }
            Err(refusal) => {
                self.now = before;
                if matches!(refusal, Refusal::AttemptStale { .. }) {
                    self.stale += 1;
                }
                Err(refusal)
            }
        }
    }

    /// Every refusal is found before the first change.
    fn perform(&mut self, command: Command, out: &mut Applied) -> Result<Reply, Refusal> {
        match command {
            Command::Boot { epoch } => self.boot(epoch, out),
            Command::Configure(config) => self.configure(*config, out),
            Command::Submit(submit) => self.submit(*submit, out),
            Command::Cancel { tenant, task, reason } => self.cancel(&tenant, &task, reason, out),
            Command::AgentKnown { tenant, name, spec } => self.agent_known(&tenant, &name, spec, out),
            Command::AgentGone { tenant, name } => self.agent_gone(&tenant, &name, out),
            Command::Attached { tenant, name, concurrency, running } => {
                self.attached(&tenant, &name, concurrency, &running, out)
            }
            Command::Detached { tenant, name, process_gone } => {
                self.detached(&tenant, &name, process_gone, out)
            }
            Command::Confirmed { attempt } => self.confirmed(attempt, out),
            Command::Started { attempt } => self.started(attempt, out),
            Command::Progress { attempt, permille, note } => self.progress(attempt, permille, note, out),
            Command::Checkpointed { attempt, bytes, yields } => {
                self.checkpointed(attempt, bytes, yields, out)
            }
            Command::Noted { attempt, text } => self.noted(attempt, text, out),
            Command::Completed { attempt } => self.completed(attempt, out),
            Command::Failed { attempt, code, message, retryable } => {
                self.failed(attempt, code, message, retryable, out)
            }
            Command::Yielded { attempt } => self.yielded(attempt, out),
            Command::AttemptLost { attempt, reason } => self.attempt_lost(attempt, reason, out),
            Command::Frozen { attempt } => self.frozen(attempt, out),
            Command::FreezeFailed { attempt } => self.freeze_failed(attempt, out),
            Command::Usage { attempt, tokens, usd_micros } => self.usage(attempt, tokens, usd_micros, out),
            Command::Tick => Ok(Reply::Done),
        }
    }

    /// Adds the rows of everything that changed since the last flush.
    pub fn flush(&mut self, out: &mut Applied) {
        out.rows.append(&mut self.dirty.rows);
        let mut numbers = std::mem::take(&mut self.dirty.tasks);
        numbers.sort_unstable();
        for number in numbers.drain(..) {
            if let Some(task) = self.tasks.get_mut(number)
                && task.has(flag::DIRTY)
            {
                task.set(flag::DIRTY, false);
                let value = Some(task.encode());
                out.rows.push(Row { key: keys::task(TaskNumber(number)), value });
            }
        }
        self.dirty.tasks = numbers;
        macro_rules! entities {
            ($list:ident, $slab:ident, $kind:expr) => {
                let mut ids = std::mem::take(&mut self.dirty.$list);
                ids.sort_unstable();
                for id in ids.drain(..) {
                    if self.$slab.get(id).is_some_and(|entity| entity.dirty) {
                        self.$slab[id].dirty = false;
                        out.rows
                            .push(Row { key: keys::entity($kind, id), value: Some(self.$slab[id].encode()) });
                    }
                }
                self.dirty.$list = ids;
            };
        }
        entities!(tenants, tenants, keys::TENANT);
        entities!(agents, agents, keys::AGENT);
        entities!(lanes, lanes, keys::LANE);
        if std::mem::take(&mut self.dirty.globals) {
            out.rows.push(Row { key: keys::GLOBALS.to_vec(), value: Some(self.globals().encode()) });
        }
    }

    pub(crate) fn globals(&self) -> Globals {
        Globals {
            now: self.now,
            epoch: self.epoch,
            seq: self.seq,
            next_number: self.next_number,
            next_event: self.next_event,
            floor: self.node.floor,
            hold_slots: self.node.hold_slots,
            hold_gpu: self.node.hold_gpu,
            claims: self.node.claims.iter().copied().collect(),
        }
    }

    /// Every row of the state that a restore needs, in order of key.
    #[must_use]
    pub fn dump(&self) -> Vec<Row> {
        let mut rows = vec![Row { key: keys::GLOBALS.to_vec(), value: Some(self.globals().encode()) }];
        rows.extend(
            self.tasks.iter_from(0).map(|t| Row { key: keys::task(t.number()), value: Some(t.encode()) }),
        );
        let entity = |kind, id, value| Row { key: keys::entity(kind, id), value: Some(value) };
        rows.extend(self.tenants.iter().map(|(id, t)| entity(keys::TENANT, id, t.encode())));
        rows.extend(self.agents.iter().map(|(id, a)| entity(keys::AGENT, id, a.encode())));
        rows.extend(self.lanes.iter().map(|(id, l)| entity(keys::LANE, id, l.encode())));
        rows.sort();
        rows
    }

    /// The current epoch; 0 before the first `Boot`.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the last event.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        self.next_event - 1
    }

    /// Messages of attempts that do not count any more, since the start.
    #[must_use]
    pub fn stale_messages(&self) -> u64 {
        self.stale
    }

    /// When [`Command::Tick`] is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let preempt = Some(self.node.preempt_at).filter(|at| *at != 0);
        timer.into_iter().chain(preempt).chain(self.next_promise()).min()
    }

    /// The settings in use.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    // What every rule uses.

    pub(crate) fn mark_task(&mut self, number: u64) {
        let task = &mut self.tasks[number];
        if !task.has(flag::DIRTY) {
            task.set(flag::DIRTY, true);
            self.dirty.tasks.push(number);
        }
    }

    pub(crate) fn mark_tenant(&mut self, id: u32) {
        if !std::mem::replace(&mut self.tenants[id].dirty, true) {
            self.dirty.tenants.push(id);
        }
    }

    pub(crate) fn mark_lane(&mut self, id: u32) {
        if !std::mem::replace(&mut self.lanes[id].dirty, true) {
            self.dirty.lanes.push(id);
        }
    }

    pub(crate) fn mark_agent(&mut self, id: u32) {
        if !std::mem::replace(&mut self.agents[id].dirty, true) {
            self.dirty.agents.push(id);
        }
    }

    /// An event of a task; the attempt and the agent are those that it has now.
    pub(crate) fn tell(&mut self, number: u64, kind: EventKind, out: &mut Applied) {
        let seq = self.next_event;
        self.next_event += 1;
        let task = &mut self.tasks[number];
        let previous = std::mem::replace(&mut task.last_event, seq);
        let run = task.run.as_ref();
        out.events.push(Event {
            seq,
            time: self.now,
            tenant: self.tenants[task.tenant].name.clone(),
            task: TaskNumber(number),
            id: task.id.clone(),
            previous,
            attempt: run.map(|run| run.attempt),
            agent: run.map(|run| self.agents[run.agent].name.clone()),
            kind,
        });
        self.mark_task(number);
    }

    /// An event of an agent, or of the node.
    pub(crate) fn tell_agent(&mut self, agent: Option<u32>, kind: EventKind, out: &mut Applied) {
        let seq = self.next_event;
        self.next_event += 1;
        let agent = agent.map(|id| &self.agents[id]);
        out.events.push(Event {
            seq,
            time: self.now,
            tenant: agent.map_or_else(|| self.nobody.clone(), |a| self.tenants[a.tenant].name.clone()),
            task: TaskNumber(0),
            id: self.nobody.clone(),
            previous: 0,
            attempt: None,
            agent: agent.map(|a| a.name.clone()),
            kind,
        });
    }

    /// Puts the task's timer where it belongs now.
    pub(crate) fn time_task(&mut self, number: u64) {
        let task = &mut self.tasks[number];
        let next = task.next_timer();
        let old = std::mem::replace(&mut task.timer, next);
        if old != next {
            self.move_timer(Timer::Task(number), old, next);
        }
    }

    pub(crate) fn move_timer(&mut self, timer: Timer, old: u64, next: u64) {
        if old != 0 {
            self.timers.remove(&(old, timer));
        }
        if next != 0 {
            self.timers.insert((next, timer));
        }
    }
}
