//! Making room for high tasks: whom to ask, and what follows when it does not answer.

use crate::entity::Lane;
use crate::scheduler::{Applied, Scheduler};
use crate::task::{Failure, Stage, Task, backoff};
use crate::{Class, Effect, EventKind, Rung, State};

/// How many tenants, and lanes of each, are looked at in one go. The first is the one that is most entitled to room.
const LOOK_AT: usize = 8;
/// How often in a row an attempt may give up unasked, with neither progress nor a checkpoint between.
const MOST_YIELDS: u32 = 16;
/// The shortest pause after that.
const YIELD_PAUSE_MS: u64 = 1000;

impl Scheduler {
    /// Asks attempts to make room for one high task; false: there is none that may have it. Notes when it is worth another look.
    pub(crate) fn make_room(&mut self, out: &mut Applied) -> bool {
        let mut again = u64::MAX;
        let plan = self.plan(&mut again);
        self.node.preempt_at = if again == u64::MAX { 0 } else { again };
        let Some((number, victims)) = plan else { return false };
        self.tasks[number].set(crate::task::flag::CLAIMS, true);
        self.node.claims.push_back(number);
        for victim in victims {
            self.ask(victim, number, out);
        }
        true
    }

    /// The high task that gets room, and who makes it. Changes nothing.
    pub(crate) fn plan(&self, again: &mut u64) -> Option<(u64, Vec<u64>)> {
        if self.node.victims.is_empty() || self.node.high.is_empty() {
            return None;
        }
        let claimed: u32 = self.node.claims.iter().map(|number| self.tasks[*number].slots).sum();
        let used = self.node.class_slots[Class::High.index()].saturating_add(claimed);
        let room = self.config.high_cap().saturating_sub(used);
        if room == 0 {
            return None;
        }
        for &(v, tenant) in self.node.high.iter().take(LOOK_AT) {
            if !self.tenants[tenant].has_room() {
                continue;
            }
            for &id in self.tenants[tenant].high.iter().take(LOOK_AT) {
                let lane = &self.lanes[id];
                let Some(task) = self.next_high(lane) else { continue };
                if task.slots > room {
                    continue;
                }
                let victims = if lane.available.is_empty() {
                    self.victims_at_agents(task, lane, again)
                } else {
                    self.victims_anywhere(task, v, again)
                };
                if let Some(victims) = victims.filter(|victims| self.worth_it(task, victims)) {
                    return Some((task.number, victims));
                }
            }
        }
        None
    }

    /// The task can use the room once it is made: it takes nothing that is promised to others.
    fn worth_it(&self, task: &Task, victims: &[u64]) -> bool {
        let runs = victims.iter().filter_map(|number| self.tasks[*number].run.as_ref());
        let grace = runs.map(|run| self.agents[run.agent].spec.grace_ms).max().unwrap_or(0);
        let agent = self.place_for(task).or_else(|| {
            let victim = self.tasks[*victims.first()?].run.as_ref()?;
            Some(victim.agent)
        });
        let length = self.remaining(task).saturating_add(grace);
        agent.is_some_and(|agent| self.keeps_promises(task, agent, self.now, length, victims))
    }

    fn next_high(&self, lane: &Lane) -> Option<&Task> {
        let queue = lane.queues[Class::High.index()].iter();
        let mut tasks = queue.map(|(_, number)| &self.tasks[*number]);
        tasks.find(|task| !task.has(crate::task::flag::CLAIMS) && self.possible(task))
    }

    /// It ran long enough; else notes when it will have.
    fn mature(&self, task: &Task, again: &mut u64) -> bool {
        let Some(run) = &task.run else { return false };
        let at = run.since.saturating_add(self.config.preemption.min_run_ms);
        if at > self.now {
            *again = (*again).min(at);
        }
        at <= self.now
    }

    /// Attempts that hold what the task lacks: of the lowest class, with the least to lose. Those of other tenants only while this one has
    /// had less than they.
    fn victims_anywhere(&self, task: &Task, v: u64, again: &mut u64) -> Option<Vec<u64>> {
        let (kept, kept_gpu) = self.kept();
        let mut slots = task.slots.saturating_sub(self.free_slots().saturating_sub(kept));
        let mut gpus = u32::from(task.gpu).saturating_sub(self.free_gpus().saturating_sub(kept_gpu));
        let mut victims = Vec::new();
        for &(_, _, number) in &self.node.victims {
            if slots == 0 && gpus == 0 {
                break;
            }
            let victim = &self.tasks[number];
            let helps = slots > 0 || (gpus > 0 && victim.gpu > 0);
            let may = victim.tenant == task.tenant || v <= self.tenants[victim.tenant].v;
            if helps && may && self.mature(victim, again) {
                victims.push(number);
                slots = slots.saturating_sub(victim.slots);
                gpus = gpus.saturating_sub(victim.gpu.into());
            }
        }
        (slots == 0 && gpus == 0 && !victims.is_empty()).then_some(victims)
    }

    /// All agents that could run it are full: one attempt of theirs makes room, if its slots do.
    fn victims_at_agents(&self, task: &Task, lane: &Lane, again: &mut u64) -> Option<Vec<u64>> {
        let (kept, kept_gpu) = self.kept();
        let slots = task.slots.saturating_sub(self.free_slots().saturating_sub(kept));
        let gpus = u32::from(task.gpu).saturating_sub(self.free_gpus().saturating_sub(kept_gpu));
        let agents = lane.agents.iter().take(LOOK_AT).map(|id| &self.agents[*id]);
        let best = agents
            .filter(|agent| agent.present() && agent.limited_until == 0)
            .flat_map(|agent| agent.tasks.iter())
            .map(|number| &self.tasks[*number])
            .filter(|victim| victim.slots >= slots && u32::from(victim.gpu) >= gpus)
            .filter_map(|victim| Some((self.victim_key(victim)?, victim)))
            .filter(|(_, victim)| self.mature(victim, again))
            .min_by_key(|(key, _)| *key)?;
        Some(vec![best.1.number])
    }

