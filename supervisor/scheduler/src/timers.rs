//! What is due by itself. Every entity has one timer, at the earliest of its times.

use crate::scheduler::{Applied, Scheduler, Timer};
use crate::task::{Failure, Stage};
use crate::{Effect, EventKind, State};

impl Scheduler {
    pub(crate) fn run_timers(&mut self, out: &mut Applied) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > self.now {
                return;
            }
            match timer {
                Timer::Tenant(id) => self.refresh_tenant(id),
                Timer::Agent(id) => self.agent_timer(id, out),
                Timer::Task(number) => self.task_timer(number, out),
            }
        }
    }

    fn agent_timer(&mut self, id: u32, out: &mut Applied) {
        let now = self.now;
        if self.agents[id].back_until != 0 && self.agents[id].back_until <= now {
            self.did_not_come_back(id, out);
        }
        let agent = &mut self.agents[id];
        if agent.woken_at != 0 && agent.woken_at + self.config.wake_retry_ms <= now {
            agent.woken_at = 0;
            self.mark_agent(id);
            for lane in self.agents[id].lanes.clone() {
                self.wake(lane, out);
            }
        }
        self.refresh_agent(id);
    }

    /// One thing that is due; what else is due comes round again.
    fn task_timer(&mut self, number: u64, out: &mut Applied) {
        let now = self.now;
        let task = &self.tasks[number];
        let past = |at: u64| at != 0 && at <= now;
        let ended = task.state.ended();
        match &task.run {
            Some(run) => {
                let (stage, late) = (run.stage, run.late);
                let timeout = run.since.saturating_add(u64::from(task.timeout_ms).saturating_sub(run.ran_ms));
                if past(run.until) {
                    self.stage_over(number, stage, out);
                } else if run.holds && past(run.charged_until) {
                    self.charge_more(number);
                } else if task.timeout_ms != 0 && run.holds && !stage.fenced() && past(timeout.max(1)) {
                    self.timed_out(number, out);
                } else if !ended && !late && past(task.deadline) {
                    self.deadline_passed(number, stage, out);
                } else if stage == Stage::Running && past(run.checkpoint_at) {
                    self.ask_for_checkpoint(number, out);
                } else {
                    self.time_task(number);
                }
            }
            None if !ended && past(task.deadline) => self.expire(number, out),
            None if !ended && past(task.ready_at) && task.blocked_by == 0 => {
                let lane = task.lane;
                self.tasks[number].state = State::Queued;
                self.tell(number, EventKind::Queued, out);
                self.enqueue(number);
                self.wake(lane, out);
            }
            None => self.time_task(number),
        }
    }

    fn stage_over(&mut self, number: u64, stage: Stage, out: &mut Applied) {
        match stage {
            Stage::Asked => self.next_rung(number, out),
            Stage::Over => self.stop(number, Stage::OverStopping, out),
            stage if stage.stopping() => self.stop(number, stage, out),
            stage => self.stage(number, stage, 0),
        }
    }

    fn timed_out(&mut self, number: u64, out: &mut Applied) {
        self.tell(number, EventKind::TimedOut, out);
        let message = format!("it ran longer than its timeout of {} ms", self.tasks[number].timeout_ms);
        let failure = Failure { code: "TIMEOUT".into(), message, retryable: true };
        // The next attempt waits until this one is over: a task never runs twice at once.
        self.fail(number, failure, false, out);
        self.call_off(number, "the attempt's time is over", out);
    }

    /// What runs may end, late; what is frozen will not go on.
    fn deadline_passed(&mut self, number: u64, stage: Stage, out: &mut Applied) {
        if stage == Stage::Frozen || self.tasks[number].state == State::Waiting {
            self.expire(number, out);
            return;
        }
        self.tell(number, EventKind::DeadlineMissed, out);
        if let Some(run) = &mut self.tasks[number].run {
            run.late = true;
        }
        self.mark_task(number);
        self.time_task(number);
    }

    fn ask_for_checkpoint(&mut self, number: u64, out: &mut Applied) {
        let now = self.now;
        let Some((attempt, tenant, agent)) = self.whose(number) else { return };
        let owner = &self.tenants[self.tasks[number].tenant];
        let full = owner.quotas.checkpoint_bytes.is_some_and(|most| owner.checkpoint_bytes >= most);
        if let Some(run) = &mut self.tasks[number].run {
            run.checkpoint_at = now + self.agents[run.agent].spec.checkpoint_interval_ms.max(1000);
        }
        if !full {
            out.effects.push(Effect::TakeCheckpoint { attempt, tenant, agent });
        }
        self.mark_task(number);
        self.time_task(number);
    }
}
