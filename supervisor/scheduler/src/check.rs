//! Whether everything that is derived follows from what is stored: for tests, and for `aionctl journal check`.

use std::collections::BTreeSet;

use crate::Class;
use crate::scheduler::Scheduler;
use crate::task::{Stage, flag};

macro_rules! same {
    ($what:expr, $found:expr, $expected:expr) => {
        if $found != $expected {
            return Err(format!("{}: {:?}, and should be {:?}", $what, $found, $expected));
        }
    };
}

impl Scheduler {
    /// Counts everything anew and compares. Walks over all tasks: not for the path of a command.
    ///
    /// # Errors
    /// What does not agree.
    pub fn check(&self) -> Result<(), String> {
        let (mut used, mut used_gpu, mut running) = (0, 0, 0);
        let mut victims = BTreeSet::new();
        for task in self.tasks.iter_from(0) {
            let n = task.number;
            let lane = &self.lanes[task.lane];
            let due = task.due(self.config.patience_ms);
            let queued = lane.queues[task.class.index()].contains(&(due, n));
            same!(format!("task {n} in its queue"), queued, task.has(flag::QUEUED));
            same!(format!("task {n}'s timer"), task.timer, task.next_timer());
            if task.timer != 0 && !self.timers.contains(&(task.timer, crate::scheduler::Timer::Task(n))) {
                return Err(format!("task {n}'s timer is not set"));
            }
            match &task.run {
                Some(run) => {
                    same!(format!("attempt {}", run.attempt), self.attempts.get(&run.attempt), Some(&n));
                    same!(format!("agent's task {n}"), self.agents[run.agent].tasks.contains(&n), true);
                    let rests = run.stage == Stage::Frozen || !run.holds;
                    same!(format!("task {n} holds slots"), !rests, run.holds);
                    running += 1;
                    if run.holds {
                        used += task.slots;
                        used_gpu += u32::from(task.gpu);
                    }
                }
                None if task.state.ended() => return Err(format!("task {n} has ended and is in memory")),
                None => {}
            }
            victims.extend(self.victim_key(task));
            let claims =
                self.node.claims.contains(&n) || self.node.hold_slots == n || self.node.hold_gpu == n;
            same!(format!("task {n} claims"), task.has(flag::CLAIMS), claims);
        }
        same!("slots in use", self.node.used, used);
        same!("GPUs in use", self.node.used_gpu, used_gpu);
        same!("attempts", self.attempts.len(), running);
        same!("victims", self.node.victims, victims);
        self.check_promises()?;
        self.check_sets()
    }

    fn check_sets(&self) -> Result<(), String> {
        let mut frozen = 0;
        for (id, agent) in self.agents.iter() {
            let runs = || agent.tasks.iter().filter_map(|n| self.tasks[*n].run.as_ref());
            same!(format!("agent {id} busy"), agent.busy as usize, runs().filter(|run| run.holds).count());
            let asleep = runs().filter(|run| run.stage == Stage::Frozen).count();
            same!(format!("agent {id} frozen"), agent.frozen as usize, asleep);
            let stopping = runs().filter(|run| run.stage.stopping()).count();
            same!(format!("agent {id} stopping"), agent.stopping as usize, stopping);
            same!(format!("agent {id} available"), agent.available, agent.has_room().then_some(agent.busy));
            let cold = runs().filter(|run| run.stage.cold()).count();
            same!(format!("agent {id} cold"), agent.cold as usize, cold);
            frozen += u64::from(agent.cold) * agent.spec.memory_bytes;
        }
        same!("frozen bytes", self.node.frozen_bytes, frozen);
        for (id, lane) in self.lanes.iter() {
            let available: BTreeSet<_> =
                lane.agents.iter().filter_map(|a| Some((self.agents[*a].available?, *a))).collect();
            same!(format!("lane {id} available"), lane.available, available);
            let ready = lane.queued() && !lane.available.is_empty() && !lane.parked;
            same!(format!("lane {id} ready"), lane.is_ready, ready);
            let tenant = &self.tenants[lane.tenant];
            same!(format!("lane {id} in the set"), tenant.ready.contains(&(lane.v, id)), ready);
            let high = !lane.queues[Class::High.index()].is_empty();
            same!(format!("lane {id} high"), tenant.high.contains(&id), high);
        }
        for (id, tenant) in self.tenants.iter() {
            let ready = !tenant.ready.is_empty() && tenant.has_room();
            same!(format!("tenant {id} ready"), tenant.is_ready, ready);
            same!(format!("tenant {id} in the set"), self.node.ready.contains(&(tenant.v, id)), ready);
            let high = self.node.high.contains(&(tenant.v, id));
            same!(format!("tenant {id} high"), high, !tenant.high.is_empty());
            let tasks = || self.tasks.iter_from(0).filter(|task| task.tenant == id);
            let live = tasks().filter(|task| !task.state.ended()).count() as u64;
            same!(format!("tenant {id} live"), tenant.live, live);
            same!(
                format!("tenant {id} running"),
                tenant.running as usize,
                tasks().filter(|t| t.holds()).count()
            );
            let bytes: u64 = tasks()
                .filter_map(|t| t.rare.as_ref())
                .flat_map(|r| r.kept.iter())
                .map(|(_, bytes)| bytes)
                .sum();
            same!(format!("tenant {id} checkpoint bytes"), tenant.checkpoint_bytes, bytes);
        }
        let active: u64 =
            self.tenants.iter().filter(|(_, t)| t.live > 0).map(|(_, t)| u64::from(t.weight)).sum();
        same!("active weight", self.node.active_weight, active);
        Ok(())
    }
}
