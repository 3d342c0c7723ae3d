//! Who runs next. See "Order" in docs/scheduler.md.

use crate::entity::Lane;
use crate::scheduler::{Applied, Scheduler};
use crate::task::{Run, Stage, Task, flag};
use crate::{AgentMode, Attempt, Class, Effect, EventKind, State};

/// How many tasks are looked at that would take what is promised to others.
const MOST_REFUSED: u32 = 16;

/// What is to be done with the next free slot.
#[derive(Debug, PartialEq, Eq)]
enum Pick {
    Start(u64),
    /// It is this one's turn, and too few slots or GPUs are free: they are kept until it fits.
    HoldSlots(u64),
    HoldGpu(u64),
    Nothing,
}

impl Scheduler {
    /// Starts what can be started, then makes room for what may have it.
    pub(crate) fn schedule(&mut self, out: &mut Applied) {
        self.lapse();
        let mut holding = true;
        loop {
            if let Some(number) = self.due_now() {
                self.start(number, out);
                continue;
            }
            if self.start_claimed(&mut holding, out) {
                continue;
            }
            let mut parked = Vec::new();
            let pick = self.pick(holding, &mut parked);
            for lane in parked {
                self.park(lane);
            }
            match pick {
                Pick::Start(number) => self.start(number, out),
                Pick::HoldSlots(number) => {
                    self.node.hold_slots = number;
                    self.tasks[number].set(flag::CLAIMS, true);
                }
                Pick::HoldGpu(number) => {
                    self.node.hold_gpu = number;
                    self.tasks[number].set(flag::CLAIMS, true);
                }
                Pick::Nothing => {
                    if !self.make_room(out) {
                        return;
                    }
                }
            }
        }
    }

    fn park(&mut self, lane: u32) {
        if !std::mem::replace(&mut self.lanes[lane].parked, true) {
            self.node.parked.insert(lane);
            self.refresh_lane(lane);
        }
    }

    pub(crate) fn free_slots(&self) -> u32 {
        self.config.slots.saturating_sub(self.node.used)
    }

    pub(crate) fn free_gpus(&self) -> u32 {
        self.config.gpus.saturating_sub(self.node.used_gpu)
    }

    /// Slots and GPUs that are kept for tasks that wait for room.
    pub(crate) fn kept(&self) -> (u32, u32) {
        let holds = [self.node.hold_slots, self.node.hold_gpu];
        let numbers = self.node.claims.iter().copied().chain(holds.into_iter().filter(|number| *number != 0));
        let mut kept = (0u32, 0u32);
        for number in numbers {
            let task = &self.tasks[number];
            // One that waits for a place at its agent gets the slot together with the place.
            if !self.lanes[task.lane].available.is_empty() {
                kept.0 = kept.0.saturating_add(task.slots);
                kept.1 = kept.1.saturating_add(task.gpu.into());
            }
        }
        kept
    }

    pub(crate) fn fits(&self, task: &Task) -> bool {
        task.slots <= self.free_slots() && u32::from(task.gpu) <= self.free_gpus()
    }

    /// Starts the first task that room was made for and that fits now. Claims of tasks that could not start anyway, or would take what is
    /// promised to others, are dropped.
    fn start_claimed(&mut self, holding: &mut bool, out: &mut Applied) -> bool {
        if self.node.claims.is_empty() && self.node.hold_slots == 0 && self.node.hold_gpu == 0 {
            return false;
        }
        let holds = [self.node.hold_slots, self.node.hold_gpu].into_iter().filter(|number| *number != 0);
        let numbers: Vec<u64> = self.node.claims.iter().copied().chain(holds).collect();
        for number in numbers {
            let task = &self.tasks[number];
            let lane = &self.lanes[task.lane];
            let stuck = !self.tenants[task.tenant].has_room()
                || (lane.available.is_empty() && !self.room_is_coming(number, lane))
                || !self.possible(task);
            if stuck {
                self.drop_claim(number);
                return true;
            }
            if lane.available.is_empty() || !self.fits(task) || self.place_for(task).is_none() {
                continue;
            }
            // The room was made; who is frozen at the only agent goes on in it first.
            let first = self.instead(number);
            if !self.fits(&self.tasks[first]) {
                continue;
            }
            if self.may_start(&self.tasks[first]) {
                self.start(first, out);
            } else {
                self.drop_claim(number);
                *holding = false;
            }
            return true;
        }
        false
    }

