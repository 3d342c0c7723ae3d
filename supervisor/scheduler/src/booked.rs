//! What is taken of the node, of tenants and of agents, by what runs and by what is promised; kept only where something is promised.

use std::collections::BTreeSet;

use crate::profile::{Profile, Taken};
use crate::scheduler::Scheduler;
use crate::task::Task;

/// What is taken of the node, of a tenant or of an agent: by what runs, and by what is promised.
#[derive(Debug, Default)]
pub(crate) struct Booked {
    /// Slots of the node; attempts of a tenant or an agent.
    pub(crate) taken: Profile,
    pub(crate) gpus: Profile,
    /// Tasks with a promise.
    pub(crate) tasks: BTreeSet<u64>,
}

/// Whom a stretch is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Node,
    Tenant(u32),
    Agent(u32),
}

pub(crate) fn signed(amount: u32) -> i64 {
    i64::from(amount)
}

impl Booked {
    fn add(&mut self, stretch: Taken, amount: u32, gpu: u16) {
        self.taken.add(Taken { amount: stretch.amount * signed(amount), ..stretch });
        if gpu != 0 {
            self.gpus.add(Taken { amount: stretch.amount * signed(gpu.into()), ..stretch });
        }
    }
}

impl Scheduler {
    pub(crate) fn booked(&self, whose: Whose) -> Option<&Booked> {
        match whose {
            Whose::Node => self.node.booked.as_deref(),
            Whose::Tenant(id) => self.tenants[id].booked.as_deref(),
            Whose::Agent(id) => self.agents[id].booked.as_deref(),
        }
    }

    fn booked_mut(&mut self, whose: Whose) -> &mut Option<Box<Booked>> {
        match whose {
            Whose::Node => &mut self.node.booked,
            Whose::Tenant(id) => &mut self.tenants[id].booked,
            Whose::Agent(id) => &mut self.agents[id].booked,
        }
    }

    /// What runs there, alone.
    fn running(&self, whose: Whose) -> Booked {
        let mut booked = Booked::default();
        let mut count = |number: &u64| {
            let task = &self.tasks[*number];
            let Some(run) = task.run.as_ref().filter(|run| run.holds) else { return };
            let stretch = Taken { from: 0, to: run.charged_until, amount: 1 };
            match whose {
                Whose::Node => booked.add(stretch, task.slots, task.gpu),
                Whose::Tenant(id) if task.tenant != id => {}
                Whose::Tenant(_) | Whose::Agent(_) => booked.add(stretch, 1, 0),
            }
        };
        match whose {
            Whose::Agent(id) => self.agents[id].tasks.iter().for_each(&mut count),
            Whose::Node | Whose::Tenant(_) => self.attempts.values().for_each(&mut count),
        }
        booked
    }

    /// Room, a task's part of it, and what of it a profile must leave.
    pub(crate) fn room(&self, whose: Whose) -> i64 {
        let most = match whose {
            Whose::Node => self.config.slots,
            Whose::Tenant(id) => self.tenants[id].quotas.max_concurrency.unwrap_or(u32::MAX),
            Whose::Agent(id) => self.agents[id].places(),
        };
        signed(most)
    }

    pub(crate) fn part(whose: Whose, task: &Task) -> i64 {
        if whose == Whose::Node { signed(task.slots) } else { 1 }
    }

    /// An attempt that holds its slots comes (1) or goes (-1).
    pub(crate) fn count_run(&mut self, number: u64, sign: i64) {
        if self.node.booked.is_none() {
            return;
        }
        let task = &self.tasks[number];
        let Some(run) = &task.run else { return };
        let stretch = Taken { from: 0, to: run.charged_until, amount: sign };
        let (slots, gpu, tenant, agent) = (task.slots, task.gpu, task.tenant, run.agent);
        for (whose, amount, gpu) in
            [(Whose::Node, slots, gpu), (Whose::Tenant(tenant), 1, 0), (Whose::Agent(agent), 1, 0)]
        {
            if let Some(booked) = self.booked_mut(whose) {
                booked.add(stretch, amount, gpu);
            }
        }
    }

    pub(crate) fn book(&mut self, number: u64, sign: i64) {
        let task = &self.tasks[number];
        let Some(promise) = task.promise() else { return };
        let stretch = Taken { amount: sign, ..self.stretch(task, promise) };
        let (slots, gpu, tenant) = (task.slots, task.gpu, task.tenant);
        for (whose, amount, gpu) in
            [(Whose::Node, slots, gpu), (Whose::Tenant(tenant), 1, 0), (Whose::Agent(promise.agent), 1, 0)]
        {
            if self.booked(whose).is_none() {
                let running = self.running(whose);
                *self.booked_mut(whose) = Some(Box::new(running));
            }
            let place = self.booked_mut(whose);
            if let Some(booked) = place {
                booked.add(stretch, amount, gpu);
                if sign > 0 {
                    booked.tasks.insert(number);
                } else {
                    booked.tasks.remove(&number);
                }
                if booked.tasks.is_empty() {
                    *place = None;
                }
            }
        }
    }

    /// What is taken there, built for the occasion when nothing is promised.
    pub(crate) fn with<T>(&self, whose: Whose, ask: impl FnOnce(&Booked) -> T) -> T {
        match self.booked(whose) {
            Some(booked) => ask(booked),
            None => ask(&self.running(whose)),
        }
    }

    /// Counts everything anew and compares.
    pub(crate) fn check_promises(&self) -> Result<(), String> {
        let mut promised = BTreeSet::new();
        let mut work = std::collections::BTreeMap::<u32, u64>::new();
        for task in self.tasks.iter_from(0) {
            if let Some(promise) = task.promise() {
                promised.insert((promise.start, task.number));
                *work.entry(task.tenant).or_default() += self.promised_work(task);
                if task.run.is_some() || task.state.ended() {
                    return Err(format!("task {} runs and has a promise", task.number));
                }
            }
        }
        if promised != self.node.promised {
            return Err(format!("promised: {:?}, and should be {promised:?}", self.node.promised));
        }
        let tenants = self.tenants.iter().map(|(id, _)| Whose::Tenant(id));
        let agents = self.agents.iter().map(|(id, _)| Whose::Agent(id));
        for whose in tenants.chain(agents).chain([Whose::Node]) {
            let mut all = self.running(whose);
            for (_, number) in &promised {
                let task = &self.tasks[*number];
                let Some(promise) = task.promise() else { continue };
                let stretch = self.stretch(task, promise);
                match whose {
                    Whose::Node => all.add(stretch, task.slots, task.gpu),
                    Whose::Tenant(id) if id == task.tenant => all.add(stretch, 1, 0),
                    Whose::Agent(id) if id == promise.agent => all.add(stretch, 1, 0),
                    Whose::Tenant(_) | Whose::Agent(_) => continue,
                }
                all.tasks.insert(*number);
            }
            let same = match self.booked(whose) {
                None => all.tasks.is_empty(),
                Some(booked) => {
                    booked.tasks == all.tasks
                        && booked.taken.steps().eq(all.taken.steps())
                        && booked.gpus.steps().eq(all.gpus.steps())
                }
            };
            if !same {
                return Err(format!(
                    "what is taken of {whose:?}: {:?}, and should be {all:?}",
                    self.booked(whose)
                ));
            }
            if let Whose::Tenant(id) = whose {
                let work = work.get(&id).copied().unwrap_or(0);
                if self.tenants[id].promised_work != work {
                    return Err(format!("promised work of tenant {id}: {}", self.tenants[id].promised_work));
                }
            }
        }
        Ok(())
    }
}
