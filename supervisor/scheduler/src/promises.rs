//! Deadlines that were admitted. Each has a stretch of its own, as late as it can be, in which a slot, a GPU if it needs one, a place at an
//! agent and a place of its tenant are kept for it. Nothing is started that would still run in a stretch that others need; who has a
//! promise begins by its turn, earlier when there is nothing else to do with a slot, and when its stretch begins at the latest.

use crate::booked::{Booked, Whose, signed};
use crate::profile::{Profile, Taken};
use crate::scheduler::Scheduler;
use crate::task::{Promise, Task, flag};
use crate::{Submit, Target};

/// How many promised tasks, and agents, are looked at in one go.
const LOOK_AT: usize = 16;
const OVERDUE_AT: usize = 64;

impl Scheduler {
    /// How long a promised stretch is.
    fn length(&self, task: &Task) -> u64 {
        u64::from(task.estimate_ms).saturating_add(self.config.deadline_margin_ms).max(1)
    }

    pub(crate) fn stretch(&self, task: &Task, promise: Promise) -> Taken {
        Taken { from: promise.start, to: promise.start.saturating_add(self.length(task)), amount: 1 }
    }

    pub(crate) fn promised_work(&self, task: &Task) -> u64 {
        self.length(task).saturating_mul(task.slots.into())
    }

    // Promises.

    fn promise(&mut self, number: u64, promise: Promise) {
        self.tasks[number].rare().promise = Some(promise);
        self.count_promise(number);
        self.book(number, 1);
        self.mark_task(number);
    }

    /// Counts a promise that the task has; also while everything is rebuilt.
    pub(crate) fn count_promise(&mut self, number: u64) {
        let task = &self.tasks[number];
        let Some(promise) = task.promise() else { return };
        let (work, tenant) = (self.promised_work(task), task.tenant);
        self.node.promised.insert((promise.start, number));
        self.tenants[tenant].promised_work += work;
    }

    /// While everything is rebuilt: what is taken, when all that runs is known.
    pub(crate) fn book_all(&mut self) {
        let numbers: Vec<u64> = self.node.promised.iter().map(|(_, number)| *number).collect();
        for number in numbers {
            self.book(number, 1);
        }
    }

    /// Its stretch is free for others: it begins, or is over, or cannot be kept.
    pub(crate) fn unpromise(&mut self, number: u64) {
        let task = &self.tasks[number];
        let Some(promise) = task.promise() else { return };
        let (work, tenant) = (self.promised_work(task), task.tenant);
        self.book(number, -1);
        self.node.promised.remove(&(promise.start, number));
        self.tenants[tenant].promised_work -= work;
        self.tasks[number].rare().promise = None;
        self.mark_task(number);
    }

    pub(crate) fn break_promises_at(&mut self, agent: u32) {
        let numbers = self.agents[agent].booked.as_ref().map(|booked| booked.tasks.clone());
        for number in numbers.into_iter().flatten() {
            self.unpromise(number);
        }
    }

    /// A task that was just taken in, or goes on after its attempt was lost, gets a stretch if there is one.
    pub(crate) fn promise_again(&mut self, number: u64) {
        let task = &self.tasks[number];
        if task.deadline == 0 || task.promise().is_some() || task.run.is_some() {
            return;
        }
        let agents: Vec<u32> = self.lanes[task.lane].agents.iter().take(LOOK_AT).copied().collect();
        if let Some(promise) = self.find_stretch(task, Some(task.tenant), &agents) {
            self.promise(number, promise);
        }
    }

    pub(crate) fn make_promise(&mut self, number: u64, promise: Option<Promise>) {
        if let Some(promise) = promise {
            self.promise(number, promise);
        }
    }

    /// Agents that could take the task.
    pub(crate) fn agents_for(&self, tenant: u32, submit: &Submit) -> Vec<u32> {
        let tenant = &self.tenants[tenant];
        if let Some(lane) = tenant.lanes.get(&submit.target) {
            return self.lanes[*lane].agents.iter().take(LOOK_AT).copied().collect();
        }
        match &submit.target {
            Target::Agent(name) => tenant.agents.get(name).copied().into_iter().collect(),
            Target::Selector(labels) => {
                let all = |id: &u32| {
                    labels.iter().all(|(name, value)| self.agents[*id].spec.labels.get(name) == Some(value))
                };
                tenant.agents.values().copied().filter(all).take(LOOK_AT).collect()
            }
        }
    }

    /// The latest stretch before the deadline in which all that the task needs is free, and at which agent.
    pub(crate) fn find_stretch(&self, task: &Task, tenant: Option<u32>, agents: &[u32]) -> Option<Promise> {
        self.search(task, tenant, agents, |profile, to, length, room| {
            profile.latest(self.now, to, length, room)
        })
        .max_by_key(|promise| promise.start)
    }

