//! The state from its rows; and everything that follows from the state, built anew.

use std::collections::{BTreeMap, BTreeSet};

use aion_types::AgentName;

use crate::codec::DecodeError;
use crate::codec_rows::Globals;
use crate::entity::{Agent, Lane, Node, Tenant};
use crate::row::keys;
use crate::scheduler::{Scheduler, Timer};
use crate::task::{Task, flag};
use crate::{Class, Config, ConfigError, State};

/// Why rows are not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The settings are not valid.
    #[error("configuration")]
    Config(#[from] ConfigError),
    /// A row does not read.
    #[error("a row does not read")]
    Row(#[from] DecodeError),
    /// Rows contradict each other.
    #[error("{what} {id} refers to something that is not there")]
    Dangling {
        /// The kind of row.
        what: &'static str,
        /// Its id.
        id: u64,
    },
}

/// Takes in rows one by one, in any order.
#[derive(Debug)]
pub struct Restore {
    scheduler: Scheduler,
    tasks: Vec<Task>,
}

impl Restore {
    /// Begins with nothing.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { scheduler: Scheduler::new(config)?, tasks: Vec::new() })
    }

    /// One row. Those of ended tasks, and kinds of others, are passed over.
    ///
    /// # Errors
    /// The row does not read.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
        let Some((&kind, rest)) = key.split_first() else { return Ok(()) };
        let id = || {
            let id = <[u8; 4]>::try_from(rest);
            id.map(u32::from_be_bytes).map_err(|_| DecodeError { what: "key", reason: "not an id" })
        };
        let s = &mut self.scheduler;
        match kind {
            b'G' => {
                let globals = Globals::decode(value)?;
                s.now = globals.now;
                s.epoch = globals.epoch;
                s.seq = globals.seq;
                s.next_number = globals.next_number;
                s.next_event = globals.next_event;
                s.node.floor = globals.floor;
                s.node.hold_slots = globals.hold_slots;
                s.node.hold_gpu = globals.hold_gpu;
                s.node.claims = globals.claims.into();
            }
            keys::TASK => self.tasks.push(Task::decode(value)?),
            keys::TENANT => s.tenants.put(id()?, Tenant::decode(value)?),
            keys::AGENT => s.agents.put(id()?, Agent::decode(value)?),
            keys::LANE => s.lanes.put(id()?, Lane::decode(value)?),
            _ => {}
        }
        Ok(())
    }

    /// All rows were given.
    ///
    /// # Errors
    /// Rows contradict each other.
    pub fn finish(mut self) -> Result<Scheduler, RestoreError> {
        self.tasks.sort_unstable_by_key(|task| task.number);
        let s = &mut self.scheduler;
        s.tasks.reserve(self.tasks.len());
        for (id, lane) in s.lanes.iter() {
            if s.tenants.get(lane.tenant).is_none() {
                return Err(RestoreError::Dangling { what: "lane", id: id.into() });
            }
        }
        for (id, agent) in s.agents.iter() {
            if s.tenants.get(agent.tenant).is_none() {
                return Err(RestoreError::Dangling { what: "agent", id: id.into() });
            }
        }
        for task in self.tasks {
            let dangling = || RestoreError::Dangling { what: "task", id: task.number };
            let lane = s.lanes.get(task.lane).ok_or_else(dangling)?;
            let mut places = task.run.iter().map(|run| run.agent).chain(task.promise().map(|p| p.agent));
            let agent_missing = places.any(|agent| s.agents.get(agent).is_none());
            if lane.tenant != task.tenant
                || agent_missing
                || s.tasks.get(task.number).is_some()
                || task.slots == 0
            {
                return Err(dangling());
            }
            s.tasks.insert(task);
        }
        let holds = [s.node.hold_slots, s.node.hold_gpu].into_iter().filter(|number| *number != 0);
        for number in s.node.claims.iter().copied().chain(holds) {
            if s.tasks.get(number).is_none() {
                return Err(RestoreError::Dangling { what: "claim", id: number });
            }
        }
        s.rebuild();
        Ok(self.scheduler)
    }
}

impl Scheduler {
    /// The state that rows describe, in any order; rows of ended tasks are passed over. `Boot` must follow when the daemon has
    /// started anew; after a write that failed, the same epoch goes on.
    ///
    /// # Errors
    /// A row does not read, or rows contradict each other.
    pub fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        config: Config,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, RestoreError> {
        let mut restore = Restore::new(config)?;
        for (key, value) in rows {
            restore.row(key.as_ref(), value.as_ref())?;
        }
        restore.finish()
    }