    /// Asks an attempt to make room.
    fn ask(&mut self, number: u64, room_for: u64, out: &mut Applied) {
        self.unlist(number);
        let now = self.now;
        let Some(run) = &mut self.tasks[number].run else { return };
        run.room_for = room_for;
        let spec = &self.agents[run.agent].spec;
        let grace_ms = if spec.checkpoints { spec.grace_ms } else { 0 };
        if grace_ms > 0 {
            run.stage = Stage::Asked;
            run.until = now + grace_ms;
        }
        self.tasks[number].state = State::Preempting;
        self.tell(number, EventKind::Preempting { by: crate::TaskNumber(room_for), grace_ms }, out);
        if grace_ms > 0 {
            self.charge_until(number, now + grace_ms);
            if let Some((attempt, tenant, agent)) = self.whose(number) {
                out.effects.push(Effect::Preempt { attempt, tenant, agent, grace_ms });
            }
            self.time_task(number);
        } else {
            self.next_rung(number, out);
        }
    }

    /// It did not make room by itself: it is frozen where that is allowed, else stopped.
    pub(crate) fn next_rung(&mut self, number: u64, out: &mut Applied) {
        let task = &self.tasks[number];
        let Some(run) = &task.run else { return };
        if self.may_freeze(task, run) {
            self.stage(number, Stage::Freezing, 0);
            if let Some((attempt, tenant, agent)) = self.whose(number) {
                out.effects.push(Effect::Freeze { attempt, tenant, agent });
            }
        } else {
            self.stop(number, Stage::Stopping, out);
        }
    }

    /// Sends `Stop`, and again until the attempt is gone.
    pub(crate) fn stop(&mut self, number: u64, stage: Stage, out: &mut Applied) {
        self.stage(number, stage, self.now + self.config.stop_retry_ms);
        if let Some((attempt, tenant, agent)) = self.whose(number) {
            out.effects.push(Effect::Stop { attempt, tenant, agent });
        }
    }

    pub(crate) fn stage(&mut self, number: u64, stage: Stage, until: u64) {
        self.unlist(number);
        if let Some(run) = &mut self.tasks[number].run {
            let (old, agent) = (run.stage, run.agent);
            run.stage = stage;
            run.until = until;
            self.restage(agent, Some(old), Some(stage));
            if old.stopping() != stage.stopping() || old == Stage::Frozen {
                self.refresh_agent(agent);
            }
        }
        self.list(number);
        self.mark_task(number);
        self.time_task(number);
    }

    /// The attempt is over because it was asked to make room (or gave up by itself); its task goes on later.
    pub(crate) fn made_room(&mut self, number: u64, rung: Rung, out: &mut Applied) {
        if self.tasks[number].run.as_ref().is_some_and(|run| run.stage == Stage::Running) {
            self.gave_up(number, out);
            return;
        }
        let lost_ms = self.unsaved(number);
        let asked = self.tasks[number].run.as_ref().is_some_and(|run| run.room_for != 0);
        self.tell(number, EventKind::Preempted { rung, lost_ms }, out);
        self.release(number, lost_ms);
        let task = &mut self.tasks[number];
        if asked {
            task.preemptions = task.preemptions.saturating_add(1);
        }
        if rung == Rung::Stopped {
            self.may_repeat(number);
        }
        self.again(number, out);
    }

    /// The attempt gave up by itself, nobody having asked. Its task goes on after a pause, for it would otherwise turn as fast as
    /// processes start, and not for ever: a task that gets nowhere fails.
    fn gave_up(&mut self, number: u64, out: &mut Applied) {
        let now = self.now;
        let lost_ms = self.unsaved(number);
        let policy = self.tasks[number].retry();
        let rare = self.tasks[number].rare();
        rare.yields = rare.yields.saturating_add(1);
        let yields = rare.yields;
        if yields > MOST_YIELDS {
            let message = format!(
                "it asked to be run again {yields} times in a row, with neither progress nor a checkpoint"
            );
            let failure = Failure { code: "YIELDED_TOO_OFTEN".into(), message, retryable: false };
            self.fail(number, failure, true, out);
            return;
        }
        let at = now.saturating_add(backoff(policy, yields).max(YIELD_PAUSE_MS));
        let message = "it asked to be run again".to_owned();
        self.tell(number, EventKind::Retried { code: "YIELDED".into(), message, at }, out);
        self.release(number, lost_ms);
        self.tasks[number].ready_at = at;
        self.again(number, out);
    }

    /// Its agent is there and has the attempt no more. Once that is a crash, and the task goes on at once; an agent that only ever comes
    /// back without it would have it turn as fast as streams open.
    pub(crate) fn let_go(&mut self, number: u64) {
        let now = self.now;
        let task = &mut self.tasks[number];
        let policy = task.retry();
        let rare = task.rare();
        rare.yields = rare.yields.saturating_add(1);
        if let before @ 1.. = rare.yields - 1 {
            task.ready_at = now.saturating_add(backoff(policy, before).max(YIELD_PAUSE_MS));
        }
    }

    /// What an attempt ran since its last checkpoint.
    pub(crate) fn unsaved(&self, number: u64) -> u64 {
        self.tasks[number].run.as_ref().map_or(0, |run| {
            let stretch = if run.holds { self.now.saturating_sub(run.base) } else { 0 };
            stretch.saturating_add(run.unsaved_ms)
        })
    }
}
