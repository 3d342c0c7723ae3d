//! Slots, GPUs and places at agents, taken and given back; and the slot-time that is charged for them.
//!
//! Charged is what the task is thought to take, when it starts; twice as much when it takes longer, and so on; what it really took is set
//! right at its end. So nobody runs for free, and a wrong estimate is forgotten.

use crate::scheduler::Scheduler;
use crate::task::{Run, Stage, Task};
use crate::{AgentMode, Class};

impl Scheduler {
    /// The run takes its slots from now on.
    pub(crate) fn take(&mut self, number: u64) {
        let now = self.now;
        let task = &self.tasks[number];
        let estimate = self.estimate(task);
        let known = task.run.as_ref().map_or(0, |run| run.ran_ms);
        let length = estimate.saturating_sub(known).max(1);
        let task = &mut self.tasks[number];
        let (class, slots) = (task.class, task.slots);
        if let Some(run) = &mut task.run {
            run.holds = true;
            run.since = now;
            run.base = now;
            run.charged_until = now + length;
        }
        self.occupy(number);
        let (lane, tenant) = (self.tasks[number].lane, self.tasks[number].tenant);
        // The floors follow who is served.
        self.node.floor = self.node.floor.max(self.tenants[tenant].v);
        self.tenants[tenant].floor = self.tenants[tenant].floor.max(self.lanes[lane].v);
        self.lanes[lane].floor = self.lanes[lane].floor.max(self.lanes[lane].class_v[class.index()]);
        debug_assert!(slots > 0);
        self.charge(number, i64::try_from(length).unwrap_or(i64::MAX));
        self.after_change(number);
    }

    /// Counts a run that holds its slots; also while everything is rebuilt.
    pub(crate) fn occupy(&mut self, number: u64) {
        let task = &self.tasks[number];
        let Some(run) = &task.run else { return };
        self.node.used += task.slots;
        self.node.used_gpu += u32::from(task.gpu);
        self.node.class_slots[task.class.index()] += task.slots;
        self.node.class_running[task.class.index()] += 1;
        let tenant = &mut self.tenants[task.tenant];
        tenant.running += 1;
        tenant.slots += task.slots;
        self.agents[run.agent].busy += 1;
        if let Some(key) = self.victim_key(task) {
            self.node.victims.insert(key);
        }
        self.count_run(number, 1);
    }

    /// The run gives its slots back; what it ran is charged, but for what is lost.
    pub(crate) fn give_back(&mut self, number: u64, lost_ms: u64) {
        self.unlist(number);
        self.count_run(number, -1);
        let now = self.now;
        let task = &mut self.tasks[number];
        let (slots, gpu, class, tenant) = (task.slots, task.gpu, task.class, task.tenant);
        let Some(run) = &mut task.run else { return };
        run.holds = false;
        let ran = now.saturating_sub(run.since);
        let charged = run.charged_until.saturating_sub(run.since);
        let (agent, before) = (run.agent, run.ran_ms);
        run.ran_ms += ran;
        self.node.used -= slots;
        self.node.used_gpu -= u32::from(gpu);
        self.node.class_slots[class.index()] -= slots;
        self.node.class_running[class.index()] -= 1;
        self.tenants[tenant].running -= 1;
        self.tenants[tenant].slots -= slots;
        self.agents[agent].busy -= 1;
        let due = signed(ran) - signed(lost_ms.min(ran + before)) - signed(charged);
        self.charge(number, due);
        if gpu != 0 {
            self.unpark_all();
        }
        self.after_change(number);
    }

    /// It runs longer than was charged: as much again.
    pub(crate) fn charge_more(&mut self, number: u64) {
        let Some(run) = &self.tasks[number].run else { return };
        let mut until = run.charged_until;
        while until <= self.now {
            until += (until - run.since).max(1);
        }
        self.charge_until(number, until);
    }