    /// Everything that is derived, from everything that is stored.
    pub(crate) fn rebuild(&mut self) {
        self.rebuilding = true;
        self.names = self.tenants.iter().map(|(id, tenant)| (tenant.name.clone(), id)).collect();
        self.attempts.clear();
        self.timers.clear();
        self.node = Node {
            floor: self.node.floor,
            claims: std::mem::take(&mut self.node.claims),
            hold_slots: self.node.hold_slots,
            hold_gpu: self.node.hold_gpu,
            ..Node::default()
        };
        for id in self.tenants.ids() {
            let old = &self.tenants[id];
            let mut tenant = Tenant::new(&old.name);
            (tenant.v, tenant.floor, tenant.rates) = (old.v, old.floor, old.rates.clone());
            (tenant.last_end, tenant.end_pause_us) = (old.last_end, old.end_pause_us);
            (tenant.name, tenant.dirty) = (old.name.clone(), old.dirty);
            tenant.configure(&self.config);
            self.tenants[id] = tenant;
        }
        for id in self.agents.ids() {
            let tenant = self.tenants[self.agents[id].tenant].name.clone();
            let agent = &mut self.agents[id];
            agent.configure(&self.config, &tenant);
            agent.lanes = BTreeSet::new();
            agent.tasks = BTreeSet::new();
            (agent.busy, agent.frozen, agent.cold, agent.stopping) = (0, 0, 0, 0);
            agent.booked = None;
            (agent.limited_until, agent.timer) = (0, 0);
            agent.available = None;
            if let Ok(name) = AgentName::parse(&agent.name) {
                let tenant = agent.tenant;
                self.tenants[tenant].agents.insert(name, id);
            }
        }
        for id in self.lanes.ids() {
            let old = &self.lanes[id];
            let mut lane = Lane::new(old.tenant, old.target.clone());
            (lane.v, lane.class_v, lane.floor, lane.dirty) = (old.v, old.class_v, old.floor, old.dirty);
            self.tenants[lane.tenant].lanes.insert(lane.target.clone(), id);
            self.lanes[id] = lane;
        }
        for id in self.lanes.ids() {
            let tenant = self.lanes[id].tenant;
            if let crate::Target::Agent(name) = &self.lanes[id].target {
                if let Some(agent) = self.tenants[tenant].agents.get(name).copied() {
                    self.join(id, agent);
                }
                continue;
            }
            let agents: Vec<u32> = self.tenants[tenant].agents.values().copied().collect();
            for agent in agents {
                self.join(id, agent);
            }
        }
        self.rebuild_tasks();
        for id in self.agents.ids() {
            self.refresh_agent(id);
        }
        for id in self.lanes.ids() {
            self.refresh_lane(id);
        }
        for id in self.tenants.ids() {
            self.refresh_tenant(id);
        }
        let mut again = u64::MAX;
        self.plan(&mut again);
        self.node.preempt_at = if again == u64::MAX { 0 } else { again };
        self.rebuilding = false;
    }

    /// Tasks into their queues, at once for each queue.
    fn rebuild_tasks(&mut self) {
        let numbers: Vec<u64> = self.tasks.iter_from(0).map(|task| task.number).collect();
        let mut queues: BTreeMap<u32, [Vec<(u64, u64)>; 3]> = BTreeMap::new();
        let patience = self.config.patience_ms;
        let holds = [self.node.hold_slots, self.node.hold_gpu];
        let claims: BTreeSet<u64> = self.node.claims.iter().copied().chain(holds).collect();
        for number in numbers {
            let task = &mut self.tasks[number];
            task.timer = task.next_timer();
            task.set(flag::CLAIMS, claims.contains(&number));
            // It is in a queue unless something that the row tells keeps it out.
            let queued = match task.state {
                State::Queued => task.run.is_none(),
                State::Frozen => true,
                _ => false,
            };
            task.set(flag::QUEUED, queued);
            let (timer, state, owner, lane_id, class) =
                (task.timer, task.state, task.tenant, task.lane, task.class);
            let (due, promised) = (task.due(patience), task.promise().is_some());
            let kept: u64 =
                task.rare.as_ref().map_or(0, |rare| rare.kept.iter().map(|(_, bytes)| bytes).sum());
            let run = task.run.as_ref().map(|run| (run.attempt, run.agent, run.stage, run.holds));
            if timer != 0 {
                self.timers.insert((timer, Timer::Task(number)));
            }
            let lane = &mut self.lanes[lane_id];
            lane.tasks += 1;
            lane.checkpoint_bytes += kept;
            let tenant = &mut self.tenants[owner];
            tenant.checkpoint_bytes += kept;
            if !state.ended() {
                tenant.live += 1;
                if tenant.live == 1 {
                    self.node.active_weight += u64::from(tenant.weight);
                }
            }
            if queued {
                tenant.queued += 1;
                queues.entry(lane_id).or_default()[class.index()].push((due, number));
            }
            if let Some((attempt, agent_id, stage, holds)) = run {
                self.attempts.insert(attempt, number);
                self.agents[agent_id].tasks.insert(number);
                self.restage(agent_id, None, Some(stage));
                if holds {
                    self.occupy(number);
                }
            }
            if promised {
                self.count_promise(number);
            }
        }
        self.book_all();
        for (lane, classes) in queues {
            for (class, mut queue) in Class::ALL.into_iter().zip(classes) {
                queue.sort_unstable();
                self.lanes[lane].queues[class.index()] = queue.into_iter().collect();
            }
        }
    }
}