    /// When it could end at the earliest, by what is known now: for those who are refused.
    pub(crate) fn earliest_end(&self, task: &Task, tenant: Option<u32>, agents: &[u32]) -> u64 {
        let length = self.length(task);
        let mut from = self.now;
        // Each asks for more time in turn, until all are content.
        for _ in 0..LOOK_AT {
            let before = from;
            let mut ask = |booked: &Booked, room: i64| {
                from = booked.taken.earliest(from, length, room).unwrap_or(from);
            };
            self.with(Whose::Node, |booked| ask(booked, self.room(Whose::Node) - signed(task.slots)));
            if let Some(id) = tenant {
                self.with(Whose::Tenant(id), |booked| ask(booked, self.room(Whose::Tenant(id)) - 1));
            }
            let id = agents.iter().min_by_key(|id| {
                let room = self.room(Whose::Agent(**id)) - 1;
                self.with(Whose::Agent(**id), |booked| booked.taken.earliest(before, length, room))
            });
            if let Some(id) = id {
                let room = self.room(Whose::Agent(*id)) - 1;
                self.with(Whose::Agent(*id), |booked| ask(booked, room));
            }
            if from == before {
                break;
            }
        }
        from.saturating_add(length).saturating_sub(self.now)
    }

    fn search<'a>(
        &'a self,
        task: &'a Task,
        tenant: Option<u32>,
        agents: &'a [u32],
        latest: impl Fn(&Profile, u64, u64, i64) -> Option<u64> + Copy + 'a,
    ) -> impl Iterator<Item = Promise> + 'a {
        let length = self.length(task);
        let of_tenant = tenant.filter(|id| self.tenants[*id].quotas.max_concurrency.is_some());
        agents.iter().filter_map(move |agent| {
            let mut start = task.deadline.checked_sub(length)?;
            // Each asks for less in turn, until all are content.
            for _ in 0..4 * LOOK_AT {
                let before = start;
                let to = |start: u64| start.saturating_add(length);
                let room = self.room(Whose::Node) - signed(task.slots);
                start = self.with(Whose::Node, |b| latest(&b.taken, to(start), length, room))?;
                if task.gpu != 0 {
                    let room = signed(self.config.gpus) - i64::from(task.gpu);
                    start = self.with(Whose::Node, |b| latest(&b.gpus, to(start), length, room))?;
                }
                for whose in of_tenant.map(Whose::Tenant).into_iter().chain([Whose::Agent(*agent)]) {
                    let room = self.room(whose) - 1;
                    start = self.with(whose, |b| latest(&b.taken, to(start), length, room))?;
                }
                if start == before {
                    return Some(Promise { start, agent: *agent });
                }
            }
            None
        })
    }

    // Who may start.

    /// Whether a task can run at this agent for as long as it is thought to, from then on, without taking what is promised to others; as
    /// if some attempts did not run.
    pub(crate) fn keeps_promises(
        &self,
        task: &Task,
        agent: u32,
        from: u64,
        length: u64,
        but: &[u64],
    ) -> bool {
        if self.node.promised.is_empty() {
            return true;
        }
        let to = from.saturating_add(length.max(1));
        let own = task.promise().map(|promise| (promise.agent, self.stretch(task, promise)));
        let without = |whose: Whose, gpus: bool| -> Vec<Taken> {
            let part = |task: &Task| if gpus { i64::from(task.gpu) } else { Self::part(whose, task) };
            let runs = but.iter().filter_map(|number| {
                let task = &self.tasks[*number];
                let run = task.run.as_ref().filter(|run| run.holds)?;
                let there = match whose {
                    Whose::Node => true,
                    Whose::Tenant(id) => task.tenant == id,
                    Whose::Agent(id) => run.agent == id,
                };
                there.then(|| Taken { from: 0, to: run.charged_until, amount: part(task) })
            });
            let mine = own.filter(|(at, _)| !matches!(whose, Whose::Agent(id) if id != *at));
            runs.chain(mine.map(|(_, stretch)| Taken { amount: part(task), ..stretch })).collect()
        };
        let fits = |whose: Whose| {
            self.booked(whose).is_none_or(|booked| {
                let most = booked.taken.most_but(from, to, &without(whose, false));
                most + Self::part(whose, task) <= self.room(whose)
            })
        };
        let gpus = || {
            task.gpu == 0
                || self.booked(Whose::Node).is_none_or(|booked| {
                    let most = booked.gpus.most_but(from, to, &without(Whose::Node, true));
                    most + i64::from(task.gpu) <= signed(self.config.gpus)
                })
        };
        let limited = self.tenants[task.tenant].quotas.max_concurrency.is_some();
        fits(Whose::Node)
            && gpus()
            && fits(Whose::Agent(agent))
            && (!limited || fits(Whose::Tenant(task.tenant)))
    }

    /// What it still takes, once it has its slot.
    pub(crate) fn remaining(&self, task: &Task) -> u64 {
        let ran = task.run.as_ref().map_or(0, |run| run.ran_ms);
        self.estimate(task).saturating_sub(ran).max(1)
    }

    /// It may start now, as far as promises go.
    pub(crate) fn may_start(&self, task: &Task) -> bool {
        if self.node.promised.is_empty() || task.promise().is_some_and(|promise| promise.start <= self.now) {
            return true;
        }
        let agent = self.place_for(task);
        agent.is_some_and(|agent| self.keeps_promises(task, agent, self.now, self.remaining(task), &[]))
    }

    /// It is worth keeping slots for this one: it fits as soon as enough of what runs has ended.
    pub(crate) fn may_hold(&self, task: &Task) -> bool {
        if self.node.promised.is_empty() {
            return true;
        }
        let Some(agent) = self.place_for(task) else { return false };
        let runs = self.attempts.values().map(|number| &self.tasks[*number]);
        let mut ends: Vec<(u64, u32, u32)> = runs
            .filter_map(|task| Some((task.run.as_ref().filter(|run| run.holds)?.charged_until, task)))
            .map(|(until, task)| (until, task.slots, task.gpu.into()))
            .collect();
        ends.sort_unstable();
        let (mut slots, mut gpus) = (self.free_slots(), self.free_gpus());
        let mut from = self.now;
        for (until, more, gpu) in ends {
            if slots >= task.slots && gpus >= task.gpu.into() {
                break;
            }
            (slots, gpus, from) = (slots + more, gpus + gpu, until);
        }
        self.keeps_promises(task, agent, from, self.remaining(task), &[])
    }

    /// A promised task whose stretch has begun and that can run: it takes any slot that is free.
    pub(crate) fn due_now(&self) -> Option<u64> {
        let &(first, _) = self.node.promised.first()?;
        if first > self.now || self.free_slots() == 0 {
            return None;
        }
        let due = self.node.promised.range(..=(self.now, u64::MAX)).take(OVERDUE_AT);
        due.map(|(_, number)| *number).find(|number| self.could_start(*number))
    }

    /// The promised task that is due first, of those that can run now: when a slot cannot be given to whose turn it is.
    pub(crate) fn promised_first(&self, free: u32, free_gpu: u32) -> Option<u64> {
        let first = self.node.promised.iter().take(LOOK_AT).map(|(_, number)| *number);
        first.into_iter().find(|number| {
            let task = &self.tasks[*number];
            let fits = task.slots <= free && u32::from(task.gpu) <= free_gpu;
            fits && self.could_start(*number) && self.may_start(task)
        })
    }

    fn could_start(&self, number: u64) -> bool {
        let task = &self.tasks[number];
        task.has(flag::QUEUED)
            && self.fits(task)
            && self.tenants[task.tenant].has_room()
            && self.place_for(task).is_some()
            && self.instead(number) == number
    }

    /// Promises that cannot be kept since their tasks wait for something else than a slot no longer keep others from one.
    pub(crate) fn lapse(&mut self) {
        let Some(before) = self.now.checked_sub(self.config.deadline_margin_ms) else { return };
        let over = self.node.promised.range(..(before, 0)).take(OVERDUE_AT).map(|(_, number)| *number);
        let over: Vec<u64> = over.filter(|number| !self.waits_for_slots(*number)).collect();
        for number in over {
            self.unpromise(number);
        }
    }

    /// It has an agent that is there.
    fn waits_for_slots(&self, number: u64) -> bool {
        let task = &self.tasks[number];
        let there = || {
            let mut agents = self.lanes[task.lane].agents.iter().take(LOOK_AT).map(|id| &self.agents[*id]);
            agents.any(|agent| agent.present() && agent.limited_until == 0)
        };
        task.has(flag::QUEUED) && self.tenants[task.tenant].limited_until == 0 && there()
    }

    /// When the next stretch begins, or lapses.
    pub(crate) fn next_promise(&self) -> Option<u64> {
        let margin = self.config.deadline_margin_ms;
        let next = self.node.promised.range((self.now + 1, 0)..).next().map(|(start, _)| *start);
        let begun =
            self.node.promised.range((self.now.saturating_sub(margin), 0)..=(self.now, u64::MAX)).next();
        next.into_iter().chain(begun.map(|(start, _)| start + margin + 1)).min()
    }
}