    /// An attempt at one of the lane's agents is making room for this task.
    fn room_is_coming(&self, number: u64, lane: &Lane) -> bool {
        lane.agents.iter().take(16).any(|agent| {
            let tasks = self.agents[*agent].tasks.iter();
            tasks.filter_map(|n| self.tasks[*n].run.as_ref()).any(|run| run.room_for == number)
        })
    }

    /// The agent that would take it; a frozen one goes on only where it was.
    pub(crate) fn place_for(&self, task: &Task) -> Option<u32> {
        match &task.run {
            Some(run) => {
                let agent = &self.agents[run.agent];
                (run.stage == Stage::Frozen && agent.has_room()).then_some(run.agent)
            }
            None => {
                let lane = &self.lanes[task.lane];
                // Where it was promised a place, when there is one.
                let promised = task.promise().map(|promise| promise.agent);
                let there = |id: &u32| self.agents[*id].available.is_some() && lane.agents.contains(id);
                promised.filter(there).or_else(|| lane.available.first().map(|(_, agent)| *agent))
            }
        }
    }

    /// A service agent that is frozen takes nothing else before it has gone on with what it was frozen in.
    pub(crate) fn instead(&self, number: u64) -> u64 {
        let Some(id) = self.place_for(&self.tasks[number]) else { return number };
        let agent = &self.agents[id];
        if agent.spec.mode == AgentMode::Job || agent.frozen == 0 {
            return number;
        }
        let frozen = |n: &&u64| self.tasks[**n].run.as_ref().is_some_and(|run| run.stage == Stage::Frozen);
        agent.tasks.iter().find(frozen).copied().unwrap_or(number)
    }

    /// The first of a queue that could run at all: nothing is kept for it yet, and the node has what it needs.
    pub(crate) fn head(&self, lane: &Lane, class: Class) -> Option<&Task> {
        lane.queues[class.index()]
            .iter()
            .map(|(_, number)| &self.tasks[*number])
            .find(|task| !task.has(flag::CLAIMS) && self.possible(task) && self.place_for(task).is_some())
    }

    /// The node has what it needs, were it empty; it may have become smaller since the task came.
    pub(crate) fn possible(&self, task: &Task) -> bool {
        task.slots <= self.config.slots && u32::from(task.gpu) <= self.config.gpus
    }

    fn pick(&self, holding: bool, parked: &mut Vec<u32>) -> Pick {
        let (kept, kept_gpu) = self.kept();
        let free = self.free_slots().saturating_sub(kept);
        let free_gpu = self.free_gpus().saturating_sub(kept_gpu);
        if free == 0 {
            return Pick::Nothing;
        }
        let mut refused = 0;
        for &(_, tenant) in &self.node.ready {
            for &(_, id) in &self.tenants[tenant].ready {
                let lane = &self.lanes[id];
                let mut order = Class::ALL.map(|class| (lane.class_v[class.index()], class));
                order.sort_unstable();
                let (mut lacks_gpu, before) = (false, refused);
                for (_, class) in order {
                    let Some(task) = self.head(lane, class) else { continue };
                    let task = &self.tasks[self.instead(task.number)];
                    if !self.possible(task) {
                        continue;
                    }
                    let slots_lack = task.slots > free;
                    let gpus_lack = !slots_lack && u32::from(task.gpu) > free_gpu;
                    if slots_lack || gpus_lack {
                        let held = if slots_lack { self.node.hold_slots } else { self.node.hold_gpu };
                        if held == 0 && holding && self.may_hold(task) {
                            let hold = if slots_lack { Pick::HoldSlots } else { Pick::HoldGpu };
                            return hold(task.number);
                        }
                        lacks_gpu |= gpus_lack && held != 0;
                        continue;
                    }
                    if self.may_start(task) {
                        return Pick::Start(task.number);
                    }
                    // It would take what is promised to others, so one of them goes first, or one that is done sooner.
                    if refused == 0
                        && let Some(number) = self.promised_first(free, free_gpu)
                    {
                        return Pick::Start(number);
                    }
                    refused += 1;
                    if refused == MOST_REFUSED {
                        return Pick::Nothing;
                    }
                }
                if lacks_gpu && refused == before {
                    parked.push(id);
                }
            }
        }
        Pick::Nothing
    }