    /// It is thought to hold its slots until then, at least.
    pub(crate) fn charge_until(&mut self, number: u64, until: u64) {
        let more = match &self.tasks[number].run {
            Some(run) if run.holds && run.charged_until < until => until - run.charged_until,
            _ => return,
        };
        self.count_run(number, -1);
        if let Some(run) = &mut self.tasks[number].run {
            run.charged_until = until;
        }
        self.count_run(number, 1);
        self.charge(number, signed(more));
        self.mark_task(number);
        self.time_task(number);
    }

    fn after_change(&mut self, number: u64) {
        let task = &self.tasks[number];
        let tenant = task.tenant;
        if let Some(agent) = task.run.as_ref().map(|run| run.agent) {
            self.refresh_agent(agent);
        }
        self.refresh_tenant(tenant);
        self.mark_task(number);
        self.time_task(number);
    }

    /// Takes the run off its task, with everything that it holds.
    pub(crate) fn release(&mut self, number: u64, lost_ms: u64) -> Option<Box<Run>> {
        if self.tasks[number].holds() {
            self.give_back(number, lost_ms);
        }
        let run = self.tasks[number].run.take()?;
        self.attempts.remove(&run.attempt);
        let gpu_free = self.tasks[number].gpu != 0;
        let agent = &mut self.agents[run.agent];
        agent.tasks.remove(&number);
        self.restage(run.agent, Some(run.stage), None);
        if gpu_free {
            self.unpark_all();
        }
        self.refresh_agent(run.agent);
        self.mark_task(number);
        self.time_task(number);
        Some(run)
    }

    /// An attempt came to another stage; none: there is none before, or after.
    pub(crate) fn restage(&mut self, agent: u32, old: Option<Stage>, new: Option<Stage>) {
        let agent = &mut self.agents[agent];
        let count = |stage: Option<Stage>, kind: fn(Stage) -> bool| u32::from(stage.is_some_and(kind));
        let frozen = |stage| stage == Stage::Frozen;
        agent.frozen = agent.frozen + count(new, frozen) - count(old, frozen);
        agent.stopping = agent.stopping + count(new, Stage::stopping) - count(old, Stage::stopping);
        let (gone, come) = (count(old, Stage::cold), count(new, Stage::cold));
        agent.cold = agent.cold + come - gone;
        let bytes = agent.spec.memory_bytes;
        self.node.frozen_bytes = self.node.frozen_bytes + u64::from(come) * bytes - u64::from(gone) * bytes;
    }

    /// Where an attempt stands among those that may make room; none: it may not.
    pub(crate) fn victim_key(&self, task: &Task) -> Option<(u8, u64, u64)> {
        let run = task.run.as_ref()?;
        let may = run.stage == Stage::Running
            && run.holds
            && !run.unconfirmed
            && task.class != Class::High
            && task.deadline == 0
            && !task.state.ended()
            && u32::from(task.preemptions) < self.config.preemption.max_per_task;
        let kept = run.base.saturating_sub(run.unsaved_ms);
        may.then(|| (u8::from(task.class == Class::Normal), u64::MAX - kept, task.number))
    }

    pub(crate) fn unlist(&mut self, number: u64) {
        if let Some(key) = self.victim_key(&self.tasks[number]) {
            self.node.victims.remove(&key);
        }
    }

    pub(crate) fn list(&mut self, number: u64) {
        if let Some(key) = self.victim_key(&self.tasks[number]) {
            self.node.victims.insert(key);
        }
    }

    /// The attempt may be frozen in place, to make room for this task.
    pub(crate) fn may_freeze(&self, task: &Task, run: &Run) -> bool {
        let agent = &self.agents[run.agent];
        let spec = &agent.spec;
        let alone = match spec.mode {
            AgentMode::Job => true,
            // A service is frozen as a whole, and cannot serve the one that needs the room.
            AgentMode::Service => {
                spec.concurrency == 1
                    && agent.tasks.len() == 1
                    && self
                        .tasks
                        .get(run.room_for)
                        .is_none_or(|other| !self.lanes[other.lane].agents.contains(&run.agent))
            }
        };
        let frozen = self.node.frozen_bytes.saturating_add(spec.memory_bytes);
        spec.may_freeze && alone && task.gpu == 0 && frozen <= self.config.preemption.frozen_memory_max
    }
}

pub(crate) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