    /// Assigns the task, or lets it go on where it was frozen.
    fn start(&mut self, number: u64, out: &mut Applied) {
        let Some(agent) = self.place_for(&self.tasks[number]) else { return };
        self.dequeue(number);
        self.unpromise(number);
        if self.tasks[number].run.is_some() {
            self.thaw(number, agent, out);
        } else {
            self.assign(number, agent, out);
        }
    }

    fn thaw(&mut self, number: u64, agent: u32, out: &mut Applied) {
        let task = &mut self.tasks[number];
        task.state = State::Running;
        if let Some(run) = &mut task.run {
            run.stage = Stage::Running;
            run.room_for = 0;
            run.until = 0;
        }
        self.restage(agent, Some(Stage::Frozen), Some(Stage::Running));
        self.take(number);
        self.tell(number, EventKind::Thawed, out);
        let thawed = &mut self.agents[agent];
        if thawed.spec.mode == AgentMode::Service && thawed.attached.is_none() {
            thawed.back_until = self.now + self.config.reattach_ms;
            self.mark_agent(agent);
            self.time_agent(agent);
        }
        if let Some((attempt, tenant, agent)) = self.whose(number) {
            out.effects.push(Effect::Thaw { attempt, tenant, agent });
        }
    }

    fn assign(&mut self, number: u64, id: u32, out: &mut Applied) {
        self.seq += 1;
        let attempt = Attempt { epoch: self.epoch, seq: self.seq };
        let now = self.now;
        let agent = &mut self.agents[id];
        agent.tasks.insert(number);
        agent.rates.begun(&agent.quotas, now);
        let interval = agent.spec.checkpoint_interval_ms;
        let (name, mode) = (agent.name.clone(), agent.spec.mode);
        let task = &mut self.tasks[number];
        let rare = task.rare();
        rare.attempts += 1;
        rare.agent = Some(name.clone());
        let (count, resume) = (rare.attempts, rare.kept.last().copied());
        task.state = State::Running;
        task.run = Some(Box::new(Run {
            attempt,
            agent: id,
            stage: Stage::Running,
            since: now,
            charged_until: now,
            ran_ms: 0,
            base: now,
            unsaved_ms: 0,
            until: 0,
            checkpoint_at: if interval == 0 { 0 } else { now + interval },
            told_at: 0,
            room_for: 0,
            holds: false,
            unconfirmed: false,
            late: false,
        }));
        let tenant = task.tenant;
        self.attempts.insert(attempt, number);
        let owner = &mut self.tenants[tenant];
        owner.rates.begun(&owner.quotas, now);
        self.mark_agent(id);
        self.mark_tenant(tenant);
        self.take(number);
        self.tell(number, EventKind::Dispatched { number: count, resume: resume.map(|(n, _)| n) }, out);
        let task = &self.tasks[number];
        out.effects.push(Effect::Assign {
            attempt,
            task: task.number(),
            tenant: self.tenants[tenant].name.clone(),
            id: task.id.clone(),
            agent: name,
            mode,
            number: count,
            resume,
            since: task.submitted.max(task.ready_at).min(now),
            deadline: Some(task.deadline).filter(|at| *at != 0),
            timeout_ms: Some(u64::from(task.timeout_ms)).filter(|ms| *ms != 0),
        });
    }

    /// The token, the tenant and the agent of a task's attempt, for effects.
    pub(crate) fn whose(&self, number: u64) -> Option<(Attempt, crate::Name, crate::Name)> {
        let task = &self.tasks[number];
        let run = task.run.as_ref()?;
        Some((run.attempt, self.tenants[task.tenant].name.clone(), self.agents[run.agent].name.clone()))
    }
}
